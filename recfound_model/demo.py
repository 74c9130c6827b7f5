"""`recfound demo`: all of it, small and offline, in at most five minutes on two cores.

A synthetic shop, a nano base of its own text, one adapter for four tasks, its exports, and a table of results.

The budget, in seconds on two cores; a change that makes a step slower has to make another one faster:

    shop and dataset, with check   10
    nano base                      80
    train                         110
    merge, collapse, export        20
    evaluate six models            80
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recfound_data import build
from recfound_data.check import check, require_passed
from recfound_data.errors import UsageError
from recfound_data.progress import say
from recfound_data.shop import generate
from recfound_model.collapsing import collapse_all
from recfound_model.evaluation import Evaluation, evaluate
from recfound_model.evaluation.evaluate import TaskResult, results_table
from recfound_model.exporting import export_embedder, export_generator
from recfound_model.merging import merge_adapters
from recfound_model.nano import nano_base
from recfound_model.training.loop import train
from recfound_model.training.recipe import AdapterSettings, SchedulerSettings, TrainRecipe

REVIEWS = 8_000
QUERIES = 200  # of a task and corpus, at most
MAX_LENGTH = 96
BUDGET_SECONDS = 300


@dataclass(frozen=True)
class DemoSummary:
    """What the demo made: its folder, the results table, and the seconds of each step."""

    path: Path
    table: str
    seconds: dict[str, float]

    def __str__(self) -> str:
        took = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in self.seconds.items())
        places = "\n".join(
            f"  {self.path / folder}: {what}"
            for folder, what in (
                ("shop", "the raw corpora"),
                ("dataset", "the dataset, for load_dataset"),
                ("base", "the nano base"),
                ("run", "metrics, checkpoints and the native adapter"),
                ("merged", "its last checkpoints merged"),
                ("lora", "one standard LoRA adapter a task"),
                ("embedder", "one sentence-transformers model an embedding task"),
                ("generator", "a causal language model"),
                ("evaluation", "results, and the scores of each query"),
            )
        )
        return f"{self.table}\n{places}\n\n{took}, together {sum(self.seconds.values()):.0f} s"


def demo(out: str | Path, seed: int = 0) -> DemoSummary:
    """Run every step in a new folder and return the table.

    Raises:
        UsageError: the folder holds something.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty; name a new folder with --out, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    data = str(folder / "dataset")
    with _timed("dataset", seconds):
        generate(folder / "shop", REVIEWS, seed)
        build(folder / "shop" / "recipe.yaml", data)
        require_passed(check(data))
    with _timed("base", seconds):
        shutil.copytree(nano_base(data, seed), folder / "base")
    with _timed("train", seconds):
        train(demo_recipe(folder, seed))
        run = folder / "run"
    with _timed("merge and export", seconds):
        last = sorted((run / "checkpoints").iterdir())[-2:]
        merge_adapters(last, folder / "merged")
        collapse_all(run / "adapter", folder / "lora")
        export_embedder(run / "adapter", folder / "embedder", data=data)
        export_generator(run / "adapter", folder / "generator", data=data)
    with _timed("evaluate", seconds):
        table = results_table(_evaluations(folder, data, seed))
    (folder / "results.md").write_text(table, encoding="utf-8")
    return DemoSummary(folder, table, {step: round(took, 1) for step, took in seconds.items()})


def demo_recipe(folder: Path, seed: int) -> TrainRecipe:
    """Return the training recipe of the demo."""
    return TrainRecipe(
        base=str(folder / "base"),
        data=str(folder / "dataset"),
        out=str(folder / "run"),
        seed=seed,
        steps=90,
        adapter=AdapterSettings(target_modules="all-linear", task_dim=64, dropout=0.0),
        # 90 steps are little more than one window of S2Sched: its slopes would be noise, and starved query2item.
        scheduler=SchedulerSettings(kind="proportional"),
        embedding_batch=48,
        generative_batch=4,
        proportions={"user2item": 2, "query2item": 1, "item2item": 1},
        learning_rate=3e-3,
        temperature=0.05,
        query_tokens=MAX_LENGTH,
        document_tokens=40,
        generative_tokens=512,
        checkpoint_every=50,
    )


def _evaluations(folder: Path, data: str, seed: int) -> dict[str, Evaluation]:
    """Return the columns of the table; the exported models are one a task, and together one column."""

    def judge(model: str, place: str, tasks: list[str] | None = None) -> Evaluation:
        out = folder / "evaluation" / place
        return evaluate(model, data, out, tasks=tasks, most=QUERIES, max_length=MAX_LENGTH, seed=seed)

    models = {"random": "random", "popularity": "popularity", "untrained base": str(folder / "base")}
    models |= {"trained": str(folder / "run" / "adapter"), "merged": str(folder / "merged")}
    found = {name: judge(model, name.replace(" ", "-")) for name, model in models.items()}
    exported: dict[str, TaskResult] = {}
    for kind in ("embedder", "generator"):
        for path in sorted((folder / kind).iterdir()):
            exported |= judge(str(path), f"exported/{path.name}", [path.name]).results
    found["exported"] = Evaluation("exported", data, "test", exported)
    return found


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    say(f"== {step}")
    started = time.monotonic()
    yield
    seconds[step] = time.monotonic() - started
