"""The training loop: each step draws samples a task, runs the joint objective, and takes one optimizer step."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from torch import Tensor

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.progress import Progress, say
from recfound_data.tasks import TASKS
from recfound_model.adapter_config import TmoleConfig
from recfound_model.bases import load_base
from recfound_model.nano import nano_base
from recfound_model.objective import completion_loss, info_nce, largest_remainder, mean_pool
from recfound_model.routing import task_context
from recfound_model.templates import EmbeddingInputs, task_prompts
from recfound_model.tmole import TmoleModel, add_tmole
from recfound_model.training.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from recfound_model.training.recipe import TrainRecipe
from recfound_model.training.streams import (
    Collator,
    CompletionBatch,
    ContrastiveBatch,
    Stream,
    chosen_tasks,
    known_positives,
    load_split,
    seed_of,
    task_names,
)

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class TrainSummary:
    """Where a run is, how many steps it took now, and its last step's losses by task."""

    path: Path
    steps: int
    losses: dict[str, float]


def train(recipe: TrainRecipe, resume: bool = False) -> TrainSummary:
    """Train one adapter on all tasks of a recipe; the run's folder is written as the contract says.

    Raises:
        UsageError: the recipe asks for what the data lacks, or the run's folder is taken.
        RecfoundError: data or base cannot be read, or a loss is not finite.
    """
    run = Path(recipe.out)
    start = latest_checkpoint(run) if resume else None
    if not resume and run.exists() and any(run.iterdir()):
        raise UsageError(f"{run}: a run is there already; continue it with --resume or name another `out`")
    trainer = Trainer(recipe)
    first = 0
    if start is not None:
        first = load_checkpoint(start, trainer.model, trainer.optimizer, trainer.streams)
        if first > recipe.steps:
            raise UsageError(f"{run}: is at step {first} already, and the recipe has {recipe.steps} steps")
        _cut_back(run / METRICS, first)
        say(f"resuming at step {first}")
    run.mkdir(parents=True, exist_ok=True)
    written = recipe.model_dump(mode="json")
    (run / "recipe.yaml").write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    if start is None:
        # The first checkpoint is the adapter as it was drawn: TIES and its kin merge what changed since.
        save_checkpoint(run, 0, trainer.model, trainer.optimizer, trainer.streams)
    return trainer.run(run, first)


def _cut_back(metrics: Path, step: int) -> None:
    """Keep the first `step` lines, one a step; the last one may be half a line where the run was killed."""
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.exists() else []
    metrics.write_text("".join(lines[:step]), encoding="utf-8")


class Trainer:
    """A recipe made ready: base, adapter, streams, optimizer."""

    def __init__(self, recipe: TrainRecipe) -> None:
        self.recipe = recipe
        self.accelerator = Accelerator(mixed_precision="bf16" if recipe.precision == "bf16" else "no")
        if self.accelerator.num_processes > 1:
            raise UsageError("training runs in one process for now; start it without a launcher")
        tasks = chosen_tasks(recipe.tasks, task_names(recipe.data, recipe.data_revision), recipe.data)
        self.kinds = {task: TASKS[task].kind for task in tasks}
        samples = {task: load_split(recipe.data, task, "train", recipe.data_revision) for task in tasks}
        self.streams = {task: Stream(task, rows, recipe.seed) for task, rows in samples.items()}
        self.plan = self._plan()
        name = recipe.base
        if name == "nano":
            name = str(nano_base(recipe.data, recipe.seed, revision=recipe.data_revision))
        base, tokenizer = load_base(name, recipe.revision, recipe.base_dtype)
        known = {}
        if "embedding" in self.kinds.values():
            known = known_positives(load_split(recipe.data, "qrels", "train", recipe.data_revision).to_polars())
        self.collator = Collator(
            tokenizer,
            recipe.query_tokens,
            recipe.document_tokens,
            recipe.generative_tokens,
            recipe.negatives_per_pair,
            known,
        )
        torch.manual_seed(recipe.seed)
        try:
            model = add_tmole(base, self._adapter_config(name))
        except ValueError as error:
            raise UsageError(f"adapter: {' '.join(str(error).split())}") from None
        if recipe.gradient_checkpointing:
            model.activation_checkpointing_enable()
        self.model: TmoleModel = model.to(self.accelerator.device).train()
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def _plan(self) -> dict[str, int]:
        """Return how many samples of each task a step holds."""
        recipe = self.recipe
        plan: dict[str, int] = {}
        unknown = [task for task in recipe.proportions if task not in self.kinds]
        if unknown:
            raise UsageError(
                f"proportions: task {unknown[0]!r} is not trained on; the tasks are {', '.join(self.kinds)}"
            )
        for kind, total in (("embedding", recipe.embedding_batch), ("generative", recipe.generative_batch)):
            weights = {
                task: recipe.proportions.get(task, float(len(self.streams[task].samples)))
                for task in self.kinds
                if self.kinds[task] == kind
            }
            if total and any(weights.values()):
                plan |= largest_remainder(weights, total)
        plan = {task: count for task, count in plan.items() if count}
        if not plan:
            raise UsageError("nothing to train: no task of the recipe has a sample in a step; raise the batch sizes")
        return plan

    def _adapter_config(self, base: str) -> TmoleConfig:
        recipe = self.recipe
        prompts = {task: task_prompts(task) for task, kind in self.kinds.items() if kind == "embedding"}
        return TmoleConfig(
            tasks=dict(self.kinds),
            base_model_name_or_path=base,
            revision=recipe.revision,
            prompts=prompts,
            max_length=max(recipe.query_tokens, recipe.document_tokens),
            **recipe.adapter.model_dump(),
        )

    def run(self, run: Path, first: int) -> TrainSummary:
        """Take the steps after `first`, with metrics and checkpoints, and save the adapter."""
        recipe, losses = self.recipe, {}
        counts = ", ".join(f"{count} {task}" for task, count in self.plan.items())
        say(f"{len(self.trained)} tensors, {sum(p.numel() for p in self.trained):,} parameters; a step holds {counts}")
        with (
            (run / METRICS).open("a", encoding="utf-8") as metrics,
            Progress("train", recipe.steps - first) as progress,
        ):
            for step in range(first + 1, recipe.steps + 1):
                started = time.monotonic()
                record = self.step(step)
                record["seconds"] = round(time.monotonic() - started, 3)
                metrics.write(json.dumps(record) + "\n")
                metrics.flush()
                losses = record["losses"]
                shown = {task: f"{loss:.3f}" for task, loss in losses.items()}
                progress.advance(facts=shown | {"tokens/s": f"{record['tokens'] / max(record['seconds'], 1e-9):,.0f}"})
                if step % recipe.checkpoint_every == 0 or step == recipe.steps:
                    save_checkpoint(run, step, self.model, self.optimizer, self.streams)
        self.model.save_pretrained(run / "adapter")
        return TrainSummary(run, recipe.steps - first, losses)

    def step(self, step: int) -> dict[str, Any]:
        """Take one optimizer step and return its metrics.

        Raises:
            RecfoundError: a loss is not finite; the message names the samples.
        """
        recipe = self.recipe
        # Dropout is a function of seed and step alone, so that a resumed run draws what an uninterrupted one draws.
        torch.manual_seed(seed_of(recipe.seed, "step", step))
        rate = learning_rate(step, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn = {task: self.streams[task].draw(count) for task, count in self.plan.items()}
        contrastive = [self.collator.contrastive(t, rows) for t, rows in drawn.items() if self.kinds[t] == "embedding"]
        completions = [
            self.collator.completion(task, rows[at : at + recipe.rows_per_forward])
            for task, rows in drawn.items()
            if self.kinds[task] == "generative"
            for at in range(0, len(rows), recipe.rows_per_forward)
        ]
        pairs = sum(len(batch.positives) for batch in contrastive)
        supervised = {task: 0 for task in drawn if self.kinds[task] == "generative"}
        for part in completions:
            supervised[part.task] += int(part.supervised.sum())
        self.optimizer.zero_grad(set_to_none=True)
        losses = dict.fromkeys(drawn, 0.0)
        for batch in contrastive:
            # Each task's mean counts by its share of the step's pairs, so the sum is the mean over all pairs.
            mean = self.contrastive_loss(batch).mean()
            self._backward(mean * (len(batch.positives) / pairs), batch.task, drawn, step)
            losses[batch.task] = float(mean.detach())
        for part in completions:
            total = self.completion_loss(part)
            self._backward(recipe.generative_weight * total / sum(supervised.values()), part.task, drawn, step)
            losses[part.task] += float(total.detach()) / supervised[part.task]
        norm = float(self.accelerator.clip_grad_norm_(self.trained, recipe.max_grad_norm))
        if not math.isfinite(norm):
            raise RecfoundError(
                f"step {step}: the gradient is not finite, although the losses are; lower learning_rate"
            )
        self.optimizer.step()
        tokens = sum(batch.tokens for batch in contrastive) + sum(batch.tokens for batch in completions)
        return {
            "step": step,
            "losses": {task: round(loss, 6) for task, loss in losses.items()},
            "samples": dict(self.plan),
            "learning_rate": rate,
            "grad_norm": round(norm, 6),
            "tokens": tokens,
        }

    def _backward(self, loss: Tensor, task: str, drawn: dict[str, list[dict[str, Any]]], step: int) -> None:
        if not torch.isfinite(loss):
            ids = ", ".join(row["id"] for row in drawn[task][:8])
            raise RecfoundError(
                f"step {step}: the loss of {task} is {loss.item()}; its samples begin {ids}; lower learning_rate"
            )
        self.accelerator.backward(loss)

    def embed(self, inputs: EmbeddingInputs) -> Tensor:
        """Return [batch, size]: pooled, normalised, under bidirectional attention."""
        return embed(self.model, inputs, self.accelerator.device)

    def contrastive_loss(self, batch: ContrastiveBatch) -> Tensor:
        """Return [batch], the InfoNCE loss of each pair."""
        with task_context(self.model, batch.task), self.accelerator.autocast():
            anchors, documents = self.embed(batch.anchors), self.embed(batch.documents)
        device = anchors.device
        return info_nce(
            anchors, documents, batch.positives.to(device), batch.excluded.to(device), self.recipe.temperature
        )

    def completion_loss(self, batch: CompletionBatch) -> Tensor:
        """Return the summed loss of the batch's completion tokens; the head runs only where one is predicted."""
        device = self.accelerator.device
        ids, mask, supervised = (t.to(device) for t in (batch.input_ids, batch.attention_mask, batch.supervised))
        with task_context(self.model, batch.task), self.accelerator.autocast():
            hidden = self.model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            # Position i predicts token i + 1.
            logits = self.model.get_output_embeddings()(hidden[:, :-1][supervised[:, 1:]])
        return completion_loss(logits, ids[:, 1:][supervised[:, 1:]])


def embed(model: TmoleModel, inputs: EmbeddingInputs, device: torch.device) -> Tensor:
    """Return [batch, size] embeddings of a model with a task set: bidirectional attention, mean without the prompt."""
    hidden = model.get_decoder()(
        input_ids=inputs.input_ids.to(device),
        attention_mask=inputs.attention_mask.to(device),
        is_causal=False,
        use_cache=False,
    ).last_hidden_state
    return mean_pool(hidden, inputs.pooled.to(device))


def learning_rate(step: int, recipe: TrainRecipe) -> float:
    """Return the rate of a step, from 1: linear up over the warm-up, then linear down to zero after the last step."""
    warm = math.ceil(recipe.warmup * recipe.steps)
    if step <= warm:
        return recipe.learning_rate * step / warm
    return recipe.learning_rate * (recipe.steps - step + 1) / (recipe.steps - warm)
