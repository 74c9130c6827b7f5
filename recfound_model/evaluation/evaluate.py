"""`recfound model evaluate`: scores of every query, means with intervals, differences to another model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import canonical_json, replacing
from recfound_data.progress import say
from recfound_data.samples import LETTERS
from recfound_data.tasks import TASKS
from recfound_data.tasks.sequential_recommendation import option_title
from recfound_model.evaluation.intervals import Interval, bootstrap, paired_difference
from recfound_model.evaluation.models import Chooser, Encoder, LanguageModel, Model, StockEmbedder, open_model
from recfound_model.evaluation.ranking import METRICS, CatalogueRanking, load_rankings, rank_by_scores
from recfound_model.training.streams import load_split, task_kinds

RESULTS, TABLE, SCORES = "results.json", "results.md", "scores"
BASELINES = ("random", "popularity")
_QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class TaskResult:
    """One task's scores: a row a query with `query_id`, `corpus` and the metrics; the tasks' own metrics in order."""

    task: str
    scores: pl.DataFrame

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return [name for name in self.scores.columns if name not in ("query_id", "corpus")]

    def intervals(self, corpus: str | None = None) -> dict[str, Interval]:
        """Return each metric's mean and interval, over all queries or those of one corpus."""
        rows = self.scores if corpus is None else self.scores.filter(pl.col("corpus") == corpus)
        return {name: bootstrap(rows[name].to_numpy()) for name in self.metrics}


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated on what, and the results by task."""

    model: str
    data: str
    split: str
    results: dict[str, TaskResult]

    def to_json(self) -> dict[str, Any]:
        """Return means and intervals, over all queries and corpus by corpus, as JSON values."""
        tasks = {}
        for task, result in self.results.items():
            corpora = sorted(result.scores["corpus"].unique())
            tasks[task] = {
                "queries": len(result.scores),
                "metrics": {name: asdict(interval) for name, interval in result.intervals().items()},
                "corpora": {
                    corpus: {name: asdict(interval) for name, interval in result.intervals(corpus).items()}
                    for corpus in corpora
                },
            }
        return {"model": self.model, "data": self.data, "split": self.split, "tasks": tasks}


def evaluate(
    model: str,
    data: str,
    out: str | Path | None = None,
    *,
    tasks: list[str] | None = None,
    split: str = "test",
    revision: str | None = None,
    data_revision: str | None = None,
    compare: str | Path | None = None,
    most: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a model on the tasks of a dataset and write the results.

    Args:
        model: an adapter, an export, a sentence-transformers model or a causal language model, by folder or repository;
            or a baseline, `random` or `popularity`.
        data: a dataset folder or repository.
        out: folder for `results.json`, `results.md` and the scores of each query.
        tasks: which tasks; all that model and data share where none are named.
        split: of the dataset.
        revision: of the model's repository.
        data_revision: of the dataset's repository.
        compare: the `out` of an earlier evaluation on the same data; paired differences to it are written.
        most: at most so many queries a task and corpus.
        max_length: tokens at which texts are truncated, if not at the length that the model carries.
        seed: of the random baseline.

    Raises:
        UsageError: a task is not in the data, cannot be evaluated or is not the model's; `compare` without `out`.
        RecfoundError: model or data cannot be read, or `compare` is no evaluation of the same queries.
    """
    if compare is not None:
        if out is None:
            raise UsageError(f"differences to {compare} are written to `out`: name a folder for them")
        _earlier(Path(compare), split)
    loaded, own = (None, None) if model in BASELINES else open_model(model, revision, max_length)
    wanted = list(task_kinds(data, data_revision, tasks or ()))
    unscored = [name for name in wanted if not _scored(name)]
    if tasks and unscored:
        raise UsageError(f"{unscored[0]} cannot be evaluated yet: nothing here scores its answers")
    wanted = [name for name in wanted if name not in unscored]
    if unscored:
        say(f"not evaluated, since nothing here scores them yet: {', '.join(unscored)}")
    if not tasks:
        wanted = [name for name in wanted if (own is None or name in own) and (loaded is None or _can(loaded, name))]
    results = {}
    for task in wanted:
        if loaded is not None and not _can(loaded, task):
            raise UsageError(f"{model}: an embedder cannot do {task}, a generative task")
        if TASKS[task].kind == "embedding":
            scores = _ranked(model, loaded, data, task, split, data_revision, most, seed)
        else:
            scores = _chosen(model, loaded, data, task, split, data_revision, most, seed)
        results[task] = TaskResult(task, scores)
    if not results:
        raise UsageError(f"{model} and {data} have no task in common that can be evaluated")
    evaluation = Evaluation(model, data, split, results)
    if out is not None:
        write_evaluation(evaluation, Path(out), None if compare is None else Path(compare))
    return evaluation


def _scored(task: str) -> bool:
    return task in TASKS and (TASKS[task].kind == "embedding" or task == "sequential_recommendation")


def _can(model: Model, task: str) -> bool:
    return TASKS[task].kind == "embedding" or isinstance(model, LanguageModel)


def _ranked(
    name: str, model: Model | None, data: str, task: str, split: str, revision: str | None, most: int | None, seed: int
) -> pl.DataFrame:
    parts = []
    for ranking in load_rankings(data, task, split, revision, most):
        noise = torch.Generator().manual_seed(seed)
        if model is not None:
            encoder: Encoder = model
            items = encoder.encode(task, "document", ranking.items)
            queries = encoder.encode(task, "query", ranking.queries)
        for first in range(0, len(ranking.queries), _QUERIES_AT_ONCE):
            rows = range(len(ranking.queries))[first : first + _QUERIES_AT_ONCE]
            if model is None:
                scores = _baseline_scores(name, ranking, len(rows), noise)
            else:
                scores = _finite(name, queries[rows.start : rows.stop] @ items.T)
            parts.append(rank_by_scores(ranking, scores, first))
    return pl.concat(parts).select("query_id", "corpus", *METRICS)


def _finite(name: str, scores: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(scores).all():
        raise RecfoundError(f"{name}: its scores are not finite; its weights are damaged, or its training diverged")
    return scores


def _baseline_scores(name: str, ranking: CatalogueRanking, queries: int, generator: torch.Generator) -> torch.Tensor:
    noise = torch.rand(queries, len(ranking.item_ids), generator=generator)
    # Below one, the noise only breaks the ties between items that are as popular as each other.
    return noise if name == "random" else torch.tensor(ranking.popularity).float() + 0.5 * noise


def _chosen(
    name: str, model: Model | None, data: str, task: str, split: str, revision: str | None, most: int | None, seed: int
) -> pl.DataFrame:
    samples = load_split(data, task, split, revision)
    if most:
        corpora = pl.DataFrame({"corpus": samples["corpus"]}).with_row_index()
        samples = samples.select(corpora.group_by("corpus", maintain_order=True).head(most)["index"].sort().to_list())
    labels = torch.tensor([LETTERS.index(label) for label in samples["label"]])
    if model is None:
        scores, valid = _baseline_letters(name, data, samples["corpus"], samples["options"], seed, revision)
    else:
        assert not isinstance(model, StockEmbedder)
        chooser: Chooser = model
        scores, valid = chooser.letter_scores(task, samples["prompt"], LETTERS)
        scores = _finite(name, scores)
    hits = (scores.argmax(dim=1) == labels).double()
    return pl.DataFrame(
        {
            "query_id": samples["id"],
            "corpus": samples["corpus"],
            "recall@1": hits.numpy(),
            "answers with a letter": valid.double().numpy(),
        }
    )


def _baseline_letters(
    name: str, data: str, corpora: list[str], options: list[list[str]], seed: int, revision: str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(len(options), len(LETTERS), generator=generator)
    valid = torch.ones(len(options), dtype=torch.bool)
    if name == "random":
        return noise, valid
    items = load_split(data, "items", "train", revision).to_polars().with_columns(option=option_title(pl.col("title")))
    # Likes of users, not related items or judged products, which are qrels too.
    users = load_split(data, "queries", "train", revision).to_polars().filter(pl.col("task") == "user2item")
    liked = load_split(data, "qrels", "train", revision).to_polars().join(users, on="query_id", how="semi")
    if liked.is_empty():
        raise RecfoundError(f"{data}: has no user2item, and popularity counts what its users like")
    bought = liked.group_by("item_id").len("popularity")
    counts = items.join(bought, on="item_id").group_by("corpus", "option").agg(pl.col("popularity").sum())
    popular = {(corpus, option): count for corpus, option, count in counts.iter_rows()}
    scores = [
        [popular.get((corpus, option), 0) for option in row] for corpus, row in zip(corpora, options, strict=True)
    ]
    return torch.tensor(scores).float() + 0.5 * noise, valid


def write_evaluation(evaluation: Evaluation, out: Path, compare: Path | None = None) -> None:
    """Write an evaluation's folder, whole or not at all.

    Raises:
        RecfoundError: `compare` is no evaluation, or one of other queries.
    """
    report = evaluation.to_json()
    if compare is not None:
        report["compared_with"] = _earlier(compare, evaluation.split)
        for task, result in evaluation.results.items():
            found = _differences(result, compare)
            report["tasks"][task]["difference"] = {name: asdict(interval) for name, interval in found.items()}
    with replacing(out, marker=RESULTS) as folder:
        (folder / SCORES).mkdir()
        for task, result in evaluation.results.items():
            result.scores.write_parquet(folder / SCORES / f"{task}.parquet")
        (folder / RESULTS).write_text(canonical_json(report), encoding="utf-8")
        (folder / TABLE).write_text(results_table({evaluation.model: evaluation}), encoding="utf-8")


def _earlier(folder: Path, split: str) -> str:
    """Return the model of an earlier evaluation, which must be one on the same split."""
    try:
        report = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        model, other = str(report["model"]), report["split"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RecfoundError(f"{folder}: is no evaluation with a readable {RESULTS}") from None
    if other != split:
        raise RecfoundError(f"{folder}: was evaluated on {other}, and this is {split}; evaluate both on the same split")
    return model


def _differences(result: TaskResult, compare: Path) -> dict[str, Interval]:
    path = compare / SCORES / f"{result.task}.parquet"
    if not path.is_file():
        raise RecfoundError(f"{compare}: holds no scores of {result.task}; evaluate that model with --out first")
    other = pl.read_parquet(path)
    both = result.scores.join(other, on=["query_id", "corpus"], suffix=" other")
    if len(both) != len(result.scores) or len(both) != len(other):
        raise RecfoundError(
            f"{compare}: was evaluated on other queries of {result.task}; evaluate both on the same data"
        )
    return {
        name: paired_difference(both[name].to_numpy(), both[f"{name} other"].to_numpy())
        for name in result.metrics
        if name in other.columns
    }


def results_table(evaluations: dict[str, Evaluation]) -> str:
    """Return a Markdown table: a row a task and metric, a column an evaluation, each mean with its 95 % interval."""
    lines = ["| task | metric | queries | " + " | ".join(evaluations) + " |"]
    lines.append("|---|---|--:|" + "---|" * len(evaluations))
    for task in TASKS:
        having = [evaluation.results[task] for evaluation in evaluations.values() if task in evaluation.results]
        for metric in having[0].metrics if having else []:
            cells = []
            for evaluation in evaluations.values():
                result = evaluation.results.get(task)
                cells.append("" if result is None else str(bootstrap(np.asarray(result.scores[metric]))))
            lines.append(f"| {task} | {metric} | {len(having[0].scores)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
