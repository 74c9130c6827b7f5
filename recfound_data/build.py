"""From a recipe to a dataset: corpora become tables, tables become samples, samples become Parquet in the Hub's layout.

The unit of work is one corpus, then one task of one corpus. Units share nothing, so any number of workers gives the
same bytes; everything random is a hash of the recipe's seed and the row.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from recfound_data.card import dataset_card
from recfound_data.catalogue import global_id, make_catalogue
from recfound_data.corpora import readers
from recfound_data.errors import RecfoundError
from recfound_data.events import make_events
from recfound_data.layout import (
    CARD,
    MANIFEST,
    canonical_json,
    read_manifest,
    replacing,
    schema_of,
    sha256,
    write_parquet,
    write_split,
)
from recfound_data.people import UserKey
from recfound_data.recipe import DataRecipe, parse, read_yaml
from recfound_data.samples import CATALOGUE_CONFIGS, SCHEMA_VERSION, SPLITS, TWINS, Corpus
from recfound_data.tables import CorpusTables, Source
from recfound_data.tasks import BUILDERS, TASKS


@dataclass(frozen=True)
class BuildSummary:
    """What a build wrote: its folder, rows by configuration and split, and rows dropped by corpus and reason."""

    path: Path
    rows: dict[str, dict[str, int]]
    drops: dict[str, dict[str, int]]


@dataclass(frozen=True)
class _CorpusUnit:
    reader: Source
    recipe: DataRecipe
    work: Path
    key: UserKey
    strict: bool


@dataclass(frozen=True)
class _TaskUnit:
    task: str
    corpus: str
    recipe: DataRecipe
    work: Path


@dataclass(frozen=True)
class _Done:
    name: str
    rows: int
    drops: dict[str, int]
    seconds: float


def build(
    recipe: str | Path, out: str | Path, *, workers: int = 1, strict: bool = False, quiet: bool = False
) -> BuildSummary:
    """Build the dataset that a recipe describes.

    Args:
        recipe: path of the YAML file; paths in it are relative to its folder.
        out: folder to write; an earlier dataset there is replaced, whole, at the end.
        workers: processes to use; the result does not depend on it.
        strict: stop at the first line that cannot be parsed instead of counting it.
        quiet: print no progress.

    Raises:
        UsageError: the recipe is wrong.
        RecfoundError: a corpus cannot be read or gives nothing.
    """
    path = Path(recipe)
    settings = parse(DataRecipe, read_yaml(path), str(path))
    sources = readers(settings, path.parent, str(path))
    say = _quiet if quiet else _say
    with replacing(Path(out)) as folder:
        work = folder / ".work"
        key = UserKey.from_environment()
        corpora = [_CorpusUnit(reader, settings, work, key, strict) for reader in sources]
        tasks = [_TaskUnit(task, reader.label, settings, work) for task in settings.tasks for reader in sources]
        read = _run(_read_corpus, corpora, workers, say)
        made = _run(_make_task, tasks, workers, say)
        drops = {
            done.name: counted for done in [*read, *made] if (counted := {why: n for why, n in done.drops.items() if n})
        }
        manifest = _assemble(folder, work, settings, sources, key, drops)
        shutil.rmtree(work)
        (folder / MANIFEST).write_text(canonical_json(manifest), encoding="utf-8")
        (folder / CARD).write_text(dataset_card(folder, manifest), encoding="utf-8")
    manifest = read_manifest(Path(out))
    rows = {name: config["splits"] for name, config in manifest["configs"].items()}
    return BuildSummary(Path(out), rows, manifest["drops"])


def _run(
    function: Callable[[Any], _Done], units: Iterable[Any], workers: int, say: Callable[[str], None]
) -> list[_Done]:
    units, results = list(units), []
    if workers == 1:
        finished: Iterable[_Done] = map(function, units)
        for number, done in enumerate(finished, 1):
            say(f"[{number}/{len(units)}] {done.name}: {done.rows:,} rows in {done.seconds:.1f} s")
            results.append(done)
        return results
    # Spawned, not forked: polars keeps threads, and a fork would copy their locks.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for number, done in enumerate(pool.map(function, units), 1):
                say(f"[{number}/{len(units)}] {done.name}: {done.rows:,} rows in {done.seconds:.1f} s")
                results.append(done)
        except BrokenProcessPool:
            raise RecfoundError("a worker died, most likely for want of memory; build with fewer --workers") from None
    return results


def _read_corpus(unit: _CorpusUnit) -> _Done:
    """Read one corpus into tables, then make its catalogue, events and the ids that tasks join on."""
    started, label = time.monotonic(), unit.reader.label
    tables = CorpusTables(unit.work / "tables" / label, label, unit.recipe)
    drops: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    rows = 0
    for batch in unit.reader.batches(unit.key):
        if batch.unparsable and unit.strict:
            first = batch.unparsable[0]
            raise RecfoundError(f"{first.path}: line {first.line}: cannot be parsed: {first.why}")
        drops.update(batch.drops)
        if batch.frame.is_empty():
            continue
        folder = tables.folder / batch.table
        folder.mkdir(parents=True, exist_ok=True)
        write_parquet(batch.frame, folder / f"{parts[batch.table]:06d}.parquet")
        parts[batch.table] += 1
        rows += len(batch.frame)
    ready = unit.work / "ready" / label
    ready.mkdir(parents=True)
    dropped = "".join(f"; {count:,} times {why}" for why, count in drops.items() if count)
    if not tables.has("items"):
        raise RecfoundError(f"corpus {label!r} is empty: its files hold no item that can be used{dropped}")
    if not (tables.has("interactions") or tables.has("judgements")):
        missing = "no interaction or judgement that can be used"
        raise RecfoundError(f"corpus {label!r} is empty: its files hold {missing}{dropped}")
    catalogue, counted = make_catalogue(tables)
    drops.update(counted)
    write_parquet(catalogue, ready / "catalogue.parquet")
    if tables.has("interactions"):
        events, counted = make_events(tables, catalogue)
        drops.update(counted)
        write_parquet(events, ready / "events.parquet")
    for table, columns in (("relations", ("item_id", "other_id")), ("judgements", ("item_id",))):
        if tables.has(table):
            frame = tables.read(table).with_columns(
                global_id(label, pl.col(column)).alias(column) for column in columns
            )
            write_parquet(frame, ready / f"{table}.parquet")
    shutil.rmtree(tables.folder)
    return _Done(label, rows, dict(drops), time.monotonic() - started)


def _make_task(unit: _TaskUnit) -> _Done:
    """Make the samples of one task from one corpus; nothing where the corpus lacks the table that the task needs."""
    started = time.monotonic()
    ready = unit.work / "ready" / unit.corpus
    files = {name: ready / f"{name}.parquet" for name in ("catalogue", "events", "relations", "judgements")}
    builder = BUILDERS[unit.task]
    name = f"{unit.task} from {unit.corpus}"
    if not files[builder.needs].exists():
        return _Done(name, 0, {}, 0.0)
    frames = {table: pl.read_parquet(path) for table, path in files.items() if path.exists()}
    built = builder.build(Corpus(unit.corpus, unit.recipe, **frames))
    folder = unit.work / "samples" / unit.task / unit.corpus
    folder.mkdir(parents=True)
    for kind, frame in (("samples", built.samples), ("queries", built.queries), ("qrels", built.qrels)):
        if frame is not None and not frame.is_empty():
            write_parquet(frame, folder / f"{kind}.parquet")
    return _Done(name, len(built.samples), built.drops, time.monotonic() - started)


def _gather(work: Path, task: str, sources: list[Source], kind: str) -> pl.DataFrame | None:
    paths = [work / "samples" / task / reader.label / f"{kind}.parquet" for reader in sources]
    frames = [pl.read_parquet(path) for path in paths if path.exists()]
    return pl.concat(frames) if frames else None


def _assemble(
    folder: Path, work: Path, recipe: DataRecipe, sources: list[Source], key: UserKey, drops: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Write all configurations from the units' results and return the manifest."""
    configs: dict[str, Any] = {}
    gathered: dict[str, list[pl.DataFrame]] = {"queries": [], "qrels": []}
    for task in recipe.tasks:
        samples = _gather(work, task, sources, "samples")
        if samples is None:
            raise RecfoundError(
                f"task {task!r} has no sample: none of the recipe's corpora gives any; leave it out of the recipe"
            )
        single, counted = _without_twins(samples, task)
        if counted:
            drops[task] = counted
        configs[task] = _write_config(folder, task, single.sort("id"), recipe)
        for kind, frames in gathered.items():
            frame = _gather(work, task, sources, kind)
            if frame is not None:
                frames.append(frame)
    for kind, order in (("queries", ["query_id"]), ("qrels", ["query_id", "item_id"])):
        if gathered[kind]:
            configs[kind] = _write_config(folder, kind, pl.concat(gathered[kind]).sort(order), recipe)
    items = {}
    for reader in sources:
        catalogue = pl.read_parquet(work / "ready" / reader.label / "catalogue.parquet").select(
            list(schema_of("items"))
        )
        write_split(folder / "items", reader.label, catalogue, recipe.rows_per_file)
        items[reader.label] = len(catalogue)
    configs["items"] = {
        "splits": {"train": sum(items.values())},
        "corpora": {label: {"train": count} for label, count in items.items()},
    }
    written = sorted(path for path in folder.rglob("*.parquet") if work not in path.parents)
    resolved = recipe.model_dump(mode="json")
    return {
        "schema_version": SCHEMA_VERSION,
        "recfound": version("recfound"),
        "recipe": resolved,
        "recipe_sha256": _text_hash(canonical_json(resolved)),
        "seed": recipe.seed,
        "user_key": key.secret,
        "configs": {name: configs[name] for name in sorted(configs)},
        "drops": drops,
        "files": {
            str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in written
        },
        "corpora": {reader.label: {"reader": reader.corpus, "terms": asdict(reader.terms)} for reader in sources},
    }


def _without_twins(samples: pl.DataFrame, task: str) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the samples once each, and how many went; of two that read the same, the one held out stays."""
    content = list(TWINS[TASKS[task].kind])
    order = pl.col("split").replace_strict(
        {split: place for place, split in enumerate(reversed(SPLITS))}, return_dtype=pl.Int8
    )
    sorted_samples = samples.with_columns(order=order).sort("order", "id")
    single = sorted_samples.unique(content, keep="first", maintain_order=True).drop("order")
    within = len(samples) - len(samples.unique([*content, "split"]))
    across = len(samples) - len(single) - within
    counted = {"sample repeated in its split": within, "sample that is held out in another split": across}
    return single, {why: count for why, count in counted.items() if count}


def _write_config(folder: Path, config: str, frame: pl.DataFrame, recipe: DataRecipe) -> dict[str, Any]:
    splits = {}
    for split in SPLITS:
        rows = frame.filter(pl.col("split") == split).select(list(schema_of(config)))
        if len(rows):
            write_split(folder / "data" / config, split, rows, recipe.rows_per_file)
            splits[split] = len(rows)
    if config in CATALOGUE_CONFIGS:
        return {"splits": splits}
    counts = frame.group_by("corpus", "split").len().sort("corpus", "split")
    corpora: dict[str, dict[str, int]] = {}
    for corpus, split, count in counts.iter_rows():
        corpora.setdefault(corpus, {})[split] = count
    return {"splits": splits, "corpora": corpora}


def _text_hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quiet(line: str) -> None:
    pass
