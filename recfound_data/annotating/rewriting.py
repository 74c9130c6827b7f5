"""A dataset with other labels: the files that hold them are written again, everything else is the same file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from recfound_data.card import dataset_card
from recfound_data.checking.generative import LABEL_SOURCES
from recfound_data.describe import describe_dataset
from recfound_data.errors import RecfoundError
from recfound_data.layout import CARD, MANIFEST, canonical_json, files_of, replacing, sha256
from recfound_data.samples import message
from recfound_data.tasks.catalogue import TASKS
from recfound_data.writing import write_rows

_ROWS_AT_ONCE = 4_096


def require_unchanged(folder: Path, manifest: dict[str, Any], tasks: tuple[str, ...]) -> None:
    """Raise unless the files of these tasks are the ones that were built: nobody pays for labels of others.

    Raises:
        RecfoundError: a file is missing or is another.
    """
    for name, entry in manifest["files"].items():
        if name.startswith(tuple(f"data/{task}/" for task in tasks)):
            path = folder / name
            if not path.is_file() or sha256(path) != entry["sha256"]:
                raise RecfoundError(f"{path}: is not the file that was built; see `recfound data check {folder}`")


def rewrite(
    folder: Path, out: Path, manifest: dict[str, Any], labels: Mapping[str, Mapping[str, str]], source: str
) -> None:
    """Write the dataset in `folder` to `out`, which may be the same, with other labels.

    Args:
        folder: the dataset.
        out: appears whole, in place of an earlier dataset there.
        manifest: of the dataset, with what is to be said of the labels; files, description and sources are brought up
            to date here.
        labels: the new labels by task and sample's id.
        source: their `label_source`.

    Raises:
        UsageError: `out` holds something else than a dataset.
        RecfoundError: the disk is full.
    """
    manifest = {**manifest, "files": dict(manifest["files"])}
    folder = folder.resolve()
    with replacing(out) as partial:
        for name in _others(folder, manifest, labels):
            _share(folder / name, partial / name)
        for task, new in labels.items():
            (partial / "data" / task).mkdir(parents=True, exist_ok=True)
            for path in files_of(folder, task):
                name = path.relative_to(folder).as_posix()
                written = write_rows(partial / name, task, _relabelled(path, new, source))
                manifest["files"][name] = {key: written[key] for key in ("bytes", "sha256")}
        _describe(partial, manifest)


def _others(folder: Path, manifest: dict[str, Any], labels: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that stay as they are, hidden ones and those of others included."""
    written = {MANIFEST, CARD}
    written |= {path.relative_to(folder).as_posix() for task in labels for path in files_of(folder, task)}
    written |= {name for name in manifest["files"] if name.startswith("plots/")}
    for root, _, names in os.walk(folder):
        for name in names:
            path = (Path(root) / name).relative_to(folder).as_posix()
            if path not in written:
                yield path


def _share(path: Path, to: Path) -> None:
    """Put a file elsewhere too, without its bytes where the disk allows it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), to)
    except OSError:
        shutil.copy2(path, to)


def _relabelled(path: Path, labels: Mapping[str, str], source: str) -> Iterator[pl.DataFrame]:
    new = pl.DataFrame({"id": list(labels), "new": list(labels.values())}, schema={"id": pl.String, "new": pl.String})
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            rows = pl.DataFrame(batch).join(new, on="id", how="left", maintain_order="left")
            changed = pl.col("new").is_not_null()
            yield rows.with_columns(
                label=pl.coalesce("new", "label"),
                completion=pl.when(changed).then(message("assistant", pl.col("new"))).otherwise("completion"),
                label_source=pl.when(changed).then(pl.lit(source)).otherwise("label_source"),
            ).drop("new")


def _describe(partial: Path, manifest: dict[str, Any]) -> None:
    """Bring up to date what a dataset says of itself."""
    from recfound_data.plots import write_plots  # here: drawing takes a second to load

    generative = [name for name in manifest["configs"] if name in TASKS and TASKS[name].kind == "generative"]
    files = [path for name in generative for path in files_of(partial, name)]
    sources = pl.scan_parquet(files).select(pl.col("label_source").unique()).collect(engine="streaming")
    manifest["label_sources"] = sorted(set(sources["label_source"]) - set(LABEL_SOURCES))
    for name in [name for name in manifest["files"] if name.startswith("plots/")]:
        del manifest["files"][name]
    description = describe_dataset(partial, manifest)
    manifest["description"] = description.to_json()
    for plot in write_plots(description, partial / "plots"):
        manifest["files"][f"plots/{plot.name}"] = {"bytes": plot.stat().st_size, "sha256": sha256(plot)}
    (partial / MANIFEST).write_text(canonical_json(manifest), encoding="utf-8")
    (partial / CARD).write_text(dataset_card(partial, manifest), encoding="utf-8")
