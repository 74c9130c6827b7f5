"""Folders that are read from disk or from the Hub, and folders that are either written whole or not at all."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from recfound_data.errors import RecfoundError

_REPLACED = ("model*.safetensors*", "training.json", "merge_report.json")


def fetch(source: str | Path, filename: str, revision: str | None = None) -> Path:
    """The path on disk of one file of a local folder or of a model repository on the Hub.

    Args:
        source: a folder, or a repository id such as `org/name`.
        filename: the file in it.
        revision: branch, tag or commit of the repository; a local folder has none.

    Raises:
        RecfoundError: there is no such folder, repository or file.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / filename).is_file():
            raise RecfoundError(f"{folder} holds no {filename}: it is not an adapter, or its writing was interrupted")
        return folder / filename
    try:
        return Path(hf_hub_download(str(source), filename, revision=revision))
    except HFValidationError as error:
        raise RecfoundError(f"{source} is neither a folder on disk nor the id of a repository (org/name)") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision}" if revision else ""
        raise RecfoundError(
            f"{source} is no folder on disk, and {filename} of the Hub's {source}{at}: {error}"
        ) from error


@contextmanager
def write_folder(out: str | Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the name `out` only when the block ends without an error.

    A reader therefore sees the old folder or the new one, never half of either. A folder that is already there is
    replaced if it holds nothing but files that are written anew, weights under another number of shards, and what an
    earlier adapter there said of its training or merge.

    Raises:
        RecfoundError: `out` is a file, or holds files that would be lost.
    """
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise RecfoundError(f"{out} is a file; a folder is to be written there")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as workspace:
        fresh = Path(workspace, "new")
        fresh.mkdir()
        yield fresh
        _open_to_readers(fresh)
        if out.exists():
            written = {entry.name for entry in fresh.iterdir()}
            foreign = sorted(
                entry.name
                for entry in out.iterdir()
                if entry.name not in written and not any(fnmatch.fnmatch(entry.name, one) for one in _REPLACED)
            )
            if foreign:
                raise RecfoundError(
                    f"{out} would be replaced, but holds files that do not belong to what is written: "
                    f"{', '.join(foreign[:5])}. Choose another folder or remove them"
                )
            out.rename(Path(workspace, "old"))
        fresh.replace(out)


def _open_to_readers(folder: Path) -> None:
    """Lets whoever may enter the folder read its files: safetensors makes files that only their owner can read."""
    mode = folder.stat().st_mode & 0o666
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)
