"""Describe a dataset: rows, lengths, labels, popularity, histories and drops, from what was written.

Counts, labels and popularity are of all rows. Lengths, histories and numbers of options are of a sample: up to
`SAMPLED_ROWS` of each task and split, in runs spread evenly over its files, so that the time does not grow with the
dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recfound_data.errors import RecfoundError
from recfound_data.identity import hash64
from recfound_data.layout import files_of, read_manifest
from recfound_data.samples import SPLITS
from recfound_data.tasks.catalogue import TASKS

SAMPLED_ROWS = 8_192
WORD = r"\w+|[^\w\s]"
COUNTED = "a token is a run of letters, digits and underscores, or one other visible character"
_RUNS = 4
_TEXTS = {"embedding": ("anchor", "positive", "negative"), "generative": ("prompt", "completion")}


@dataclass(frozen=True)
class Quantiles:
    """Where 5 %, half and 95 % of the values lie at or below, and the largest."""

    low: int
    median: int
    high: int
    most: int

    @classmethod
    def of(cls, values: NDArray[Any]) -> Quantiles:
        """Return the quantiles of whole numbers; each is one of them."""
        low, median, high, most = np.quantile(values, (0.05, 0.5, 0.95, 1.0), method="inverted_cdf")
        return cls(int(low), int(median), int(high), int(most))


@dataclass(frozen=True)
class Rows:
    """Rows of a configuration and split that come from one corpus."""

    config: str
    corpus: str
    split: str
    rows: int


@dataclass(frozen=True)
class Lengths:
    """How long one text of a task is, over `sampled` rows."""

    task: str
    split: str
    text: str
    sampled: int
    characters: Quantiles
    tokens: Quantiles


@dataclass(frozen=True)
class Numbers:
    """How many `choices` in a history, `negatives` or `options` samples have; `counts` gives samples by number."""

    task: str
    split: str
    what: str
    sampled: int
    numbers: Quantiles
    counts: dict[str, int]


@dataclass(frozen=True)
class Labels:
    """How often each label is right, of a task whose samples have options."""

    task: str
    split: str
    rows: dict[str, int]


@dataclass(frozen=True)
class Popularity:
    """Where a split's positives stand among the items, sorted by how often each is one in training.

    Attributes:
        task: the task.
        split: whose positives are counted.
        items: of the corpora that the task has.
        seen: those of them that are a positive in training.
        tenths: share of the positives in each tenth of the seen items, the most popular tenth first.
        unseen: share of the positives that are no positive in training.
        gini: 0 where each item is as often a positive of this split as any other, near 1 where few are all of them.
    """

    task: str
    split: str
    items: int
    seen: int
    tenths: tuple[float, ...]
    unseen: float
    gini: float


@dataclass(frozen=True)
class Description:
    """What a dataset holds; see the module for what is counted and what is sampled."""

    rows: tuple[Rows, ...]
    lengths: tuple[Lengths, ...]
    numbers: tuple[Numbers, ...]
    labels: tuple[Labels, ...]
    popularity: tuple[Popularity, ...]
    drops: dict[str, dict[str, int]]
    sampled_rows: int = SAMPLED_ROWS
    token_rule: str = COUNTED

    def to_json(self) -> dict[str, Any]:
        """Return the description as what JSON can hold."""
        found = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    def __str__(self) -> str:
        """Return the description as tables for a person to read."""
        return "\n\n".join(_tables(self))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Description:
        """Return the description that `to_json` gave."""
        lists = {"rows": Rows, "labels": Labels}
        made: dict[str, Any] = {name: value[name] for name in ("drops", "sampled_rows", "token_rule")}
        for name, kind in lists.items():
            made[name] = tuple(kind(**entry) for entry in value[name])
        made["popularity"] = tuple(
            Popularity(**entry | {"tenths": tuple(entry["tenths"])}) for entry in value["popularity"]
        )
        made["lengths"] = tuple(_with_quantiles(Lengths, entry) for entry in value["lengths"])
        made["numbers"] = tuple(_with_quantiles(Numbers, entry) for entry in value["numbers"])
        return cls(**made)


def _with_quantiles(kind: Any, entry: dict[str, Any]) -> Any:
    quantiles = {field.name for field in fields(kind)} & {"characters", "tokens", "numbers"}
    return kind(**entry | {name: Quantiles(**entry[name]) for name in quantiles})


def describe(path: str | Path) -> Description:
    """Describe a dataset folder.

    Raises:
        RecfoundError: the folder is no dataset, or a file of it cannot be read.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    try:
        return describe_dataset(folder, manifest)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise RecfoundError(f"{folder}: cannot be described: {said}; see what `recfound data check` says") from None


def describe_dataset(folder: Path, manifest: dict[str, Any]) -> Description:
    """Describe the files of `folder`; counts and drops are the manifest's."""
    tasks = [task for task in TASKS if task in manifest["configs"]]
    lengths: list[Lengths] = []
    numbers: list[Numbers] = []
    labels: list[Labels] = []
    for task in tasks:
        for split in _splits(manifest, task):
            sample = _sample(files_of(folder, task, split))
            lengths += _lengths(task, split, sample)
            numbers += _numbers(task, split, sample)
            if "options" in sample.columns and (sample["options"].list.len() > 0).all():
                labels.append(_labels(folder, task, split, sample["options"][0].to_list()))
    embedding = [task for task in tasks if TASKS[task].kind == "embedding"]
    popularity = [found for task in embedding for found in _popularity(folder, manifest, task)]
    return Description(
        tuple(_rows(manifest)),
        tuple(lengths),
        tuple(numbers),
        tuple(labels),
        tuple(popularity),
        {source: dict(reasons) for source, reasons in sorted(manifest.get("drops", {}).items())},
    )


def _splits(manifest: dict[str, Any], config: str) -> list[str]:
    return [split for split in SPLITS if manifest["configs"][config]["splits"].get(split)]


def _rows(manifest: dict[str, Any]) -> Iterator[Rows]:
    order = [*TASKS, "items", "queries", "qrels"]
    for config in (name for name in order if name in manifest["configs"]):
        entry = manifest["configs"][config]
        corpora = entry.get("corpora") or {"all": entry["splits"]}
        for corpus in sorted(corpora):
            for split in (split for split in SPLITS if split in corpora[corpus]):
                yield Rows(config, corpus, split, corpora[corpus][split])


def _sample(files: list[Path]) -> pl.DataFrame:
    """Return up to `SAMPLED_ROWS` rows of these files, in runs at even distances."""
    sizes = [pq.read_metadata(path).num_rows for path in files]
    total = sum(sizes)
    run = -(-SAMPLED_ROWS // _RUNS)
    starts = [0] if total <= SAMPLED_ROWS else np.linspace(0, total - run, _RUNS).astype(int).tolist()
    scan = pl.scan_parquet(files, glob=False)
    length = total if total <= SAMPLED_ROWS else run
    return pl.concat([scan.slice(start, length).collect() for start in starts])


def _lengths(task: str, split: str, sample: pl.DataFrame) -> Iterator[Lengths]:
    for name in _TEXTS[TASKS[task].kind]:
        column = pl.col(name)
        if sample.schema[name] != pl.String:
            column = column.list.eval(pl.element().struct.field("content")).list.join("\n")
        text = sample.select(text=column.fill_null(""))
        found = text.select(
            characters=pl.col("text").str.len_chars(), tokens=pl.col("text").str.count_matches(WORD)
        ).to_dict()
        characters, tokens = (Quantiles.of(found[what].to_numpy()) for what in ("characters", "tokens"))
        yield Lengths(task, split, name, len(sample), characters, tokens)


def _numbers(task: str, split: str, sample: pl.DataFrame) -> Iterator[Numbers]:
    counted: dict[str, pl.Expr] = {}
    if task == "user2item":
        counted["choices"] = pl.col("anchor").str.count_matches("\n") + 1
    if TASKS[task].kind == "embedding":
        counted["negatives"] = pl.col("negative_ids").list.len()
    else:
        counted["options"] = pl.col("options").list.len()
    for what, expr in counted.items():
        values = sample.select(expr).to_series().to_numpy()
        if values.any():
            found, rows = np.unique(values, return_counts=True)
            counts = {str(number): int(count) for number, count in zip(found, rows, strict=True)}
            yield Numbers(task, split, what, len(sample), Quantiles.of(values), counts)


def _labels(folder: Path, task: str, split: str, options: list[str]) -> Labels:
    """Return the labels of a task that chooses one of a few, in the order of `options` where these are the labels."""
    counts = (
        pl.scan_parquet(files_of(folder, task, split), glob=False)
        .group_by("label")
        .len()
        .sort("label")
        .collect(engine="streaming")
    )
    rows = dict(counts.iter_rows())
    return Labels(task, split, {label: rows[label] for label in [*options, *rows] if label in rows})


def _popularity(folder: Path, manifest: dict[str, Any], task: str) -> Iterator[Popularity]:
    corpora = list(manifest["configs"][task]["corpora"])
    items = (
        pl.scan_parquet(files_of(folder, "items"), glob=False)
        .filter(pl.col("corpus").is_in(corpora))
        .select("item_id")
        .collect()
    )
    counts = items.with_columns(train=pl.lit(0, pl.UInt32))
    splits = _splits(manifest, task)
    for split in splits:
        scan = pl.scan_parquet(files_of(folder, task, split), glob=False)
        found = scan.group_by(item_id="positive_id").agg(pl.len().alias("found")).collect(engine="streaming")
        joined = items.join(found, on="item_id", how="left", maintain_order="left")
        counts = counts.with_columns(joined["found"].fill_null(0).alias(split))
    # Among equals the order is a hash's: that of ids would put one corpus before another.
    ranked = counts.with_columns(order=hash64(pl.col("item_id"))).sort(["train", "order"], descending=[True, False])
    seen = int((ranked["train"] > 0).sum())
    for split in splits:
        values = ranked[split].to_numpy().astype(np.int64)
        parts = [*np.array_split(values[:seen], 10), values[seen:]]
        *tenths, unseen = (round(float(part.sum() / values.sum()), 4) for part in parts)
        yield Popularity(task, split, len(values), seen, tuple(tenths), unseen, round(gini(values), 4))


def gini(values: NDArray[np.int64]) -> float:
    """Return the Gini coefficient of counts that are not all 0: half their mean difference, over their mean."""
    ordered = np.sort(values)
    place = np.arange(1, len(ordered) + 1)
    return float(((2 * place - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum()))


def _tables(found: Description) -> Iterator[str]:
    yield _table(
        "rows",
        ("configuration", "corpus", "split", "rows"),
        [(entry.config, entry.corpus, entry.split, entry.rows) for entry in found.rows],
    )
    of = f"of up to {found.sampled_rows:,} rows a task and split"
    quantiles = ("5 %", "half", "95 %", "most")
    for what in ("characters", "tokens"):
        rule = f"; {found.token_rule}" if what == "tokens" else ""
        yield _table(
            f"lengths in {what}, {of}{rule}",
            ("task", "split", "text", *quantiles),
            [(entry.task, entry.split, entry.text, *_listed(getattr(entry, what))) for entry in found.lengths],
        )
    yield _table(
        f"numbers, {of}",
        ("task", "split", "of", *quantiles),
        [(entry.task, entry.split, entry.what, *_listed(entry.numbers)) for entry in found.numbers],
    )
    yield _table(
        "labels",
        ("task", "split", "label", "rows", "share"),
        [
            (entry.task, entry.split, label, rows, f"{rows / sum(entry.rows.values()):.1%}")
            for entry in found.labels
            for label, rows in entry.rows.items()
        ],
    )
    yield _table(
        "popularity: share of positives by tenth of the items seen in training, most popular first, and of unseen ones",
        ("task", "split", "items", "seen", *map(str, range(1, 11)), "unseen", "Gini"),
        [
            (
                *(entry.task, entry.split, entry.items, entry.seen),
                *(f"{share:.1%}" for share in (*entry.tenths, entry.unseen)),
                f"{entry.gini:.2f}",
            )
            for entry in found.popularity
        ],
    )
    drops = [(source, reason, rows) for source, reasons in found.drops.items() for reason, rows in reasons.items()]
    yield _table("dropped", ("from", "reason", "rows"), drops)


def _listed(found: Quantiles) -> tuple[int, int, int, int]:
    return found.low, found.median, found.high, found.most


def _table(title: str, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    """Return aligned columns, numbers to the right, or a word where there is nothing."""
    if not rows:
        return f"{title}: none"
    cells = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [not isinstance(value, str) or value.endswith("%") for value in rows[0]]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [list(names), *cells]
    ]
    return "\n".join([f"{title}:", *lines])
