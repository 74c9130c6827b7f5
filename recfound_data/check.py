"""Verify a dataset over what was written: files, schema, counts, leakage, negatives, people.

It trusts nothing that the build meant; each rule reads the Parquet files again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import yaml

from recfound_data.card import content_hash
from recfound_data.cleaning import product_key, title_key
from recfound_data.errors import RecfoundError
from recfound_data.layout import CARD, files_of, read_manifest, read_split, schema_of, sha256
from recfound_data.people import EMAIL, PHONE
from recfound_data.samples import LETTERS, SCHEMA_VERSION, SPLITS, TWINS
from recfound_data.tasks.catalogue import TASKS

_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One fault: the rule it breaks, where, how many rows, and a few of them to look at."""

    rule: str
    where: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = "".join(f"\n    {example}" for example in self.examples)
        return f"{self.rule}: {self.where}: {self.count:,}{shown}"


@dataclass(frozen=True)
class CheckReport:
    """What a check found; a dataset passes when there is nothing."""

    path: Path
    rows: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def check(path: str | Path) -> CheckReport:
    """Check a dataset folder and return all findings.

    Raises:
        RecfoundError: the folder is no dataset, or a file of it cannot be read at all.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    findings = [*_header(folder, manifest)]
    # The rules below read the files, which are opened only if they are the ones that were built.
    unfit = [*_files(folder, manifest)] or [*_columns(folder, manifest)]
    if unfit:
        return CheckReport(folder, 0, (*findings, *unfit))
    frames = {config: _with_split(folder, config) for config in manifest["configs"]}
    rows = sum(len(frame) for frame in frames.values())
    findings += _counts(manifest, frames)
    findings += _people(frames)
    items = frames.get("items", pl.DataFrame(schema=schema_of("items"))).with_columns(key=product_key(pl.col("title")))
    findings += _unique("item id repeated", "items", items, ["item_id"])
    if "queries" in frames:
        findings += _unique("query id repeated", "queries", frames["queries"], ["split", "query_id"])
    held_out: list[pl.DataFrame] = []
    for task in (name for name in frames if name in TASKS):
        findings += _unique("id repeated", task, frames[task], ["id"])
        if TASKS[task].kind == "embedding":
            findings += _embedding(task, frames[task], frames["qrels"], items)
        else:
            findings += _generative(task, frames[task])
        held_out += _targets(task, frames[task], items)
    findings += _leaked_targets(held_out)
    findings += _twins(frames)
    return CheckReport(folder, rows, tuple(findings))


def _with_split(folder: Path, config: str) -> pl.DataFrame:
    if config == "items":
        return read_split(folder, config)
    parts = [read_split(folder, config, split).with_columns(split=pl.lit(split)) for split in SPLITS]
    return pl.concat(parts)


def _found(rule: str, where: str, faulty: pl.DataFrame, *columns: str) -> Iterator[Finding]:
    if len(faulty):
        shown = faulty.select(columns).head(_EXAMPLES).rows()
        yield Finding(rule, where, len(faulty), tuple(" | ".join(str(value)[:80] for value in row) for row in shown))


def _unique(rule: str, where: str, frame: pl.DataFrame, columns: list[str]) -> Iterator[Finding]:
    yield from _found(rule, where, frame.filter(pl.struct(columns).is_duplicated()), *columns)


def _files(folder: Path, manifest: dict[str, Any]) -> Iterator[Finding]:
    """Files against the manifest."""
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            yield Finding("file missing", name, 1)
        elif path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            yield Finding("file is not the one that was built", name, 1)
    for path in sorted(folder.rglob("*.parquet")):
        if str(path.relative_to(folder)) not in manifest["files"]:
            yield Finding("file not in the manifest", str(path.relative_to(folder)), 1)


def _columns(folder: Path, manifest: dict[str, Any]) -> Iterator[Finding]:
    """Columns against the schema."""
    for config in manifest["configs"]:
        for path in files_of(folder, config):
            try:
                found = dict(pl.read_parquet_schema(path))
            except (pl.exceptions.PolarsError, OSError, pa.ArrowException) as error:
                yield Finding("file unreadable", str(path.relative_to(folder)), 1, (str(error)[:200],))
                continue
            if found != schema_of(config):
                yield Finding(
                    "columns", str(path.relative_to(folder)), 1, (f"found {found}", f"expected {schema_of(config)}")
                )


def _header(folder: Path, manifest: dict[str, Any]) -> Iterator[Finding]:
    """The manifest's version, and the card's hashes against the manifest's."""
    if manifest["schema_version"] != SCHEMA_VERSION:
        yield Finding("schema version", f"{manifest['schema_version']}, this package reads {SCHEMA_VERSION}", 1)
    try:
        header = yaml.safe_load((folder / CARD).read_text(encoding="utf-8").split("---")[1])
        described = {entry["config_name"]: entry["description"] for entry in header["configs"]}
    except (OSError, IndexError, KeyError, TypeError, yaml.YAMLError) as error:
        yield Finding("card", f"{CARD} has no readable header", 1, (repr(error)[:200],))
        return
    for config in manifest["configs"]:
        if described.get(config) != content_hash(manifest, config):
            yield Finding("card", f"{CARD}: the description of {config} is not the hash of its files", 1)


def _counts(manifest: dict[str, Any], frames: dict[str, pl.DataFrame]) -> Iterator[Finding]:
    for config, frame in frames.items():
        frame = frame.with_columns(split=pl.lit("train")) if config == "items" else frame
        entry = manifest["configs"][config]
        found = {"splits": dict(frame.group_by("split").len().sort("split").iter_rows())}
        if "corpora" in entry:
            corpora = frame.partition_by("corpus", as_dict=True).items()
            found["corpora"] = {name: dict(part.group_by("split").len().iter_rows()) for (name,), part in corpora}
        if found != entry:
            yield Finding("rows differ from the manifest", config, 1, (f"found {found}", f"expected {entry}"))


def _people(frames: dict[str, pl.DataFrame]) -> Iterator[Finding]:
    for config, frame in frames.items():
        flat = [
            pl.col(name) if dtype == pl.String else pl.col(name).list.eval(_text_of(dtype)).list.join("\n")
            for name, dtype in schema_of(config).items()
            if dtype in (pl.String, pl.List(pl.String)) or name in ("prompt", "completion")
        ]
        for rule, pattern in (("e-mail address", EMAIL), ("phone number", PHONE)):
            for expr in flat:
                name = expr.meta.root_names()[0]
                if not name.endswith(("id", "ids")):
                    yield from _found(
                        rule, f"{config}.{name}", frame.filter(expr.str.contains(pattern)), frame.columns[0], name
                    )
        if config == "user2item":
            raw = frame.filter(~pl.col("anchor_id").str.contains(r"^[0-9a-f]{16}$"))
            yield from _found("user id is not a hash", config, raw, "id", "anchor_id")


def _text_of(dtype: Any) -> pl.Expr:
    return pl.element() if dtype == pl.List(pl.String) else pl.element().struct.field("content")


def _embedding(task: str, frame: pl.DataFrame, qrels: pl.DataFrame, items: pl.DataFrame) -> Iterator[Finding]:
    texts = items.select(
        positive_id="item_id", item_text="text", item_domain="domain", item_corpus="corpus", positive_key="key"
    )
    joined = frame.join(texts, on="positive_id", how="left").join(
        items.select(anchor_id="item_id", anchor_key="key"), on="anchor_id", how="left"
    )
    wrong = joined.filter(pl.col("item_text").is_null() | (pl.col("item_text") != pl.col("positive")))
    yield from _found("positive is not its item's text", task, wrong, "id", "positive_id")
    yield from _found(
        "empty text", task, frame.filter(pl.any_horizontal(pl.col("anchor", "positive", "negative") == "")), "id"
    )
    yield from _found(
        "anchor is the positive or its duplicate",
        task,
        joined.filter(
            (pl.col("anchor_id") == pl.col("positive_id")) | (pl.col("anchor_key") == pl.col("positive_key"))
        ),
        "id",
        "positive_id",
    )
    counts = pl.col("negative_ids").list.len() != pl.col("more_negatives").list.len() + 1
    yield from _found("negatives and their ids differ in number", task, frame.filter(counts), "id")
    pairs = joined.select(
        "id", "anchor_id", "anchor_key", "positive_id", "positive_key", "item_domain", "item_corpus",
        negative_id="negative_ids", negative_text=pl.concat_list(pl.concat_list("negative"), "more_negatives"),
    )  # fmt: skip
    pairs = pairs.filter(pl.col("negative_id").list.len() == pl.col("negative_text").list.len()).explode(
        "negative_id", "negative_text"
    )
    pairs = pairs.join(
        items.select(negative_id="item_id", text="text", domain="domain", corpus="corpus", key="key"),
        on="negative_id",
        how="left",
    )
    mismatch = pl.col("text").is_null() | (pl.col("text") != pl.col("negative_text"))
    yield from _found("negative is not its item's text", task, pairs.filter(mismatch), "id", "negative_id")
    foreign = (pl.col("domain") != pl.col("item_domain")) | (pl.col("corpus") != pl.col("item_corpus"))
    yield from _found("negative of another corpus or domain", task, pairs.filter(foreign), "id", "negative_id")
    same = (pl.col("negative_id") == pl.col("positive_id")) | (pl.col("key") == pl.col("positive_key"))
    yield from _found("negative is the positive or its duplicate", task, pairs.filter(same), "id", "negative_id")
    own = (pl.col("negative_id") == pl.col("anchor_id")) | (pl.col("key") == pl.col("anchor_key"))
    yield from _found("negative is the anchor or its duplicate", task, pairs.filter(own), "id", "negative_id")
    least = 2 if task == "query2item" else 1
    known = qrels.filter(pl.col("grade") >= least).select(anchor_id="query_id", negative_id="item_id").unique()
    yield from _found(
        "negative is a known positive", task, pairs.join(known, on=["anchor_id", "negative_id"]), "id", "negative_id"
    )
    unlisted = frame.join(
        qrels.filter(pl.col("grade") >= 1).select("split", anchor_id="query_id", positive_id="item_id"),
        on=["split", "anchor_id", "positive_id"],
        how="anti",
    )
    yield from _found("positive not in qrels of its split", task, unlisted, "id", "positive_id")
    yield from _torn_groups(task, joined)


def _torn_groups(task: str, frame: pl.DataFrame) -> Iterator[Finding]:
    """Groups that lie in more than one split. A user's history may, its targets may not: see `_leaked_targets`."""
    if task == "user2item":
        return
    # Two offers of one product are one end of a pair.
    ends = pl.min_horizontal("anchor_key", "positive_key"), pl.max_horizontal("anchor_key", "positive_key")
    pair = pl.concat_str(["corpus", "domain", *ends], separator="|")
    words = pl.concat_str(["corpus", "domain", title_key(pl.col("anchor"))], separator="|")
    keys = {"item2item": {"pair of items": pair}, "query2item": {"query": words}}
    for what, key in {"group": pl.col("id").str.split("-").list.first(), **keys.get(task, {})}.items():
        torn = frame.with_columns(key=key).filter(pl.col("split").n_unique().over("key") > 1)
        yield from _found(f"leak: {what} in more than one split", task, torn.sort("key"), "id", "split", "key")


def _generative(task: str, frame: pl.DataFrame) -> Iterator[Finding]:
    answer = pl.col("completion").list.last().struct.field("content")
    yield from _found("completion is not the label", task, frame.filter(answer != pl.col("label")), "id", "label")
    empty = (pl.col("prompt").list.len() == 0) | (answer == "")
    yield from _found("empty text", task, frame.filter(empty), "id")
    if task != "sequential_recommendation":
        return
    letters = pl.col("options").list.len() != len(LETTERS)
    yield from _found("not twenty options", task, frame.filter(letters), "id")
    repeated = pl.col("options").list.n_unique() != pl.col("options").list.len()
    yield from _found("option repeated", task, frame.filter(repeated), "id")
    yield from _found(
        "label is no letter of an option", task, frame.filter(~pl.col("label").is_in(list(LETTERS))), "id", "label"
    )


def _targets(task: str, frame: pl.DataFrame, items: pl.DataFrame) -> list[pl.DataFrame]:
    """Return users' targets, where a task has users: `user`, `corpus`, `key` (of the title), `split`, `task`, `id`."""
    user = pl.col("id").str.split("-").list.first()
    if task == "user2item":
        named = frame.join(items.select("key", positive_id="item_id"), on="positive_id", how="left")
    elif task == "sequential_recommendation":
        at = pl.col("label").replace_strict(
            {letter: place for place, letter in enumerate(LETTERS)}, default=None, return_dtype=pl.Int64
        )
        named = frame.with_columns(key=product_key(pl.col("options").list.get(at, null_on_oob=True)))
    else:
        return []
    return [named.select("corpus", "key", "split", "task", "id", user=user)]


def _leaked_targets(found: list[pl.DataFrame]) -> Iterator[Finding]:
    """A user's held-out target that is a target of that user in another split, of any task."""
    if not found:
        return
    targets = pl.concat(found)
    leaked = targets.filter(pl.col("split").n_unique().over("user", "corpus", "key") > 1).sort("user", "key", "split")
    yield from _found("leak: a user's target in more than one split", "all tasks", leaked, "task", "split", "id", "key")


def _twins(frames: dict[str, pl.DataFrame]) -> Iterator[Finding]:
    """The same text with the same answer twice: within a split a duplicate, over splits a leak."""
    for task, frame in frames.items():
        if task not in TASKS:
            continue
        hashed = frame.select(
            "id", "split", twin=pl.struct(TWINS[TASKS[task].kind]).hash()
        )  # within one process: any hash will do
        hashed = hashed.filter(pl.col("twin").is_duplicated())
        torn = hashed.filter(pl.col("split").n_unique().over("twin") > 1).sort("twin", "split")
        yield from _found("leak: the same sample in more than one split", task, torn, "id", "split")
        again = hashed.filter(pl.struct("twin", "split").is_duplicated()).sort("twin")
        yield from _found("sample repeated", task, again, "id", "split")


def require_passed(report: CheckReport) -> None:
    """Raise what a check found, as one error.

    Raises:
        RecfoundError: there is a finding.
    """
    if not report.passed:
        lines = "\n".join(str(finding) for finding in report.findings)
        raise RecfoundError(f"{report.path}: {len(report.findings)} findings\n{lines}")
