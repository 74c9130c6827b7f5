"""How texts share forward passes, and what it buys: padding in the drawn order, buckets of like length, packing.

    python benchmarks/layouts.py --base HuggingFaceTB/SmolLM2-135M-Instruct --data DIR

The three take turns step by step on the same samples, one thread each; ratios are medians over steps. Then the same
recipe in one process of one thread and in two (gloo): the real tokens a second of whole steps, loading and the first
step left out.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from training_step import recipe_of

from recfound_model.batches import TokenSequence
from recfound_model.training.joint import JointObjective
from recfound_model.training.loop import Trainer


class InOrder(JointObjective):
    """The joint objective with padded passes in the order in which samples were drawn."""

    def _passes(self, sequences: Sequence[TokenSequence]) -> list[list[int]]:
        groups: list[list[int]] = []
        longest = 0
        for at, sequence in enumerate(sequences):
            longest = max(longest, len(sequence.ids))
            if not groups or (len(groups[-1]) + 1) * longest > self.tokens_per_forward:
                groups.append([])
                longest = len(sequence.ids)
            groups[-1].append(at)
        return groups


def layouts(arguments: argparse.Namespace) -> None:
    """Print the table of layouts."""
    torch.set_num_threads(1)
    fixed = {"scheduler": {"kind": "proportional"}}  # so that all draw the same samples
    trainers = {"in order": Trainer(recipe_of(arguments, **fixed))}
    trainers["in order"].objective = InOrder(**vars(trainers["in order"].objective))
    trainers["buckets"] = Trainer(recipe_of(arguments, **fixed))
    trainers["packed"] = Trainer(recipe_of(arguments, **fixed, packing=True))
    real: dict[str, list[int]] = {name: [] for name in trainers}
    computed: dict[str, list[int]] = {name: [] for name in trainers}
    speed: dict[str, list[float]] = {name: [] for name in trainers}
    for step in range(1, arguments.steps + 2):
        for name in list(trainers)[:: 1 if step % 2 else -1]:
            started = time.perf_counter()
            record = trainers[name].step(step)
            took = time.perf_counter() - started
            if step > 1:
                real[name].append(record["tokens"])
                computed[name].append(record["computed"])
                speed[name].append(record["tokens"] / took)
    print("| passes | real tokens of all computed | real tokens/s | times in order |\n|---|--:|--:|--:|")
    for name in trainers:
        gains = [own / base for own, base in zip(speed[name], speed["in order"], strict=True)]
        fill = sum(real[name]) / sum(computed[name])
        print(f"| {name} | {fill:.1%} | {statistics.median(speed[name]):,.0f} | {statistics.median(gains):.2f} |")


def processes(arguments: argparse.Namespace) -> None:
    """Print the table of one process and two."""
    print("\n| processes | real tokens/s |\n|--:|--:|")
    for count in (1, 2):
        out = Path(tempfile.mkdtemp()) / "run"
        recipe = out.parent / "recipe.yaml"
        measured = recipe_of(arguments, out=str(out), steps=arguments.steps + 1, plots=False)
        recipe.write_text(yaml.safe_dump(measured.model_dump(mode="json")))
        run_in_processes(count, recipe)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][1:]
        speed = sum(line["tokens"] for line in lines) / sum(line["seconds"] for line in lines)
        print(f"| {count} | {speed:,.0f} |", flush=True)


def run_in_processes(count: int, recipe: Path) -> None:
    """Train a recipe in `count` processes of one thread each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    if count > 1:
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    script = "import sys; from recfound_data.cli import main; sys.exit(main(['model', 'train', sys.argv[1]]))"
    started = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-W", "ignore", "-c", script, str(recipe)],
            env=shared | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate()[1] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("\n".join(said))


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="folder or repository of the base model")
    parser.add_argument("--data", required=True, help="folder or repository of a dataset")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--embedding-batch", type=int, default=24)
    parser.add_argument("--generative-batch", type=int, default=10)
    arguments = parser.parse_args()
    layouts(arguments)
    processes(arguments)


if __name__ == "__main__":
    main()
