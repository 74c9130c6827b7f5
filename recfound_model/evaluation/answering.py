"""Generative tasks: what is asked, what a model or a baseline answers, and the scores of each answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recfound_data.progress import Progress
from recfound_data.samples import LETTERS
from recfound_data.tasks import TASKS
from recfound_model.evaluation.baselines import option_scores
from recfound_model.evaluation.bertscore import BertScorer
from recfound_model.evaluation.generation import Question, answered, longest_answer, question
from recfound_model.evaluation.metrics import LIKELIHOOD
from recfound_model.evaluation.models import LanguageModel
from recfound_model.evaluation.texts import attribute_values, chosen_option, overlaps
from recfound_model.evaluation.work import AnswerStore, Spent, Timer
from recfound_model.training.streams import load_split


@dataclass(frozen=True)
class Asked:
    """The samples of a generative task that are evaluated.

    Attributes:
        samples: their rows.
        whole: those of the whole split, from which the length of answers is taken.
        options: what is chosen from in each row; letters for sequential_recommendation, none where text is free.
    """

    task: str
    samples: pl.DataFrame
    whole: pl.DataFrame
    options: list[list[str]]


def asked(data: str, task: str, split: str, revision: str | None, most: int | None, most_answers: int | None) -> Asked:
    """Return what a task asks: `most` samples a corpus, `most_answers` together, the first of each corpus in turn."""
    whole = load_split(data, task, split, revision).to_polars()
    place = pl.int_range(pl.len()).over("corpus")
    samples = whole.with_row_index("row").with_columns(place=place)
    if most:
        samples = samples.filter(pl.col("place") < most)
    if most_answers:
        samples = samples.sort("place", "corpus").head(most_answers).sort("row")
    options = [
        list(LETTERS[: len(row)]) if TASKS[task].metric == "recall@1" else list(row) for row in samples["options"]
    ]
    return Asked(task, samples.drop("row", "place"), whole, options)


def baseline_answers(name: str, task: Asked, data: str, revision: str | None, seed: int) -> pl.DataFrame:
    """Return the scores of a baseline that chooses one of the options."""
    shown = task.samples["options"].to_list()
    scores = option_scores(name, task.task, task.samples, shown, data, revision, seed)
    chosen = [letters[int(np.argmax(row))] for letters, row in zip(task.options, scores, strict=True)]
    return _chosen_columns(task, chosen, "")


def model_answers(
    folder: Path, model: LanguageModel, task: Asked, bert: BertScorer | None, spent: Spent
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return the scores of a model's answers, and facts: tokens that an answer may have, prompts that were cut.

    Args:
        folder: of this model's work: answers that it holds are not generated again.
        model: answers.
        task: what is asked.
        bert: gives BERTScore of free texts, where there is one.
        spent: is added to.
    """
    whole = task.whole
    chosen = any(task.options)
    most_new = longest_answer(model, whole["prompt"].to_list(), whole["label"].to_list(), options=chosen)
    questions = [
        question(model, prompt, options, most_new)
        for prompt, options in zip(task.samples["prompt"].to_list(), task.options, strict=True)
    ]
    answers = _answers(folder, model, task.task, questions, most_new, spent)
    texts = [row["text"] for row in answers]
    facts = {
        "answer_tokens": most_new,
        "prompts_cut": sum(one.cut > 0 for one in questions),
        "label_sources": dict(task.samples["label_source"].value_counts(sort=True).iter_rows()),
    }
    if not chosen:
        return _free_columns(task, texts, bert), facts
    read = [chosen_option(text, options) or "" for text, options in zip(texts, task.options, strict=True)]
    likeliest = [options[int(np.argmax(row["chances"]))] for options, row in zip(task.options, answers, strict=True)]
    scores = _chosen_columns(task, read, "").with_columns(
        *_chosen_columns(task, likeliest, LIKELIHOOD).select(pl.col(f"^.*{LIKELIHOOD}$|^likeliest$")).get_columns(),
        invalid=pl.Series([float(not one) for one in read]),
        written=pl.Series(texts),
    )
    return scores, facts


def _answers(
    folder: Path, model: LanguageModel, task: str, questions: Sequence[Question], most_new: int, spent: Spent
) -> list[dict[str, Any]]:
    store = AnswerStore(folder / "answers" / f"{task}.jsonl")
    keys = [hashlib.sha256(f"{most_new} {one.ids} {one.options}".encode()).hexdigest()[:32] for one in questions]
    missing = {key: at for at, key in enumerate(keys) if key not in store.found}
    places = list(missing.values())
    timer = Timer()
    with Progress(task, len(places)) as progress:
        for batch in answered(model, task, [questions[at] for at in places], most_new):
            store.append((keys[places[at]], {"text": answer.text, "chances": answer.chances}) for at, answer in batch)
            progress.advance(len(batch))
    spent.prompts += len(places)
    spent.prompt_seconds += timer.seconds
    return [store.found[key] for key in keys]


def _keys(task: Asked) -> pl.DataFrame:
    return task.samples.select("corpus", "domain", "label", query_id="id").select(
        "query_id", "corpus", "domain", "label"
    )


def _chosen_columns(task: Asked, chosen: list[str], ending: str) -> pl.DataFrame:
    """Return the scores of chosen options; `ending` says by what they were chosen."""
    right = "recall@1" if TASKS[task.task].metric == "recall@1" else "accuracy"
    column = "likeliest" if ending else "answer"
    hit = (pl.col(column) == pl.col("label")).cast(pl.Float64)
    return _keys(task).with_columns(pl.Series(column, chosen)).with_columns(hit.alias(right + ending))


def _free_columns(task: Asked, texts: list[str], bert: BertScorer | None) -> pl.DataFrame:
    """Return the scores of free text: pairs of attribute and value where it is those, else overlaps with the label."""
    labels = task.samples["label"].to_list()
    columns: dict[str, list[Any]] = {}
    if TASKS[task.task].metric == "micro_f1":
        columns = _pair_columns(texts, labels)
    else:
        if bert is not None:
            columns["bertscore_f1"] = bert.f1(texts, labels)
        columns |= overlaps(texts, labels)
    scores = _keys(task).with_columns(*(pl.Series(name, values) for name, values in columns.items()))
    return scores.with_columns(answer=pl.Series(texts))


def _pair_columns(texts: Sequence[str], labels: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in ("hits", "false_alarms", "misses", "sample_f1", "invalid")}
    for text, label in zip(texts, labels, strict=True):
        said, right = attribute_values(text), attribute_values(label) or set()
        pairs = said or set()
        hits, wrong, missed = len(pairs & right), len(pairs - right), len(right - pairs)
        found["hits"].append(hits)
        found["false_alarms"].append(wrong)
        found["misses"].append(missed)
        found["sample_f1"].append(2 * hits / max(2 * hits + wrong + missed, 1))
        found["invalid"].append(float(said is None))
    return found
