"""The command line with shards, runs and bands so small that a small shop has many; run as a script it can be killed.

    python many_shards.py FAULT data build RECIPE --out DIR ...

`FAULT` is `none`, or the moment at which the process kills itself.
"""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recfound_data  # noqa: F401  (its modules)
from recfound_data import cli, negatives, planning, shards

BUILD = sys.modules["recfound_data.build"]


def cut_small(patch: pytest.MonkeyPatch, rows: int) -> None:
    """Cut everything smaller than any shop, shards to so many rows, and draw nothing."""
    patch.setattr("recfound_data.plots.write_plots", lambda *_: [])
    patch.setattr(BUILD, "_ROWS_PER_SHARD", dict.fromkeys(BUILD._ROWS_PER_SHARD, rows))
    patch.setattr(BUILD, "_TEXT_ROWS_PER_SHARD", rows)
    patch.setattr(shards, "_RUN_BYTES", 8_000)
    add: Callable[..., None] = shards.RunWriter.add

    def a_few(writer: shards.RunWriter, table: str, frame: pl.DataFrame) -> None:
        for part in frame.iter_slices(rows):
            add(writer, table, part)

    patch.setattr(shards.RunWriter, "add", a_few)
    patch.setattr(planning, "_MOST_AT_ONCE", 40)
    patch.setattr(negatives, "_AT_ONCE", 500)


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def plant(fault: str, patch: pytest.MonkeyPatch) -> None:
    """Kill this process when it comes to a certain step."""
    rename: Callable[[Path, Path], Path] = Path.rename
    rmtree = shutil.rmtree
    if fault == "card":  # the dataset is whole but for its card
        patch.setattr("recfound_data.finishing.dataset_card", die)
    if fault == "replace":  # the dataset before has gone from its place, the new one has not come

        def replace(path: Path, target: Path) -> Path:
            return die() if ".partial-" in path.name and ".building" not in str(path) else rename(path, target)

        patch.setattr(Path, "rename", replace)
    if fault == "tidy":  # the dataset is whole, the folder of units half gone

        def half(path: Path, *arguments: Any, **options: Any) -> None:
            if Path(path).name.endswith(".building"):
                files = [file for file in sorted(Path(path).rglob("*.*")) if file.is_file() and file.suffix != ".json"]
                for file in itertools.islice(files, 0, None, 2):
                    file.unlink()
                die()
            rmtree(path, *arguments, **options)

        patch.setattr(shutil, "rmtree", half)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        cut_small(patch, rows=40)
        plant(sys.argv[1], patch)
        sys.exit(cli.main(sys.argv[2:]))
