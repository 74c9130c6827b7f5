"""Publish an adapter, an embedder or a generator as a versioned release on the Hub."""

from __future__ import annotations

from pathlib import Path

from recfound_data.errors import RecfoundError
from recfound_data.release import Release, release_folder

_MARKS = ("adapter_config.json", "modules.json", "config.json")
_PICKLED = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")


def push_model(
    path: str | Path,
    repo: str,
    version: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    token: str | None = None,
) -> Release:
    """Release a model folder: one commit, then the tag `vX.Y.Z`.

    Args:
        path: an adapter, a collapsed LoRA, an embedder or a generator.
        repo: `org/name` on the Hub.
        version: X.Y.Z; its tag must not exist.
        private: create the repository as a private one.
        dry_run: change nothing, return what would happen.
        token: of the Hub; by default the one that huggingface_hub finds.

    Raises:
        RecfoundError: the folder is no model, holds pickled weights, or the Hub refuses.
        UsageError: the version is wrong.
    """
    folder = Path(path)
    if not any((folder / mark).is_file() for mark in _MARKS):
        raise RecfoundError(f"{folder}: is no model folder: it has none of {', '.join(_MARKS)}")
    pickled = sorted(file.name for file in folder.rglob("*") if file.suffix in _PICKLED)
    if pickled:
        raise RecfoundError(f"{folder}: holds {pickled[0]}, which may be pickled code; save the weights as safetensors")
    return release_folder(
        folder, repo, repo_type="model", version=version, private=private, dry_run=dry_run, token=token
    )
