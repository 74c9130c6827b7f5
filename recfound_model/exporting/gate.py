"""One call of an export: folders are written, checked together in one fresh process, and only then put in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from recfound_data.errors import UsageError
from recfound_data.tasks.catalogue import Kind
from recfound_model.adapter_files import AdapterReader
from recfound_model.exporting.held_out import held_out
from recfound_model.exporting.parity import Parity, Written, check
from recfound_model.exporting.reference import NativeModel
from recfound_model.exporting.report import ExportReport, write_report
from recfound_model.exporting.weights import BaseModel
from recfound_model.folders import write_folder
from recfound_model.provenance import read_training

_RESERVED = {"query", "document"}


def tasks_of(adapter: AdapterReader, task: str | Sequence[str] | None, kind: Kind) -> list[str]:
    """The tasks to export: those that are named, or all of the kind.

    Raises:
        UnknownTaskError: the adapter does not have a task.
        UsageError: a task is of the other kind, or there is none.
    """
    kinds = adapter.config.kinds
    named = [task] if isinstance(task, str) else list(dict.fromkeys(task or ()))
    for name in named:
        found = adapter.config.kind_of(name)
        if found != kind:
            target = "generator" if found == "generative" else "embedder"
            raise UsageError(f"{name} is a task of kind {found}, not {kind}: use export_{target} (--to {target})")
    tasks = named or [name for name in sorted(kinds) if kinds[name] == kind]
    if not tasks:
        raise UsageError(f"{adapter.file.parent}: has no {kind} task to export")
    return tasks


def together(tasks: Sequence[str]) -> None:
    """Can these tasks share a folder?

    Raises:
        UsageError: one has a name that stock libraries use otherwise.
    """
    if taken := sorted(_RESERVED & set(tasks)):
        raise UsageError(f"a task called {taken[0]!r} can only be exported with the layout merged: the name is taken")


def write_checked(
    adapter_dir: str | Path,
    adapter: AdapterReader,
    base: BaseModel,
    data: str | None,
    places: dict[Path, Sequence[str]],
    write: Callable[[Path, Path, Sequence[str]], Written],
) -> ExportReport:
    """Write the folders of a call, all of them or none.

    Args:
        adapter_dir: where the adapter lies.
        adapter: the same, open.
        base: what it is put on.
        data: the dataset whose held-out texts are compared, if it is not to be found by itself.
        places: where each folder will lie -> its tasks.
        write: writes one of them: (folder to write, its place, its tasks).

    Raises:
        RecfoundError: a folder is not what the adapter is, or cannot be written.
    """
    tasks = [task for these in places.values() for task in these]
    texts = held_out(adapter_dir, adapter.config, tasks, data)
    with ExitStack() as stack:
        for parent in {place.absolute().parent for place in places}:
            stack.enter_context(_removed_if_empty(parent))
        exports = [write(stack.enter_context(write_folder(place)), place, these) for place, these in places.items()]
        found: dict[str, Parity] = {}
        native = NativeModel(adapter_dir, adapter, base)
        for export, parity in check(exports, native, texts):
            write_report(export, parity, adapter, base, native.max_length, read_training(adapter_dir))
            found |= parity
    return ExportReport(tuple(places), found)


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Leaves no empty folder behind where nothing could be written into it."""
    there = folder.exists()
    try:
        yield
    finally:
        if not there and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
