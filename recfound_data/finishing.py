"""The last steps of every dataset folder: what it says of itself, and what it shares with the one it was made from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Set
from pathlib import Path
from typing import Any

import polars as pl

from recfound_data.card import dataset_card
from recfound_data.checking.generative import LABEL_SOURCES
from recfound_data.describe import describe_dataset
from recfound_data.errors import RecfoundError
from recfound_data.layout import CARD, MANIFEST, canonical_json, files_of, sha256
from recfound_data.tasks.catalogue import TASKS


def finish(folder: Path, manifest: dict[str, Any]) -> None:
    """Describe the files of `folder`, and write plots, manifest and card, those of an earlier state left out.

    Args:
        folder: of a dataset, its files written.
        manifest: all else that is to be said; description and plots are put in here.
    """
    from recfound_data.plots import write_plots  # here: drawing takes a second to load, in every worker too

    for name in [name for name in manifest["files"] if name.startswith("plots/")]:
        del manifest["files"][name]
    description = describe_dataset(folder, manifest)
    manifest["description"] = description.to_json()
    for plot in write_plots(description, folder / "plots"):
        manifest["files"][f"plots/{plot.name}"] = listed(plot)
    (folder / MANIFEST).write_text(canonical_json(manifest), encoding="utf-8")
    (folder / CARD).write_text(dataset_card(folder, manifest), encoding="utf-8")


def listed(path: Path) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def label_sources(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the models that wrote labels of a dataset, sorted."""
    generative = [name for name in manifest["configs"] if name in TASKS and TASKS[name].kind == "generative"]
    files = [path for name in generative for path in files_of(folder, name)]
    if not files:
        return []
    sources = pl.scan_parquet(files).select(pl.col("label_source").unique()).collect(engine="streaming")
    return sorted(set(sources["label_source"]) - set(LABEL_SOURCES))


def require_unchanged(folder: Path, manifest: dict[str, Any], tasks: tuple[str, ...]) -> None:
    """Raise unless the files of these configurations are the ones that were built.

    Raises:
        RecfoundError: a file is missing or is another.
    """
    for name, entry in manifest["files"].items():
        if name.startswith(tuple(f"data/{task}/" for task in tasks)):
            path = folder / name
            if not path.is_file() or sha256(path) != entry["sha256"]:
                raise RecfoundError(f"{path}: is not the file that was built; see `recfound data check {folder}`")


def share_others(folder: Path, out: Path, manifest: dict[str, Any], written: Set[str]) -> None:
    """Put the files of a dataset that stay as they are into `out` too, hidden ones and those of others included.

    Args:
        folder: the dataset.
        out: the one made from it.
        manifest: of the dataset.
        written: files that `out` has of its own, or none of.
    """
    made = {MANIFEST, CARD, *written} | {name for name in manifest["files"] if name.startswith("plots/")}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.relative_to(folder).as_posix() not in made:
                _share(path, out / path.relative_to(folder))


def _share(path: Path, to: Path) -> None:
    """Put a file elsewhere too, without its bytes where the disk allows it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), to)
    except OSError:
        shutil.copy2(path, to)
