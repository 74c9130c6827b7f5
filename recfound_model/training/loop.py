"""The training loop: each step draws samples a task, runs the joint objective, and takes one optimizer step."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from datasets import Dataset

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.progress import Progress, say
from recfound_data.tasks import TASKS
from recfound_data.tasks.catalogue import Kind
from recfound_model.adapter_config import TmoleConfig
from recfound_model.adapter_files import write_adapter
from recfound_model.bases import load_base
from recfound_model.nano import nano_base
from recfound_model.provenance import training_of
from recfound_model.scheduling.scheduler import FixedShares
from recfound_model.templates import task_prompts
from recfound_model.tmole import TmoleModel, add_tmole
from recfound_model.training.checkpoints import (
    Standing,
    TrainingState,
    checkpoint_folder,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    remove_partial_checkpoints,
    save_checkpoint,
)
from recfound_model.training.collating import Drawn
from recfound_model.training.estimates import (
    Estimate,
    activation_bytes,
    step_seconds,
)
from recfound_model.training.joint import make_objective, sum_gradients
from recfound_model.training.own_tasks import frequent_instruction
from recfound_model.training.recipe import TrainRecipe
from recfound_model.training.record import cut_back, recording, require_trackers, write_recipe
from recfound_model.training.sharding import (
    clip_gradients,
    gathered,
    held_bytes,
    parameter_groups,
    require_processes,
    shard,
)
from recfound_model.training.shares import make_scheduler, totals
from recfound_model.training.spans import ITEM_SPANS, item_spans
from recfound_model.training.streams import (
    Stream,
    first_of_each,
    load_samples,
    positive_counts,
    seed_of,
    split_names,
    task_kinds,
    training_positives,
)

KINDS: tuple[Kind, ...] = ("embedding", "generative")


@dataclass(frozen=True)
class TrainSummary:
    """What a run came to.

    Attributes:
        path: its folder.
        steps: how many it took now.
        losses: of its last step, by task.
        best: the checkpoint that did best on the validation samples, where the recipe has them measured.
        score: the mean over tasks of its validation losses relative to the first ones measured.
    """

    path: Path
    steps: int
    losses: dict[str, float]
    best: Path | None
    score: float | None


def train(recipe: TrainRecipe, resume: bool = False) -> TrainSummary | None:
    """Train one adapter on all tasks of a recipe; the run's folder is written as the contract says.

    Under a launcher (`accelerate launch`, `torchrun`) all processes call it; the main one writes.

    Returns:
        A summary, or None on processes other than the main one.

    Raises:
        UsageError: the recipe asks for what the data lacks, or the run's folder is taken.
        RecfoundError: data or base cannot be read, a loss is not finite, or a checkpoint cannot be written.
    """
    run = Path(recipe.out)
    start = latest_checkpoint(run) if resume else None
    if not resume and run.exists() and any(run.iterdir()):
        raise UsageError(f"{run}: a run is there already; continue it with --resume or name another `out`")
    require_trackers(list(recipe.trackers))
    trainer = Trainer(recipe)
    first = 0 if start is None else load_checkpoint(start, trainer.state)
    if first > recipe.steps:
        raise UsageError(f"{run}: is at step {first} already, and the recipe has {recipe.steps} steps")
    main = trainer.accelerator.is_main_process
    if main:
        write_recipe(run, recipe)
        cut_back(run, first)
        remove_partial_checkpoints(run)
    if start is None:
        # The first checkpoint is the adapter as it was drawn: TIES and its kin merge what changed since.
        save_checkpoint(run, 0, trainer.state, main)
    elif main:
        say(f"resuming at step {first}")
    losses = trainer.run(run, first)
    if not main:
        return None
    if recipe.plots:
        from recfound_model.plots import plot_run  # matplotlib takes a second, and other commands do without

        plot_run(run)
    standing = trainer.state.standing
    if standing.best is None:
        return TrainSummary(run, recipe.steps - first, losses, None, None)
    return TrainSummary(run, recipe.steps - first, losses, checkpoint_folder(run, standing.best), standing.score)


class Trainer:
    """A recipe made ready: base, adapter, streams, scheduler, objective, optimizer."""

    def __init__(self, recipe: TrainRecipe) -> None:
        self.recipe = recipe
        self.accelerator = Accelerator(
            # Without it, each process of `torchrun` on a machine without accelerators would think that it is alone.
            cpu=not torch.accelerator.is_available(),
            mixed_precision="bf16" if recipe.precision == "bf16" else "no",
            log_with=list(recipe.trackers) or None,
            project_config=ProjectConfiguration(logging_dir=str(Path(recipe.out) / "logs")),
        )
        if recipe.sharding == "fsdp2":
            require_processes(self.accelerator)
        self.tasks = task_kinds(recipe.data, recipe.data_revision, recipe.tasks)
        samples = self._samples("train", self.tasks)
        self.streams = {task: Stream(task, rows, recipe.seed) for task, rows in samples.items()}
        self.kinds = dict(self.tasks)
        if recipe.item_spans:
            self.streams[ITEM_SPANS] = item_spans(recipe.data, recipe.seed, self.tasks, recipe.data_revision)
            self.kinds[ITEM_SPANS] = "embedding"
        self.scheduler = make_scheduler(
            recipe, self.kinds, {task: len(stream.samples) for task, stream in self.streams.items()}
        )
        self.probe = self._held_out(recipe.scheduler.probe_samples) if recipe.scheduler.signal == "probe" else None
        self.validation = self._held_out(recipe.validation.samples) if recipe.validation.every else None
        name = recipe.base
        if name == "nano":
            with self.accelerator.main_process_first():
                name = str(nano_base(recipe.data, recipe.seed, revision=recipe.data_revision))
        base, tokenizer = load_base(name, recipe.revision, recipe.base_dtype, recipe.attention)
        torch.manual_seed(recipe.seed)
        try:
            model = add_tmole(base, self._adapter_config(name, samples))
        except ValueError as error:
            raise UsageError(f"adapter: {' '.join(str(error).split())}") from None
        if recipe.gradient_checkpointing:
            model.activation_checkpointing_enable()
        if recipe.sharding == "fsdp2":
            shard(model, self.accelerator)
        self.model: TmoleModel = model.to(self.accelerator.device).train()
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model.adapter_tensors(), recipe.rate_factors),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        self.state = TrainingState(
            self.model, self.optimizer, self.streams, self.scheduler, Standing(), training_of(recipe)
        )
        embedding = {task: rows for task, rows in samples.items() if self.tasks[task] == "embedding"}
        known = training_positives(recipe.data, embedding, recipe.data_revision)
        frequencies = None
        if recipe.popularity_correction:
            frequencies = {task: positive_counts(rows) for task, rows in embedding.items()}
        self.objective = make_objective(recipe, self.model, tokenizer, self.accelerator, known, frequencies)

    def _samples(self, split: str, tasks: Iterable[str]) -> dict[str, Dataset]:
        data, revision = self.recipe.data, self.recipe.data_revision
        return {task: load_samples(data, task, self.tasks[task], split, revision) for task in tasks}

    def _held_out(self, samples: int) -> Drawn:
        """Return validation samples of each task that is trained."""
        recipe = self.recipe
        # Spans have no validation split: every item of the catalogue is known from the beginning.
        trained = [task for tasks in self.scheduler.groups.values() for task in tasks if task in self.tasks]
        for task in trained:
            if "validation" not in split_names(recipe.data, task, recipe.data_revision):
                raise UsageError(
                    f"{task} has no validation split to measure; set scheduler.signal to losses and "
                    "validation.every to 0, or train without the task"
                )
        return first_of_each(self._samples("validation", trained), samples, recipe.seed)

    def _adapter_config(self, base: str, samples: Mapping[str, Dataset]) -> TmoleConfig:
        recipe = self.recipe
        prompts = {
            task: task_prompts(task, None if task in TASKS else frequent_instruction(samples[task], task))
            for task, kind in self.tasks.items()
            if kind == "embedding"
        }
        return TmoleConfig(
            tasks=dict(self.tasks),
            base_model_name_or_path=base,
            revision=recipe.revision,
            prompts=prompts,
            max_length=max(recipe.query_tokens, recipe.document_tokens),
            **recipe.adapter.model_dump(),
        )

    def run(self, run: Path, first: int) -> dict[str, float]:
        """Take the steps after `first`, and return the last losses.

        The main process writes metrics, checkpoints and, at the end, the adapter.
        """
        recipe, losses = self.recipe, dict[str, float]()
        estimate = self.estimate(recipe.steps - first)
        if not self.accelerator.is_main_process:
            for step in range(first + 1, recipe.steps + 1):
                losses = self.step(step)["losses"]
                self._keep(run, step)
            self._finish(run)
            return losses
        shares = ", ".join(f"{task} {share:.0%}" for task, share in self.scheduler.shares.items() if share)
        say(f"{len(self.trained)} tensors, {sum(p.numel() for p in self.trained):,} parameters; shares: {shares}")
        say(str(estimate))
        with (
            recording(run, recipe, self.accelerator) as metrics,
            Progress("train", recipe.steps - first) as progress,
        ):
            for step in range(first + 1, recipe.steps + 1):
                started = time.monotonic()
                record = self.step(step)
                record["seconds"] = round(time.monotonic() - started, 3)
                metrics.append(record)
                losses = record["losses"]
                shown = {task: f"{loss:.3f}" for task, loss in losses.items()}
                progress.advance(facts=shown | {"tokens/s": f"{record['tokens'] / max(record['seconds'], 1e-9):,.0f}"})
                self._keep(run, step)
        self._finish(run)
        return losses

    def _keep(self, run: Path, step: int) -> None:
        """Write a checkpoint where one is due."""
        recipe, best = self.recipe, self.state.standing.best
        if step % recipe.checkpoint_every and step not in (recipe.steps, best):
            return
        main = self.accelerator.is_main_process
        save_checkpoint(run, step, self.state, main)
        if main and recipe.keep_checkpoints is not None:
            prune_checkpoints(run, recipe.keep_checkpoints, best)

    def _finish(self, run: Path) -> None:
        """Write the adapter, and end what a launcher and trackers began."""
        main = self.accelerator.is_main_process
        tensors = gathered(self.model.adapter_tensors(), main)
        if main:
            write_adapter(run / "adapter", self.model.tmole_config, tensors, self.state.training)
        self.accelerator.end_training()

    def estimate(self, steps: int) -> Estimate:
        """Return what `steps` steps need, from the samples of one and the forward passes of an eighth of them."""
        counts = self._allocated(copy.deepcopy(self.scheduler))
        drawn = {task: copy.copy(self.streams[task]).draw(n) for task, n in counts.items() if n}
        kept, repeated, largest = self.objective.planned(*self._by_kind(drawn))
        few = self._by_kind({task: rows[: math.ceil(len(rows) / 8)] for task, rows in drawn.items()})
        self.objective.losses(*few)  # the first pass of a process pays for more than itself
        started = time.perf_counter()
        computed = self.objective.losses(*few).computed
        forward = (time.perf_counter() - started) * self.accelerator.num_processes / computed
        decoder, recompute = self.model.get_decoder(), self.recipe.gradient_checkpointing
        half = self.recipe.precision == "bf16"
        dropped = sum(layer.in_features for _, layer in self.model.adapted_layers())
        frozen = [p for p in self.model.parameters() if not p.requires_grad]
        shape = decoder.config
        return Estimate(
            base=held_bytes(frozen),
            adapter=4 * held_bytes(self.trained),
            activations=activation_bytes(
                shape.num_hidden_layers,
                shape.hidden_size,
                getattr(shape, "intermediate_size", 4 * shape.hidden_size),
                dropped if self.recipe.adapter.dropout else 0,
                largest,
                2 if half else 4,
                recompute,
            ),
            tokens=kept,
            seconds=step_seconds(forward, kept, repeated + recompute * kept),
            steps=steps,
        )

    def step(self, step: int) -> dict[str, Any]:
        """Take one optimizer step and return its metrics.

        Raises:
            RecfoundError: a loss is not finite; the message names the samples.
        """
        recipe = self.recipe
        # Dropout is a function of seed, step and process, so that a resumed run draws what an uninterrupted one draws.
        torch.manual_seed(seed_of(recipe.seed, "step", step, self.accelerator.process_index))
        rate = learning_rate(step, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        counts = self._allocated(self.scheduler)
        drawn = {task: self.streams[task].draw(count) for task, count in counts.items() if count}
        try:
            found = self.objective.backward(*self._by_kind(drawn))
            norm = self._clip()
            self.optimizer.step()
            signal = found.losses if self.probe is None else self._probed(step)
        except RecfoundError as error:
            raise RecfoundError(f"step {step}: {error}") from None
        self.scheduler.observe(signal)
        record = {
            "step": step,
            "losses": _rounded(found.losses),
            "samples": {task: len(rows) for task, rows in drawn.items()},
            "learning_rate": rate,
            "grad_norm": round(norm, 6),
            "tokens": found.tokens,
            "computed": found.computed,
        }
        if self.probe is not None and signal:
            record["probe"] = _rounded(signal)
        every = recipe.validation.every
        if self.validation is not None and (step % every == 0 or step == recipe.steps):
            losses = self.objective.losses(*self._by_kind(self.validation)).losses
            self.state.standing.take(step, losses)
            record["validation"] = _rounded(losses)
        return record

    def _allocated(self, scheduler: FixedShares) -> dict[str, int]:
        step = totals(self.recipe)
        return scheduler.allocate({kind: total for kind, total in step.items() if kind in scheduler.groups})

    def _by_kind(self, drawn: Drawn) -> tuple[Drawn, Drawn]:
        embedding, generative = (
            {task: rows for task, rows in drawn.items() if self.kinds[task] == kind} for kind in KINDS
        )
        return embedding, generative

    def _clip(self) -> float:
        """Clip the gradient of all processes, and return the norm that it had."""
        sum_gradients(self.accelerator, self.trained)
        norm = clip_gradients(self.accelerator, self.trained, self.recipe.max_grad_norm)
        if not math.isfinite(norm):
            raise RecfoundError("the gradient is not finite, although the losses are; lower learning_rate")
        return norm

    def _probed(self, step: int) -> dict[str, float]:
        """Return the losses of the validation samples, every few steps, from the first."""
        if (step - 1) % self.recipe.scheduler.probe_every:
            return {}
        return self.objective.losses(*self._by_kind(self.probe or {})).losses


def _rounded(losses: dict[str, float]) -> dict[str, float]:
    return {task: round(loss, 6) for task, loss in losses.items()}


def learning_rate(step: int, recipe: TrainRecipe) -> float:
    """Return the rate of a step, from 1: linear up over the warm-up, then linear down to zero after the last step."""
    warm = math.ceil(recipe.warmup * recipe.steps)
    if step <= warm:
        return recipe.learning_rate * step / warm
    return recipe.learning_rate * (recipe.steps - step + 1) / (recipe.steps - warm)
