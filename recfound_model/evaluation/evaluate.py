"""`recfound model evaluate`: the scores of every query of every task that a model or a baseline can do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.progress import say
from recfound_data.tasks import TASKS
from recfound_model.evaluation.answering import asked, baseline_answers, model_answers
from recfound_model.evaluation.baselines import BASELINES, TASKS_OF, ItemScorer, item_scorer
from recfound_model.evaluation.bertscore import BertScorer
from recfound_model.evaluation.comparing import differences, require_comparable
from recfound_model.evaluation.examples import Examples, answer_examples, ranking_examples
from recfound_model.evaluation.models import LanguageModel, Model, open_model
from recfound_model.evaluation.ranking import (
    NEGATIVES,
    CatalogueRanking,
    draw_candidates,
    load_rankings,
    narrowed,
    rank_by_scores,
    rank_candidates,
)
from recfound_model.evaluation.results import (
    MARKER,
    Evaluation,
    TaskResult,
    read_evaluation,
    require_out,
    results_table,
    write_evaluation,
)
from recfound_model.evaluation.work import WORK, NotFiniteError, Spent, Timer, Vectors, encoded, fingerprint, working
from recfound_model.training.streams import task_kinds

__all__ = ["PROTOCOLS", "Evaluation", "TaskResult", "evaluate", "results_table", "write_evaluation"]

PROTOCOLS = ("full", "sampled")
_SCORES_AT_ONCE = 2**24
_QUERIES_AT_ONCE = 256
_ITEMS_AT_ONCE = 16_384
_PACKAGES = ("recfound", "torch", "transformers", "sentence-transformers", "bm25s", "rouge-score", "sacrebleu")


@dataclass(frozen=True)
class _Setting:
    """What all tasks of an evaluation share; `model` is None for a baseline."""

    name: str
    model: Model | None
    data: str
    split: str
    revision: str | None
    protocol: str
    keep_known: bool
    most: int | None
    most_answers: int | None
    seed: int
    bert: BertScorer | None


def evaluate(
    model: str,
    data: str,
    out: str | Path | None = None,
    *,
    tasks: list[str] | None = None,
    protocol: str = "full",
    split: str = "test",
    revision: str | None = None,
    data_revision: str | None = None,
    compare: str | Path | None = None,
    most: int | None = None,
    most_answers: int | None = None,
    max_length: int | None = None,
    keep_known: bool = False,
    bertscore_model: str | None = None,
    bertscore_layer: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a model on the tasks of a dataset and write the results.

    Args:
        model: an adapter, an export, a sentence-transformers model or a causal language model, by folder or repository;
            or a baseline: `random`, `popularity`, `cooccurrence` or `bm25`.
        data: a dataset folder or repository.
        out: folder for `results.json`, `results.md`, the scores of each query, and `work`, from which an evaluation
            that was interrupted, or is extended, takes vectors and answers.
        tasks: which tasks; all that model and data share where none are named.
        protocol: of the embedding tasks: `full` ranks the whole catalogue, `sampled` one positive among 19 negatives.
        split: of the dataset.
        revision: of the model's repository.
        data_revision: of the dataset's repository.
        compare: the `out` of an earlier evaluation on the same data; paired differences to it are written.
        most: at most so many queries a task and corpus.
        most_answers: at most so many samples a generative task, the first of each corpus in turn.
        max_length: tokens at which texts are truncated, if not at the length that the model carries.
        keep_known: with `full`, positives of a query in other splits stay in its ranking, as wrong answers.
        bertscore_model: folder or repository of an encoder that gives BERTScore; there is none without.
        bertscore_layer: whose hidden states it takes, the last where not named.
        seed: of the random baseline, of ties and of sampled negatives.

    Raises:
        UsageError: a task is not in the data, cannot be evaluated or is not the model's; `compare` without `out`; `out`
            holds something else.
        RecfoundError: model or data cannot be read, or `compare` is no evaluation of the same queries.
    """
    timer = Timer()
    if protocol not in PROTOCOLS:
        raise UsageError(f"{protocol!r} is no protocol; there are {' and '.join(PROTOCOLS)}")
    if keep_known and protocol == "sampled":
        raise UsageError("known positives are never among sampled negatives: keeping them goes with the full protocol")
    if bertscore_layer is not None and bertscore_model is None:
        raise UsageError("a layer for BERTScore was named without a model for it")
    asked_for: dict[str, Any] = {"protocol": protocol, "keep_known": keep_known, "seed": seed}
    if out is not None:
        require_out(Path(out))
    earlier = None
    if compare is not None:
        if out is None:
            raise UsageError(f"differences to {compare} are written to `out`: name a folder for them")
        earlier = read_evaluation(Path(compare))
        require_comparable({"split": split, **asked_for}, {"split": earlier.split, **earlier.facts}, str(compare))
    bert = None if bertscore_model is None else BertScorer(bertscore_model, bertscore_layer)
    loaded, own = (None, None) if model in BASELINES else open_model(model, revision, max_length)
    wanted = _wanted(model, loaded, own, data, data_revision, tasks)
    setting = _Setting(model, loaded, data, split, data_revision, protocol, keep_known, most, most_answers, seed, bert)
    results, spent = {}, dict[str, Spent]()
    with _work_folder(loaded, None if out is None else Path(out)) as folder:
        for task in wanted:
            try:
                spent[task] = Spent()
                results[task] = _task_result(task, setting, folder, spent[task])
            except NotFiniteError as error:
                raise RecfoundError(f"{model}: {error}") from None
    facts = asked_for | {
        "most": most,
        "most_answers": most_answers,
        "max_length": max_length,
        "fingerprint": folder.name if loaded is not None else None,
        "bertscore": None if bert is None else {"model": bert.source, "layer": bert.layer},
        "versions": {name: version(name) for name in _PACKAGES},
        "spent": {task: one.to_json() for task, one in spent.items()},
        "seconds": round(timer.seconds, 1),
    }
    evaluation = Evaluation(model, data, split, results, facts)
    if earlier is not None:
        evaluation = replace(
            evaluation, compared_with=earlier.model, differences=_differences(evaluation, earlier, str(compare))
        )
    if out is not None:
        write_evaluation(evaluation, Path(out))
    return evaluation


def _wanted(
    name: str, model: Model | None, own: list[str] | None, data: str, revision: str | None, tasks: list[str] | None
) -> list[str]:
    """Return the tasks to evaluate: those asked for, or all that model and data share."""
    found = list(task_kinds(data, revision, tasks or ()))
    unscored = [task for task in found if task not in TASKS]
    if tasks and unscored:
        raise UsageError(f"{unscored[0]} cannot be evaluated: nothing here scores its answers")
    if unscored:
        say(f"not evaluated, since nothing here scores them: {', '.join(unscored)}")
    found = [task for task in found if task in TASKS]
    for task in found if tasks else ():
        if model is None and task not in TASKS_OF[name]:
            raise UsageError(f"{name} cannot do {task}; it does {', '.join(TASKS_OF[name])}")
        if not _can(name, model, task):
            raise UsageError(f"{name}: an embedder cannot do {task}, a generative task")
    if not tasks:
        found = [task for task in found if (own is None or task in own) and _can(name, model, task)]
    if not found:
        raise UsageError(f"{name} and {data} have no task in common that can be evaluated")
    return found


def _can(name: str, model: Model | None, task: str) -> bool:
    if model is None:
        return task in TASKS_OF[name]
    return TASKS[task].kind == "embedding" or isinstance(model, LanguageModel)


@contextmanager
def _work_folder(model: Model | None, out: Path | None) -> Iterator[Path]:
    """Yield the folder of a model's work, in `out` or for the time being; `out` loses that of other models."""
    if model is None:
        yield Path()
    elif out is None:
        with tempfile.TemporaryDirectory(prefix="recfound-") as folder:
            yield Path(folder) / fingerprint(model)
    else:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).touch()
        with working(out / WORK) as folder:
            own = folder / fingerprint(model)
            yield own
            for other in folder.iterdir():
                if other.is_dir() and other != own:
                    shutil.rmtree(other)


def _task_result(task: str, setting: _Setting, folder: Path, spent: Spent) -> TaskResult:
    facts: dict[str, Any] = {}
    if TASKS[task].kind == "embedding":
        scores, examples = _ranked(task, setting, folder, spent)
        if setting.protocol == "sampled":
            facts["queries_with_fewer_negatives"] = int((scores["negatives"] < NEGATIVES).sum())
    else:
        questions = asked(setting.data, task, setting.split, setting.revision, setting.most, setting.most_answers)
        if setting.model is None:
            scores = baseline_answers(setting.name, questions, setting.data, setting.revision, setting.seed)
        else:
            assert isinstance(setting.model, LanguageModel), "embedders are refused before"
            scores, facts = model_answers(folder, setting.model, questions, setting.bert, spent)
        examples = answer_examples(questions, scores)
    return TaskResult(task, scores, facts, examples)


def _ranked(task: str, setting: _Setting, folder: Path, spent: Spent) -> tuple[pl.DataFrame, Examples]:
    parts = []
    rankings = load_rankings(setting.data, task, setting.split, setting.revision, setting.most, setting.keep_known)
    for ranking in rankings:
        candidates = draw_candidates(ranking, setting.seed) if setting.protocol == "sampled" else None
        if setting.model is None:
            scorer = item_scorer(setting.name, ranking, setting.data, setting.revision, setting.seed)
        else:
            if candidates is not None:
                ranking, candidates = narrowed(ranking, candidates)
            scorer = _Cosines(setting.model, ranking, folder, spent)
        at_once = max(1, min(_QUERIES_AT_ONCE, _SCORES_AT_ONCE // len(ranking.item_ids)))
        for first in range(0, len(ranking.queries), at_once):
            scores = scorer.scores(range(len(ranking.queries))[first : first + at_once])
            if candidates is None:
                parts.append(rank_by_scores(ranking, scores, first))
            else:
                parts.append(rank_candidates(ranking, candidates, scores, first, setting.seed))
    scores_of_all = pl.concat(parts)
    return scores_of_all, ranking_examples(task, rankings, scores_of_all)


class _Cosines(ItemScorer):
    """Cosines of a model's vectors, which are read from its work folder block by block."""

    def __init__(self, model: Model, ranking: CatalogueRanking, folder: Path, spent: Spent) -> None:
        self._items: Vectors = encoded(folder, model, ranking.task, "document", ranking.items, spent)
        self._queries: Vectors = encoded(folder, model, ranking.task, "query", ranking.queries, spent)

    def scores(self, rows: range) -> torch.Tensor:
        """Return [rows, items]."""
        queries = self._queries.block(rows.start, len(rows))
        blocks = range(0, len(self._items), _ITEMS_AT_ONCE)
        return torch.cat([queries @ self._items.block(first, _ITEMS_AT_ONCE).T for first in blocks], dim=1)


def _differences(evaluation: Evaluation, earlier: Evaluation, folder: str) -> dict[str, Any]:
    found = {}
    for task, result in evaluation.results.items():
        if task not in earlier.results:
            raise RecfoundError(f"{folder}: holds no scores of {task}; evaluate that model with --out first")
        try:
            found[task] = differences(result, earlier.results[task])
        except RecfoundError as error:
            raise RecfoundError(f"{folder}: {error}") from None
    return found
