"""What the native adapter gives: the reference of the parity gate.

Everything here goes the way of training and evaluation (`load_tmole`, `task_context`, templates), on the base in
float32, and none of it through the code that collapses or merges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recfound_model.adapter_files import AdapterReader
from recfound_model.evaluation.models import LanguageModel
from recfound_model.exporting.held_out import HeldOut
from recfound_model.exporting.weights import BaseModel, decoder_prefix, max_length
from recfound_model.routing import task_context
from recfound_model.templates import render_prompt, text_ids
from recfound_model.tmole import load_tmole

NEW_TOKENS = 16
"""How far a generative task's prompts are continued."""
SIDES = ("query", "document")


@dataclass(frozen=True)
class EmbeddingReference:
    """Of one embedding task, by side: token ids of each text, and vectors [texts, size]."""

    ids: dict[str, list[list[int]]]
    vectors: dict[str, Tensor]


@dataclass(frozen=True)
class GenerationReference:
    """Of one generative task.

    Attributes:
        ids: token ids of each prompt.
        continuations: the greedy tokens after each prompt, up to and with the end of the turn.
        logits: of each prompt, [its continuation + 1, vocabulary]: those that each token was chosen from, and the next.
    """

    ids: list[list[int]]
    continuations: list[list[int]]
    logits: list[Tensor]


Reference = EmbeddingReference | GenerationReference


class NativeModel:
    """The native adapter on its base in float32."""

    def __init__(self, adapter_dir: str | Path, adapter: AdapterReader, base: BaseModel) -> None:
        model, tokenizer = base.load("float32")
        self.prefix = decoder_prefix(model)
        self.max_length = max_length(adapter.config, model, tokenizer)
        self.model = load_tmole(model, adapter_dir)
        self.scorer = LanguageModel(self.model, tokenizer, self.max_length)

    def embeddings(self, task: str, texts: HeldOut) -> EmbeddingReference:
        """What the task makes of texts, on both sides."""
        prompts = self.scorer.prompts(task)
        ids, vectors = {}, {}
        for side in SIDES:
            rows = texts.texts[side]
            tokens = text_ids(self.scorer.tokenizer, [prompts[side]] * len(rows), rows, self.max_length)
            ids[side] = [one for one, _ in tokens]
            vectors[side] = self.scorer.encode(task, side, rows)
        return EmbeddingReference(ids, vectors)

    @torch.inference_mode()
    def generation(self, task: str, texts: HeldOut) -> GenerationReference:
        """What the task answers to prompts, greedily, and the logits behind it."""
        tokenizer, model, device = self.scorer.tokenizer, self.model, self.scorer.device
        rendered = [render_prompt(tokenizer, prompt) for prompt in texts.prompts]
        inputs = tokenizer(
            rendered, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        ).to(device)
        ids = [row[kept.bool()].tolist() for row, kept in zip(inputs.input_ids, inputs.attention_mask, strict=True)]
        with task_context(model, task):
            answers = model.generate(
                **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
            continuations = [self._ended(row) for row in answers[:, inputs.input_ids.shape[1] :].tolist()]
            logits = [
                model(torch.tensor([row + more], device=device)).logits[0, len(row) - 1 :].float().cpu()
                for row, more in zip(ids, continuations, strict=True)
            ]
        return GenerationReference(ids, continuations, logits)

    def _ended(self, tokens: list[int]) -> list[int]:
        """A continuation without the padding after its end."""
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        at = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        return tokens[: at + 1]

    @torch.inference_mode()
    def updates(self, task: str) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield (module, its weight [out, in], what the task adds to it [out, in]) of every adapted linear.

        The update is what the layer's own experts say to the identity.
        """
        with task_context(self.model, task):
            for name, layer in self.model.adapted_layers():
                weight = layer.base_layer.weight
                route = layer.routing.current()
                identity = torch.eye(layer.in_features, device=weight.device)
                nothing = torch.zeros(layer.in_features, layer.out_features, device=weight.device)
                update = layer.experts(identity, nothing, route, layer.routing.z_of(route))
                yield name, weight.cpu(), update.T.contiguous().cpu()

    def unadapted(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the parameters of the base that no task changes, by their names in it."""
        adapted = {f"{name}.base_layer.weight" for name, _ in self.model.adapted_layers()}
        for name, parameter in self.model.model.named_parameters(remove_duplicate=False):
            if name not in adapted and ".tmole." not in name:
                yield name.replace(".base_layer.", "."), parameter.detach().cpu()
