"""A smaller dataset from a dataset: so many training samples a task, chosen by what their texts are like.

Validation and test stay as they are, so that what a selection does can be compared. What is chosen depends on texts,
ids and the seed alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recfound_data.errors import UsageError
from recfound_data.finishing import finish, label_sources, listed, require_unchanged, share_others
from recfound_data.identity import draw
from recfound_data.layout import files_of, read_manifest, replacing, require_replaceable
from recfound_data.progress import Progress
from recfound_data.recipe import nearest
from recfound_data.samples import SPLITS
from recfound_data.selecting.measures import Values, compression, length, perplexity, same_text, text_of
from recfound_data.tasks.catalogue import TASKS
from recfound_data.units import total
from recfound_data.writing import write_rows

LIST = "selection.csv"
"""The file that names what was kept: `task`, `id`, and each measure."""
DEDUPLICATE = "deduplicate"
MEASURES = {"length": "high", "compression": "high", "perplexity": "middle"}
"""What samples are ranked by, and what of it is kept where nobody says."""
_ENDS = ("low", "middle", "high")
_ROWS_AT_ONCE = 4_096
_ROWS_PER_FILE = 100_000
_NOT_CHOSEN, _REPEATED = "training sample not selected", "training sample that reads as another, not selected"


@dataclass(frozen=True)
class Selection:
    """What was kept of the training samples of each task: how many there were, are, and went as duplicates."""

    path: Path
    before: dict[str, int]
    kept: dict[str, int]
    duplicates: dict[str, int]


@dataclass(frozen=True)
class _Way:
    """How samples are chosen: measures with the end that is kept of each, and whether duplicates go first."""

    ends: dict[str, str]
    deduplicate: bool
    measures: Mapping[str, Callable[[Sequence[str]], Values]]
    seed: int


def select(
    path: str | Path,
    out: str | Path,
    *,
    per_task: int | Mapping[str, int],
    by: Sequence[str] = (DEDUPLICATE,),
    model: str | None = None,
    revision: str | None = None,
    seed: int = 0,
) -> Selection:
    """Write a dataset with so many training samples a task.

    Args:
        path: a dataset folder.
        out: folder to write; an earlier dataset there is replaced, whole, at the end.
        per_task: most training samples of every task, or of those that are named; others keep all.
        by: `deduplicate` leaves one of the samples whose texts differ in case, punctuation and spaces alone; `length`,
            `compression` and `perplexity` rank, each followed by `:low`, `:middle` or `:high` if another end than its
            usual one is kept (the longest, those that repeat themselves least, those of middle perplexity). Several
            rank by the mean of their places; without one, what is kept is drawn.
        model: causal language model for `perplexity`, a name on the Hub or a folder.
        revision: of that model on the Hub.
        seed: of the draws, which also decide between equals.

    Raises:
        UsageError: an argument is wrong, or a package is missing.
        RecfoundError: the dataset is not what was built, or the disk is full.
    """
    folder, out = Path(path), Path(out)
    ends, deduplicate = _parsed(by)
    if ("perplexity" in ends) != (model is not None):
        raise UsageError("--by perplexity needs --model, the name of a causal language model, and nothing else does")
    manifest = read_manifest(folder)
    wanted = _budgets(per_task, manifest, folder)
    require_replaceable(out)
    require_unchanged(folder, manifest, (*wanted, "queries", "qrels"))
    measures: dict[str, Callable[[Sequence[str]], Values]] = {"length": length, "compression": compression}
    if model is not None:
        measures["perplexity"] = perplexity(model, revision)
    way = _Way(ends, deduplicate, {name: measures[name] for name in ends}, seed)
    said = {"by": list(by), "model": model, "revision": revision, "seed": seed, "per_task": wanted}
    rows = sum(manifest["configs"][task]["splits"].get("train", 0) for task in wanted)
    with Progress("measuring", rows) as progress:
        chosen = {task: _choose(folder, task, budget, way, progress) for task, budget in wanted.items()}
    summary = Selection(
        out,
        before={task: found.before for task, found in chosen.items()},
        kept={task: len(found.kept) for task, found in chosen.items()},
        duplicates={task: found.duplicates for task, found in chosen.items()} if deduplicate else {},
    )
    said |= {"before": summary.before, "kept": summary.kept, "list": LIST}
    _write(folder.resolve(), out, manifest | {"selection": said}, chosen)
    return summary


def _parsed(by: Sequence[str]) -> tuple[dict[str, str], bool]:
    """Return the end that is kept by each measure, and whether duplicates go."""
    ends: dict[str, str] = {}
    for given in by:
        name, colon, end = given.partition(":")
        if name != DEDUPLICATE and name not in MEASURES:
            known = (DEDUPLICATE, *MEASURES)
            raise UsageError(f"--by {given}: known are {', '.join(known)}{nearest(name, known)}")
        if colon and (name == DEDUPLICATE or end not in _ENDS):
            raise UsageError(f"--by {given}: an end is one of {', '.join(_ENDS)}, and {DEDUPLICATE} has none")
        if name in ends:
            raise UsageError(f"--by {given}: {name} is named twice")
        if name != DEDUPLICATE:
            ends[name] = end or MEASURES[name]
    return ends, DEDUPLICATE in by


def budgets(path: str | Path, given: Sequence[str]) -> dict[str, int]:
    """Return budgets by task from words as `5000` (every task of the dataset) and `user2item=800`.

    Raises:
        UsageError: a word is neither.
        RecfoundError: the folder is no dataset.
    """
    having = [task for task in TASKS if task in read_manifest(Path(path))["configs"]]
    found: dict[str, int] = {}
    for word in sorted(given, key=lambda word: "=" in word):
        task, _, number = word.rpartition("=")
        if not number.isdecimal():
            raise UsageError(f"--per-task {word}: is N, or TASK=N")
        found |= {task: int(number)} if task else dict.fromkeys(having, int(number))
    return found


def _budgets(per_task: int | Mapping[str, int], manifest: dict[str, Any], folder: Path) -> dict[str, int]:
    having = [task for task in TASKS if task in manifest["configs"]]
    budgets = dict.fromkeys(having, per_task) if isinstance(per_task, int) else dict(per_task)
    for task, budget in budgets.items():
        if task not in having:
            raise UsageError(f"{folder}: has no task {task!r}{nearest(task, having)}")
        if budget < 1:
            raise UsageError(f"{task}: a budget is at least 1 sample")
    return {task: budgets[task] for task in having if task in budgets}


@dataclass(frozen=True)
class _Chosen:
    """The training samples that stay of a task, `id` and measures in the dataset's order, and what there was."""

    kept: pl.DataFrame
    before: int
    duplicates: int


def _choose(folder: Path, task: str, budget: int, way: _Way, progress: Progress) -> _Chosen:
    """Measure the training samples of a task, a few thousand texts at a time, and choose among them."""
    parts = [pl.DataFrame(schema={"id": pl.String, "same": pl.UInt64, **dict.fromkeys(way.ends, pl.Float64)})]
    for frame in _training(folder, task):
        texts = text_of(frame, task)
        measured = {name: measure(texts.to_list()) for name, measure in way.measures.items()}
        parts.append(pl.DataFrame({"id": frame["id"], "same": same_text(texts), **measured}))
        progress.advance(len(frame))
    samples = pl.concat(parts).with_columns(drawn=draw(way.seed, "select", pl.col("id"))).with_row_index()
    ranked = samples[_order(samples, way.ends)]
    once = ranked.unique("same", keep="first", maintain_order=True) if way.deduplicate else ranked
    kept = once.head(budget).sort("index").select("id", *way.ends)
    return _Chosen(kept, len(samples), len(samples) - len(once))


def _order(samples: pl.DataFrame, ends: Mapping[str, str]) -> NDArray[np.intp]:
    """Return the samples from the first to be kept to the last: by the mean of their places, then as drawn."""
    places = np.zeros(len(samples), np.int64)
    for name, end in ends.items():
        value = pl.col(name)
        if end == "middle":
            # Twice the distance from the middle place: equal values share a place.
            value = (value.rank("min").cast(pl.Int64) + value.rank("max").cast(pl.Int64) - len(samples) - 1).abs()
        place = value.rank("min", descending=end == "high").cast(pl.Int64)
        places += samples.select(place).to_series().to_numpy()
    return np.lexsort((samples["drawn"].to_numpy(), places))


def _training(folder: Path, task: str) -> Iterator[pl.DataFrame]:
    for path in files_of(folder, task, "train"):
        yield from _frames(path)


def _frames(path: Path) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            yield pl.DataFrame(batch)


def _write(folder: Path, out: Path, manifest: dict[str, Any], chosen: Mapping[str, _Chosen]) -> None:
    manifest = manifest | {"files": dict(manifest["files"]), "configs": dict(manifest["configs"])}
    manifest["drops"] = _drops(manifest, chosen)
    embedding = any(TASKS[task].kind == "embedding" for task in chosen)
    written = [path for task in chosen for path in files_of(folder, task, "train")]
    if embedding:
        written += [*files_of(folder, "queries", "train"), *files_of(folder, "qrels")]
    names = {LIST, *(path.relative_to(folder).as_posix() for path in written)}
    with replacing(out) as partial:
        share_others(folder, partial, manifest, names)
        for name in names & set(manifest["files"]):
            del manifest["files"][name]
        for task, found in chosen.items():
            _write_split(partial, manifest, task, "train", _only(_training(folder, task), found.kept.select("id")))
        if embedding:
            _write_queries(folder, partial, manifest)
        frames = [found.kept.select(pl.lit(task).alias("task"), pl.all()) for task, found in chosen.items()]
        pl.concat(frames).write_csv(partial / LIST, float_precision=6)
        manifest["files"][LIST] = listed(partial / LIST)
        manifest["label_sources"] = label_sources(partial, manifest)
        finish(partial, manifest)


def _drops(manifest: dict[str, Any], chosen: Mapping[str, _Chosen]) -> dict[str, dict[str, int]]:
    drops = {source: dict(reasons) for source, reasons in manifest.get("drops", {}).items()}
    for task, found in chosen.items():
        left = found.before - found.duplicates - len(found.kept)
        drops[task] = total([drops.get(task, {}), {_REPEATED: found.duplicates, _NOT_CHOSEN: left}])
    return {source: reasons for source, reasons in drops.items() if reasons}


def _only(frames: Iterator[pl.DataFrame], keys: pl.DataFrame) -> Iterator[pl.DataFrame]:
    for frame in frames:
        yield frame.join(keys, on=keys.columns, how="semi", maintain_order="left")


def _write_queries(folder: Path, out: Path, manifest: dict[str, Any]) -> None:
    """Leave the queries that training still asks, and the judgements of queries that any split asks."""
    files = [path for task in TASKS if TASKS[task].kind == "embedding" for path in files_of(out, task, "train")]
    asked = pl.scan_parquet(files).select("task", query_id="anchor_id").unique().collect()
    queries = (frame for path in files_of(folder, "queries", "train") for frame in _frames(path))
    _write_split(out, manifest, "queries", "train", _only(queries, asked))
    named = pl.scan_parquet(files_of(out, "queries")).select("query_id").unique().collect()
    for split in SPLITS:
        judged = (frame for path in files_of(folder, "qrels", split) for frame in _frames(path))
        _write_split(out, manifest, "qrels", split, _only(judged, named))


def _write_split(out: Path, manifest: dict[str, Any], config: str, split: str, frames: Iterator[pl.DataFrame]) -> None:
    """Write the rows of a split in files of as many rows as the dataset's, and bring the manifest up to date."""
    folder = out / "data" / config
    folder.mkdir(parents=True, exist_ok=True)
    written, corpora = [], Counter[str]()
    for number, rows in enumerate(_in_files(frames, _rows_per_file(manifest))):
        if "corpus" in rows.columns:
            corpora.update(dict(rows["corpus"].value_counts().iter_rows()))
        written.append((folder / f"{number}.parquet", write_rows(folder / f"{number}.parquet", config, iter([rows]))))
    for number, (path, made) in enumerate(written):
        name = path.rename(folder / f"{split}-{number:05d}-of-{len(written):05d}.parquet").relative_to(out).as_posix()
        manifest["files"][name] = {key: made[key] for key in ("bytes", "sha256")}
    entry = manifest["configs"][config]
    splits = entry["splits"] | {split: sum(made["rows"] for _, made in written)}
    manifest["configs"][config] = entry | {"splits": total([splits])}
    if "corpora" in entry:
        counts = {name: total([of | {split: corpora[name]}]) for name, of in entry["corpora"].items()}
        manifest["configs"][config]["corpora"] = {name: of for name, of in counts.items() if of}


def _rows_per_file(manifest: dict[str, Any]) -> int:
    return int(manifest.get("recipe", {}).get("rows_per_file", _ROWS_PER_FILE))


def _in_files(frames: Iterator[pl.DataFrame], rows_per_file: int) -> Iterator[pl.DataFrame]:
    waiting: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        waiting, rows = [*waiting, frame], rows + len(frame)
        while rows >= rows_per_file:
            together = pl.concat(waiting)
            yield together.head(rows_per_file)
            waiting, rows = [together.slice(rows_per_file)], rows - rows_per_file
    if rows:
        yield pl.concat(waiting)
