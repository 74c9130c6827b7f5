"""A dataset with other labels: the files that hold them are written again, everything else is the same file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from recfound_data.finishing import finish, label_sources, share_others
from recfound_data.layout import files_of, replacing
from recfound_data.samples import message
from recfound_data.writing import write_rows

_ROWS_AT_ONCE = 4_096


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
        files = {path.relative_to(folder).as_posix() for task in labels for path in files_of(folder, task)}
        share_others(folder, partial, manifest, files)
        for task, new in labels.items():
            (partial / "data" / task).mkdir(parents=True, exist_ok=True)
            for path in files_of(folder, task):
                name = path.relative_to(folder).as_posix()
                written = write_rows(partial / name, task, _relabelled(path, new, source))
                manifest["files"][name] = {key: written[key] for key in ("bytes", "sha256")}
        manifest["label_sources"] = label_sources(partial, manifest)
        finish(partial, manifest)


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
