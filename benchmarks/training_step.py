"""What a training step costs: TMoLE against a plain LoRA of the same rank, the scheduler's share, and peak memory.

    python benchmarks/training_step.py --base HuggingFaceTB/SmolLM2-135M-Instruct --data DIR --threads 1

One step is what `recfound model train` does: draw, tokenise, both losses forward and backward, clip, AdamW. The plain
LoRA is PEFT's, of rank r * (live experts), on the same layers with the same dropout, in the same objective and on the
same samples; the two take turns step by step, and what is reported is the median of the ratios of neighbours. Memory is
the peak resident size of a process of its own for each variant, less what it held before its first step.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from recfound_model.bases import load_base
from recfound_model.batches import Layout, last_hidden
from recfound_model.objective import token_losses
from recfound_model.training.joint import JointObjective
from recfound_model.training.loop import Trainer
from recfound_model.training.recipe import TrainRecipe


class PlainObjective(JointObjective):
    """The joint objective of a model that knows no tasks."""

    @contextmanager
    def _routed(self, layout: Layout) -> Iterator[None]:  # noqa: ARG002
        with self.accelerator.autocast():
            yield


class FullHead(JointObjective):
    """The joint objective with the head at every position, as `model(..., labels=...)` computes it."""

    def _token_losses(self, layout: Layout) -> tuple[Tensor, Tensor]:
        with self._routed(layout):
            logits = self.model.get_output_embeddings()(last_hidden(self.model, layout, causal=True))
        predicted = layout.marked[:, 1:]
        losses = token_losses(logits[:, :-1].flatten(0, 1), layout.input_ids[:, 1:].flatten())
        return losses[predicted.flatten()], layout.sequence[:, 1:][predicted]


def plain_lora(trainer: Trainer) -> None:
    """Put PEFT's LoRA in the place of a trainer's TMoLE."""
    recipe = trainer.recipe
    settings = recipe.adapter
    rank = settings.r * (settings.experts["embedding"] + settings.experts["shared"])
    base, _ = load_base(recipe.base, recipe.revision, recipe.base_dtype)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank * settings.alpha // settings.r,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
    )
    model: Any = get_peft_model(base, config).train()
    trainer.model = model
    trainer.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trainer.optimizer = torch.optim.AdamW(trainer.trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    trainer.objective = PlainObjective(**vars(trainer.objective) | {"model": model})


def recipe_of(arguments: argparse.Namespace, **changes: Any) -> TrainRecipe:
    """Return the recipe that is measured."""
    keys = {
        "base": arguments.base,
        "data": arguments.data,
        "out": tempfile.mkdtemp(),
        "steps": 10_000,
        "embedding_batch": arguments.embedding_batch,
        "generative_batch": arguments.generative_batch,
        "query_tokens": 96,
        "document_tokens": 64,
        "generative_tokens": 512,
        "tokens_per_forward": 2048,
    }
    return TrainRecipe(**keys | changes)


def timed(trainer: Trainer, step: int) -> float:
    """Return the seconds of one step."""
    started = time.perf_counter()
    trainer.step(step)
    return time.perf_counter() - started


def throughput(arguments: argparse.Namespace, threads: int) -> list[str]:
    """Return rows of the table of ratios for a number of threads."""
    torch.set_num_threads(threads)
    # Fixed shares, so that both draw the same samples.
    recipe = recipe_of(arguments, scheduler={"kind": "proportional"})
    trainers = {"TMoLE": Trainer(recipe), "plain LoRA": Trainer(recipe)}
    plain_lora(trainers["plain LoRA"])
    for trainer in trainers.values():
        timed(trainer, 1)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for step in range(2, 2 + arguments.steps):
        order = list(trainers) if step % 2 else list(trainers)[::-1]
        for name in order:
            seconds[name].append(timed(trainers[name], step))
    ratios = sorted(a / b for a, b in zip(seconds["TMoLE"], seconds["plain LoRA"], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        f"| {threads} | {medians['TMoLE']:.2f} | {medians['plain LoRA']:.2f} | "
        f"**{statistics.median(ratios):.3f}** | {low:.3f} to {high:.3f} |"
    ]


def scheduler_share(arguments: argparse.Namespace) -> str:
    """Return the scheduler's time a step beside the time of the step, both signals."""
    lines = []
    for signal in ("losses", "probe"):
        settings = {"signal": signal, "warmup": 0.0001, "probe_every": 32, "probe_samples": arguments.probe_samples}
        trainer = Trainer(recipe_of(arguments, scheduler=settings))
        spent: list[float] = []

        def watched(function: Any, spent: list[float] = spent) -> Any:
            def call(*values: Any) -> Any:
                started = time.perf_counter()
                result = function(*values)
                spent.append(time.perf_counter() - started)
                return result

            return call

        trainer.scheduler.allocate = watched(trainer.scheduler.allocate)  # type: ignore[method-assign]
        trainer.scheduler.observe = watched(trainer.scheduler.observe)  # type: ignore[method-assign]
        trainer._probed = watched(trainer._probed)  # type: ignore[method-assign]
        steps = [timed(trainer, step) for step in range(1, 5)]
        probe = max(spent) if signal == "probe" else 0.0  # the first step's; then every 32 steps
        own = sum(spent) - probe
        step = (sum(steps) - probe) / len(steps)
        share = (own / len(steps) + probe / 32) / step
        lines.append(f"| {signal} | {1000 * own / len(steps):.2f} ms | {probe:.1f} s | {step:.2f} s | {share:.1%} |")
    return "\n".join(lines)


def peak(arguments: argparse.Namespace) -> None:
    """Print the peak resident MiB that two steps of a variant add."""
    torch.set_num_threads(1)
    changes = {"full batch": {"tokens_per_forward": 10**9}}.get(arguments.variant, {})
    trainer = Trainer(recipe_of(arguments, **changes))
    if arguments.variant == "full head":
        trainer.objective = FullHead(**vars(trainer.objective))
    if arguments.part == "embedding":
        trainer.scheduler.groups.pop("generative")
    else:
        trainer.scheduler.groups.pop("embedding")
    before = resident()
    started = time.perf_counter()
    for step in (1, 2):
        trainer.step(step)
    took = (time.perf_counter() - started) / 2
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before, took]))


def resident() -> float:
    """Return the resident MiB of this process now."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def memory(arguments: argparse.Namespace) -> list[str]:
    """Return rows of the table of memory, each variant in a process of its own."""
    rows = []
    for part, variant in (
        ("generative", "supervised positions"),
        ("generative", "full head"),
        ("embedding", "GradCache"),
        ("embedding", "full batch"),
    ):
        own = [sys.executable, __file__, "--part", part, "--variant", variant]
        shared = ["--base", arguments.base, "--data", arguments.data]
        batches = ["--embedding-batch", str(arguments.memory_batch), "--generative-batch", "8"]
        done = subprocess.run([*own, *shared, *batches], capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise SystemExit(done.stderr)
        mebibytes, seconds = json.loads(done.stdout.splitlines()[-1])
        rows.append(f"| {part} | {variant} | {mebibytes:,.0f} | {seconds:.1f} |")
    return rows


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="folder or repository of the base model")
    parser.add_argument("--data", required=True, help="folder or repository of a dataset")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=12, help="pairs of steps that are compared")
    parser.add_argument("--embedding-batch", type=int, default=12)
    parser.add_argument("--generative-batch", type=int, default=6)
    parser.add_argument("--memory-batch", type=int, default=20, help="embedding samples for the memory part")
    parser.add_argument("--probe-samples", type=int, default=128)
    parser.add_argument("--only", choices=("steps", "scheduler", "memory"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        peak(arguments)
        return
    print(f"torch {torch.__version__}, {platform.machine()}\n")
    if arguments.only in (None, "steps"):
        print("| threads | TMoLE, s a step | plain LoRA, s | ratio | middle half |\n|--:|--:|--:|--:|--:|")
        for threads in arguments.threads:
            print("\n".join(throughput(arguments, threads)), flush=True)
    torch.set_num_threads(arguments.threads[0])
    if arguments.only in (None, "scheduler"):
        print("\n| signal | scheduler a step | a probe | a step | share of a step |\n|---|--:|--:|--:|--:|")
        print(scheduler_share(arguments), flush=True)
    if arguments.only in (None, "memory"):
        print("\n| batch | variant | peak MiB over the model | s a step |\n|---|---|--:|--:|")
        print("\n".join(memory(arguments)), flush=True)


if __name__ == "__main__":
    main()
