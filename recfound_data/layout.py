"""A dataset on disk: Parquet files in the Hub's layout and the manifest `recfound.json`, written and read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ValidationError

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.samples import EMBEDDING, GENERATIVE, ITEMS, QRELS, QUERIES
from recfound_data.tasks.catalogue import TASKS

MANIFEST = "recfound.json"
CARD = "README.md"


class _File(BaseModel, strict=True):
    bytes: int
    sha256: str


class _Config(BaseModel, strict=True):
    splits: dict[str, int]
    corpora: dict[str, dict[str, int]] = {}


class _Terms(BaseModel, strict=True):
    title: str
    address: str
    licence: str
    citation: str
    redistributable: bool


class _Corpus(BaseModel, strict=True):
    reader: str = ""
    terms: _Terms | None = None


class _Settings(BaseModel, strict=True):
    item_text_chars: int | None = None


class _Manifest(BaseModel, strict=True):
    """The shape of what is read of a manifest that anybody may have written."""

    configs: dict[str, _Config]
    files: dict[str, _File]
    corpora: dict[str, _Corpus]
    recipe: _Settings = _Settings()
    label_sources: list[str] = []
    drops: dict[str, dict[str, int]] = {}
    user_key: bool = False


def schema_of(config: str) -> dict[str, Any]:
    """Return the columns and polars types of a configuration."""
    fixed = {"items": ITEMS, "queries": QUERIES, "qrels": QRELS}
    return fixed.get(config) or (EMBEDDING if TASKS[config].kind == "embedding" else GENERATIVE)


def write_parquet(frame: pl.DataFrame, path: Path, **options: Any) -> None:
    """Write a frame; what polars makes of a full disk is raised as the OSError that it is."""
    try:
        frame.write_parquet(path, **options)
    except pl.exceptions.PolarsError as error:
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys: equal values, equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a dataset's manifest.

    Raises:
        RecfoundError: the folder is no dataset, or its manifest is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecfoundError(
            f"{folder}: is no recfound dataset: it has no {MANIFEST}; build one with `recfound data build`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecfoundError(f"{path}: cannot be read: {error}") from None
    keys = ("schema_version", "configs", "files", "corpora")
    missing = [key for key in keys if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise RecfoundError(f"{path}: is no dataset manifest: it has no {' and no '.join(missing)}")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecfoundError(
            f"{path}: is no dataset manifest: {place[:200]}: {first['msg']}; build the dataset again"
        ) from None
    return manifest


def files_of(folder: Path, config: str, split: str | None = None) -> list[Path]:
    """Return the Parquet files of a configuration, or of one split of it, sorted."""
    if config == "items":
        return sorted((folder / "items").glob("*.parquet"))
    return sorted((folder / "data" / config).glob(f"{split or '*'}-*.parquet"))


def read_split(folder: Path, config: str, split: str | None = None) -> pl.DataFrame:
    """Return the rows of a configuration, or of one split of it; an empty frame where it has none."""
    files = files_of(folder, config, split)
    return pl.read_parquet(files) if files else pl.DataFrame(schema=schema_of(config))


def require_replaceable(out: Path, marker: str = MANIFEST) -> None:
    """Raise unless `out` is absent, empty, or holds `marker`, that is, was written by this project.

    Raises:
        UsageError: `out` holds something else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / marker).exists())):
        raise UsageError(
            f"{out.absolute()}: exists and holds something else (no {marker}); name a new folder or remove it"
        )


@contextmanager
def replacing(out: Path, marker: str = MANIFEST) -> Iterator[Path]:
    """Yield a folder beside `out` to write in; it takes `out`'s place at the end, whole, or goes when the work fails.

    An `out` that exists is replaced only if it is empty or holds `marker`, that is, if this project wrote it.

    Raises:
        UsageError: `out` holds something else.
        RecfoundError: the disk is full or cannot be written.
    """
    require_replaceable(out, marker)
    out = out.absolute()
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            old = out.with_name(f".{out.name}.old-{os.getpid()}")
            out.rename(old)
            try:
                partial.rename(out)
            except OSError:
                old.rename(out)
                raise
            shutil.rmtree(old)
        else:
            partial.rename(out)
    except OSError as error:
        raise RecfoundError(
            f"{out}: cannot be written: {error.strerror or error}; free space or name another folder"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
