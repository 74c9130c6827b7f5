"""Prose for the profiles of a dataset: an estimate first, then the questions, then the dataset with its new labels.

The samples whose label is composed are asked about in an order that is drawn by their id, so that a limit or a budget
gives a sample of them all. What a model answered stands in a file beside the dataset: a run that was stopped, however
it was, goes on from there, and an answer is paid for once. A label that no answer gave stays the composed one. A
sample keeps its id: it names the facts that the sample is made of, and `label_source` says who put them into words.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from recfound_data.annotating.answers import Answers, answers_file
from recfound_data.annotating.asking import TASKS, Asking, Question, question
from recfound_data.annotating.budget import Spending
from recfound_data.annotating.endpoint import chat_address, is_here
from recfound_data.annotating.judging import judge
from recfound_data.annotating.rewriting import rewrite
from recfound_data.annotating.running import Run
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.finishing import require_unchanged
from recfound_data.identity import draw
from recfound_data.layout import read_manifest, read_split, require_replaceable
from recfound_data.progress import say
from recfound_data.recipe import nearest
from recfound_data.samples import SPLITS


@dataclass(frozen=True)
class Estimate:
    """What is left to ask, and what it takes: tokens as they are likely, `most` of them, and both in money.

    Attributes:
        samples: with a composed label.
        questions: different ones among them.
        answered: of which an answer is there already.
        tokens_in: likely tokens of the prompts still to be sent.
        tokens_out: likely tokens of their answers.
        most_tokens: of both together.
        spent_tokens: of earlier runs, from the answers file.
        cost: what the likely tokens cost; None without prices.
        most_cost: what the most tokens cost.
    """

    samples: int
    questions: int
    answered: int
    tokens_in: int
    tokens_out: int
    most_tokens: int
    spent_tokens: int
    cost: float | None
    most_cost: float | None

    def __str__(self) -> str:
        said = (
            f"{self.samples:,} samples, {self.questions:,} questions, {self.answered:,} answered already; "
            f"left: about {self.tokens_in:,} tokens of prompts and {self.tokens_out:,} of answers, "
            f"at most {self.most_tokens:,}"
        )
        if self.cost is not None:
            said += f"; about {self.cost:,.2f}, at most {self.most_cost:,.2f}"
        return said + (f"; {self.spent_tokens:,} tokens spent before" if self.spent_tokens else "")


@dataclass(frozen=True)
class Annotation:
    """What was done: samples that a model labelled, and those that keep their composed label, by reason."""

    path: Path
    estimate: Estimate
    dry_run: bool = False
    labelled: dict[str, dict[str, int]] = field(default_factory=dict)
    kept: dict[str, dict[str, int]] = field(default_factory=dict)
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None


def annotate(
    path: str | Path,
    asking: Asking,
    *,
    out: str | Path | None = None,
    tasks: tuple[str, ...] = TASKS,
    spending: Spending | None = None,
    limit: int | None = None,
    answers: str | Path | None = None,
    dry_run: bool = False,
    quiet: bool = False,
) -> Annotation:
    """Have a model write the labels of profiles that were composed.

    Args:
        path: a dataset folder.
        asking: whom to ask, and how.
        out: where to write the dataset with the new labels; None writes it in place of the old one.
        tasks: whose labels.
        spending: what may be spent; all that the answers file says was paid counts, that of earlier runs too.
        limit: most samples to label.
        answers: the file of answers; None is `<out>.answers.jsonl`, beside the dataset.
        dry_run: estimate only; nothing is asked and nothing written.
        quiet: print no progress.

    Raises:
        UsageError: an argument is wrong, or another run uses the answers file.
        RecfoundError: the dataset is not what was built, or the endpoint refuses or fails.
    """
    folder = Path(path)
    out = Path(out) if out is not None else folder
    spending = spending or Spending()
    manifest = read_manifest(folder)
    chat_address(asking.endpoint)
    tasks = _known(tasks, manifest, folder)
    require_replaceable(out)
    require_unchanged(folder, manifest, tasks)
    samples = _samples(folder, tasks, limit)
    questions = [question(task, prompt, asking) for task, prompt in samples.select("task", "prompt").iter_rows()]
    kept_in = Path(answers) if answers is not None else out.absolute().with_name(f"{out.absolute().name}.answers.jsonl")
    try:
        with answers_file(kept_in) if kept_in.exists() or not dry_run else nullcontext() as found:
            estimate = _estimate(questions, found, spending)
            if not quiet:
                _announce(asking, manifest, samples, estimate)
            if dry_run or found is None:
                return Annotation(out, estimate, dry_run=True)
            if samples.is_empty() and out == folder:
                return Annotation(out, estimate)
            failures = Run(asking, spending, found, quiet).ask(questions)
            return _written(folder, out, manifest, samples, questions, found, failures, asking, spending, estimate)
    except OSError as error:
        raise RecfoundError(
            f"{error.filename or kept_in}: cannot be written: {error.strerror or error}; what was answered is kept"
        ) from None


def _known(tasks: tuple[str, ...], manifest: dict[str, Any], folder: Path) -> tuple[str, ...]:
    for task in tasks:
        if task not in TASKS:
            raise UsageError(f"--task {task}: labels of {' and '.join(TASKS)} are written{nearest(task, TASKS)}")
    having = tuple(task for task in TASKS if task in tasks and task in manifest["configs"])
    if not having:
        raise RecfoundError(f"{folder}: has no {' and no '.join(tasks)} to label")
    return having


def _samples(folder: Path, tasks: tuple[str, ...], limit: int | None) -> pl.DataFrame:
    """Return the samples to ask about, in order: `task`, `split`, `id`, `corpus`, `prompt`."""
    frames = [pl.DataFrame(schema=dict.fromkeys(("task", "split", "id", "corpus", "prompt"), pl.String))]
    for task in tasks:
        for split in SPLITS:
            rows = read_split(folder, task, split).filter(pl.col("label_source") == "composed")
            said = pl.col("prompt").list.last().struct.field("content")
            frames.append(rows.select("task", pl.lit(split).alias("split"), "id", "corpus", said.alias("prompt")))
    samples = pl.concat(frames).sort(draw(0, "annotate", pl.col("id")), "task", "id")
    return samples if limit is None else samples.head(limit)


def _estimate(questions: list[Question], answers: Answers | None, spending: Spending) -> Estimate:
    different = {question.key: question for question in questions}
    left = [found for key, found in different.items() if answers is None or key not in answers]
    likely = [found.likely_tokens for found in left]
    tokens_in, tokens_out = sum(tokens for tokens, _ in likely), sum(tokens for _, tokens in likely)
    most_in, most_out = sum(found.most_input for found in left), sum(found.most_output for found in left)
    return Estimate(
        samples=len(questions),
        questions=len(different),
        answered=len(different) - len(left),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        most_tokens=most_in + most_out,
        spent_tokens=sum(answers.spent()) if answers is not None else 0,
        cost=spending.cost(tokens_in, tokens_out),
        most_cost=spending.cost(most_in, most_out),
    )


def _announce(asking: Asking, manifest: dict[str, Any], samples: pl.DataFrame, estimate: Estimate) -> None:
    say(f"{asking.model}: {estimate}")
    if is_here(asking.endpoint):
        return
    corpora = samples["corpus"].unique().sort()
    closed = [name for name in corpora if not manifest["corpora"][name]["terms"]["redistributable"]]
    if closed:
        say(
            f"facts of {', '.join(closed)} go to {urlsplit(asking.endpoint).hostname}; "
            "their terms are not known to allow passing them on"
        )


def _written(
    folder: Path,
    out: Path,
    manifest: dict[str, Any],
    samples: pl.DataFrame,
    questions: list[Question],
    answers: Answers,
    failures: dict[str, str],
    asking: Asking,
    spending: Spending,
    estimate: Estimate,
) -> Annotation:
    """Judge the answers, write the dataset, and return what was done."""
    labels: dict[str, dict[str, str]] = {}
    labelled: dict[str, Counter[str]] = {}
    kept: dict[str, Counter[str]] = {}
    for (task, split, sample), found in zip(samples.select("task", "split", "id").iter_rows(), questions, strict=True):
        reason = failures.get(found.key, "")
        if found.key in answers:
            verdict = judge(found, answers[found.key])
            reason = verdict.reason
        if reason:
            kept.setdefault(task, Counter())[reason] += 1
        else:
            labels.setdefault(task, {})[sample] = verdict.label
            labelled.setdefault(task, Counter())[split] += 1
    used = [answers[key] for key in {found.key: None for found in questions} if key in answers]
    tokens_in, tokens_out = sum(answer.tokens_in for answer in used), sum(answer.tokens_out for answer in used)
    said_labelled = {task: dict(counts) for task, counts in labelled.items()}
    said_kept = {task: dict(counts) for task, counts in kept.items()}
    said = {
        "model": asking.model,
        "answer_tokens": asking.answer_tokens,
        "temperature": asking.temperature,
        "labelled": said_labelled,
        "kept_composed": said_kept,
        "answers": len(used),
        "tokens": {"input": tokens_in, "output": tokens_out},
    }
    annotations = [*manifest.get("annotations", []), said]
    rewrite(folder, out, {**manifest, "annotations": annotations}, labels, asking.model)
    return Annotation(
        out,
        estimate,
        labelled=said_labelled,
        kept=said_kept,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost=spending.cost(tokens_in, tokens_out),
    )
