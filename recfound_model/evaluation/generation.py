"""Answers of a language model: what it writes by greedy decoding, and how likely each option is, from one pass.

The prompt is read once, padded on the left, and its cache serves both. The likelihood of an option is that of the
tokens which tell it from all other options: with letters, or with yes and no, one token, whose chances follow the
prompt; where options begin alike, the tokens up to the first that differs. Answers end where the base ends a turn.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_model.evaluation.models import LanguageModel
from recfound_model.evaluation.work import NotFiniteError
from recfound_model.routing import task_context
from recfound_model.templates import completion_ids, render_prompt

_BATCH_TOKENS = 8192
_OPTION_SLACK = 2

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Question:
    """A rendered prompt as tokens, and its options as the tokens of whole answers; no options where text is free."""

    ids: list[int]
    cut: int
    options: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Answer:
    """What a model wrote, and the log-likelihood of each option."""

    text: str
    chances: list[float]


def longest_answer(model: LanguageModel, prompts: Sequence[Messages], references: Sequence[str], options: bool) -> int:
    """Return how many tokens an answer may have: those of the longest reference, the end of the turn included.

    Options get two more, for a model that begins with a space or a quote.
    """
    longest: dict[int, int] = {}
    for at, reference in enumerate(references):
        longest[len(reference)] = at
    # Characters and tokens go together but for a factor: the tokens of the longest hundred decide.
    tried = [longest[length] for length in sorted(longest)[-100:]]
    lengths = [len(_answer_ids(model, prompts[at], references[at])) for at in tried]
    return max(lengths) + (_OPTION_SLACK if options else 0)


def question(model: LanguageModel, prompt: Messages, options: Sequence[str], most_new: int) -> Question:
    """Return a prompt ready to be answered; one too long for the model loses its beginning, as in training."""
    text = render_prompt(model.tokenizer, prompt)
    ids = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    limit = getattr(model.model.config, "max_position_embeddings", None)
    kept = ids if not limit else ids[-max(limit - most_new, 1) :]
    answers = tuple(tuple(_answer_ids(model, prompt, option)) for option in options)
    return Question(kept, len(ids) - len(kept), telling_prefixes(answers))


def _answer_ids(model: LanguageModel, prompt: Messages, answer: str) -> list[int]:
    return completion_ids(model.tokenizer, prompt, [{"role": "assistant", "content": answer}])[1]


def telling_prefixes(answers: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Return of each answer the shortest beginning that no other answer has.

    Raises:
        RecfoundError: an answer is the beginning of another.
    """
    found = []
    for at, answer in enumerate(answers):
        others = [other for place, other in enumerate(answers) if place != at]
        shared = max((_common(answer, other) for other in others), default=0)
        if shared >= len(answer):
            raise RecfoundError("two options cannot be told apart: the tokens of one begin with those of the other")
        found.append(answer[: shared + 1])
    return tuple(found)


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    same = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        same += 1
    return same


def answered(
    model: LanguageModel, task: str, questions: Sequence[Question], most_new: int
) -> Iterator[list[tuple[int, Answer]]]:
    """Yield answers with the places of their questions, batch by batch, the longest prompts first.

    Raises:
        NotFiniteError: a likelihood is not.
    """
    waiting: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for at, one in enumerate(questions):
        waiting.setdefault(one.options, []).append(at)
    for options, places in waiting.items():
        places.sort(key=lambda at: -len(questions[at].ids))
        while places:
            width = len(questions[places[0]].ids) + most_new
            batch = [places.pop(0) for _ in range(min(len(places), max(1, _BATCH_TOKENS // width)))]
            answers = _answered_batch(model, task, [questions[at].ids for at in batch], options, most_new)
            yield list(zip(batch, answers, strict=True))


@torch.inference_mode()
def _answered_batch(
    model: LanguageModel, task: str, ids: list[list[int]], options: tuple[tuple[int, ...], ...], most_new: int
) -> list[Answer]:
    tokenizer, device = model.tokenizer, model.device
    width = max(map(len, ids))
    padded = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in ids], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
    with _routed(model, task):
        chances, cache = _step(model, padded, mask, None)
        if not torch.isfinite(chances).all():
            raise NotFiniteError
        scores = _option_scores(model, options, chances[:, -1], mask, cache)
        texts = _greedy(model, chances[:, -1], mask, cache, most_new)
    return [Answer(text, row) for text, row in zip(texts, scores.tolist(), strict=True)]


def _routed(model: LanguageModel, task: str) -> AbstractContextManager[Any]:
    if model.switches:
        model.model.set_adapter(task)
    return task_context(model.model, task) if model.native else nullcontext()


def _step(model: LanguageModel, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Return log-probabilities [rows, kept, vocabulary] and the cache; `mask` [rows, tokens] is of all tokens so far.

    After a prompt only those of the token that follows are kept; later, of each token that is read.
    """
    accepted = inspect.signature((model.model.model if model.native else model.model).forward).parameters
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    extra: dict[str, Any] = {"position_ids": places} if "position_ids" in accepted else {}
    if "logits_to_keep" in accepted and cache is None:
        extra["logits_to_keep"] = 1
    out = model.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
    logits = out.logits[:, -1:] if cache is None else out.logits
    return torch.log_softmax(logits.float(), dim=-1), out.past_key_values


def _option_scores(
    model: LanguageModel, options: tuple[tuple[int, ...], ...], following: Tensor, mask: Tensor, cache: Any
) -> Tensor:
    """Return [rows, options] log-likelihoods; `following` [rows, vocabulary] are the chances after the prompt."""
    scores = torch.zeros(len(following), len(options))
    begun = {option[:-1] for option in options}
    for beginning in begun:
        reached, total = following, torch.zeros(len(following), device=following.device)
        if beginning:
            ids = torch.tensor([beginning] * len(following), device=following.device)
            longer = torch.cat([mask, mask.new_ones(ids.shape)], dim=1)
            chances, _ = _step(model, ids, longer, copy.deepcopy(cache))
            ahead = torch.cat([following.unsqueeze(1), chances[:, :-1]], dim=1)
            total = ahead.gather(2, ids.unsqueeze(2)).squeeze(2).sum(dim=1)
            reached = chances[:, -1]
        for at, option in enumerate(options):
            if option[:-1] == beginning:
                scores[:, at] = (total + reached[:, option[-1]]).cpu()
    return scores


def _greedy(model: LanguageModel, following: Tensor, mask: Tensor, cache: Any, most_new: int) -> list[str]:
    tokenizer = model.tokenizer
    ending = sorted(_ends(model))
    ends = torch.tensor(ending, device=following.device)
    written: list[Tensor] = []
    done = torch.zeros(len(following), dtype=torch.bool, device=following.device)
    while True:
        token = following.argmax(dim=-1)
        written.append(torch.where(done, tokenizer.pad_token_id, token))
        done |= torch.isin(token, ends)
        if len(written) == most_new or bool(done.all()):
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        chances, cache = _step(model, written[-1].unsqueeze(1), mask, cache)
        following = chances[:, -1]
    rows = torch.stack(written, dim=1).tolist()
    cut = [row[: next((at for at, one in enumerate(row) if one in ending), len(row))] for row in rows]
    return [text.strip() for text in tokenizer.batch_decode(cut, skip_special_tokens=True)]


def _ends(model: LanguageModel) -> set[int]:
    """Return the tokens that end an answer: the model's own, and what the chat template puts behind an answer."""
    found = {model.tokenizer.eos_token_id}
    own = getattr(model.model, "generation_config", None)
    if own is not None and own.eos_token_id is not None:
        found |= set(own.eos_token_id) if isinstance(own.eos_token_id, list) else {own.eos_token_id}
    last = _answer_ids(model, [{"role": "user", "content": "?"}], "x")[-1]
    if last in model.tokenizer.all_special_ids:
        found.add(last)
    return found - {None}
