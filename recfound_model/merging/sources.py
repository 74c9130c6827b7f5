"""The adapters that are merged: whether they may be, and their tensors, a group of them in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_data.progress import Progress
from recfound_model.adapter_config import TmoleConfig
from recfound_model.adapter_files import AdapterReader, open_adapter, read_tensor

_SAME_FIELDS = {
    "base_model_name_or_path": "the base model",
    "revision": "the base model's revision",
    "tasks": "the tasks",
    "target_modules": "the target modules",
    "r": "the rank",
    "alpha": "alpha",
    "experts": "the experts",
    "task_dim": "the size of the task embeddings",
    "prompts": "the prompts",
    "initialization": "the initialisation",
}
Result = TypeVar("Result")


@dataclass(frozen=True)
class Source:
    """One adapter to merge.

    Attributes:
        name: its folder's name, or the name of its repository.
        file: its tensors.
        sha256: of that file.
        config: its configuration.
        modules: the adapted linears.
        keys: the names of its tensors.
    """

    name: str
    file: Path
    sha256: str
    config: TmoleConfig
    modules: tuple[str, ...]
    keys: tuple[str, ...]

    def groups(self) -> list[list[str]]:
        """Return the keys of each adapted linear, and those of the task embeddings."""
        of_module: dict[str, list[str]] = {}
        for key in self.keys:
            of_module.setdefault(key.split(".tmole.")[0] if ".tmole." in key else "", []).append(key)
        return list(of_module.values())


def open_sources(places: Sequence[str | Path]) -> list[Source]:
    """Return adapters that can be merged with each other.

    Raises:
        RecfoundError: they do not belong together, with the reason, or one is missing or damaged.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(open_adapter(place)) for place in places]
        for place, reader in zip(places[1:], readers[1:], strict=True):
            _check_kinship(places[0], readers[0], place, reader)
        return [_source(place, reader) for place, reader in zip(places, readers, strict=True)]


def _source(place: str | Path, reader: AdapterReader) -> Source:
    folder = Path(place)
    name = folder.resolve().name if folder.is_dir() else str(place)
    return Source(name, reader.file, reader.sha256(), reader.config, tuple(reader.modules), tuple(reader.keys))


def _check_kinship(one: str | Path, first: AdapterReader, other: str | Path, second: AdapterReader) -> None:
    """Refuse two adapters whose factors cannot be merged, and say why."""
    for field, words in _SAME_FIELDS.items():
        mine, theirs = _comparable(first.config, field), _comparable(second.config, field)
        if mine != theirs:
            raise RecfoundError(f"cannot merge {one} with {other}: {words} differ ({field}: {mine!r} and {theirs!r})")
    if first.config.initialization is None:
        raise RecfoundError(
            f"cannot merge {one} with {other}: neither records the initialisation it descends from, and factors that "
            "were drawn apart do not mean the same"
        )
    if first.keys != second.keys:
        raise RecfoundError(f"cannot merge {one} with {other}: they adapt different layers of the base model")


def _comparable(config: TmoleConfig, field: str) -> Any:
    value = getattr(config, field)
    return sorted(value) if field == "target_modules" and not isinstance(value, str) else value


def read_group(sources: Sequence[Source], keys: Sequence[str]) -> dict[str, list[Tensor]]:
    """Return tensors by key, one a source, in float32 on the CPU.

    The files are opened anew for each group: pages of a mapped file count as this process's memory from the first
    read until the file is closed and the last tensor of it is gone.

    Raises:
        RecfoundError: a file was damaged or removed since it was checked.
    """
    found: dict[str, list[Tensor]] = {key: [] for key in keys}
    for source in sources:
        try:
            with safe_open(source.file, framework="pt") as handle:
                for key in keys:
                    found[key].append(read_tensor(handle, key, source.file))
        except (SafetensorError, OSError) as error:
            raise RecfoundError(f"{source.file} changed while it was read ({error}): merge again") from None
    return found


def over_groups(work: Callable[[list[str]], Result], groups: Sequence[list[str]], workers: int) -> Iterator[Result]:
    """Yield the results of groups of tensors, in their order, from threads that use one core each.

    torch leaves the interpreter free while it computes, and several groups at once are done sooner than one group by
    all of torch's threads: sorting, which most methods of mergekit do, uses one core anyway.
    """
    with (
        _single_threaded(),
        Progress("merge", len(groups)) as progress,
        ThreadPoolExecutor(workers, thread_name_prefix="merge") as pool,
    ):
        for result in pool.map(work, groups):
            progress.advance()
            yield result


@contextmanager
def _single_threaded() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def alike(config: TmoleConfig, **changes: Any) -> TmoleConfig:
    """Return a copy of a configuration with some fields changed."""
    return TmoleConfig(**config.to_dict() | changes)


def run_of(adapter: str | Path) -> Path:
    """Return the folder of the run that an adapter or checkpoint lies in; it need not be one."""
    folder = Path(adapter).resolve().parent
    return folder.parent if folder.name == "checkpoints" else folder
