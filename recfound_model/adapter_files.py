"""An adapter on disk: `adapter_config.json`, `adapter_model.safetensors`, `README.md`.

The tensors, with `<module>` the path of the adapted linear in the base model:

    <module>.tmole.A.<group>   [experts of the group * r, in]
    <module>.tmole.B.<group>   [out, experts of the group * r]
    <module>.tmole.R.<group>   [experts of the group, task_dim]
    <module>.tmole.b.<group>   [experts of the group]
    tmole.z.<task>             [task_dim]

A group without experts has no tensors. Everything is float32. The file's own metadata names the initialisation that the
configuration names, so that two files which were put together by mistake are found out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_model.adapter_card import adapter_card
from recfound_model.adapter_config import CONFIG_FILE, TmoleConfig
from recfound_model.folders import fetch, write_folder
from recfound_model.provenance import Training
from recfound_model.routing import GROUPS

TENSOR_FILE = "adapter_model.safetensors"
LETTERS = ("A", "B", "R", "b")
INITIALIZATION = "initialization"
FLOATS = ("BF16", "F16", "F32", "F64")
"""safetensors' names of the dtypes that an adapter may come in."""


def factor_key(module: str, letter: str, group: str) -> str:
    """Key of one group's A, B, R or b of one adapted linear."""
    return f"{module}.tmole.{letter}.{group}"


def embedding_key(task: str) -> str:
    """Key of one task embedding."""
    return f"tmole.z.{task}"


def part_of(key: str) -> str:
    """Return the part of an adapter that a tensor belongs to: `gates`, or the group of its experts."""
    if key.startswith(embedding_key("")):
        return "gates"
    *_, letter, group = key.split(".")
    return group if letter in ("A", "B") else "gates"


@dataclass(frozen=True)
class Factors:
    """One adapted linear, its live groups laid side by side: A [E r, in], B [out, E r], R [E, d], b [E]."""

    A: Tensor
    B: Tensor
    R: Tensor
    b: Tensor


class AdapterReader:
    """An adapter that is open for reading; tensors are read from disk when they are asked for."""

    def __init__(self, config: TmoleConfig, file: Path, handle: Any) -> None:
        self.config, self.file, self._handle = config, file, handle
        self.keys: list[str] = sorted(handle.keys())
        self.modules = sorted({key.split(".tmole.A.")[0] for key in self.keys if ".tmole.A." in key})
        self._check()

    def _check(self) -> None:
        """Are the tensors those that the configuration announces?"""
        if not self.modules:
            raise RecfoundError(f"{self.file} holds no TMoLE tensors")
        slices = {key: self._handle.get_slice(key) for key in self.keys}
        shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
        _check_keys(str(self.file), self._expected(shapes), shapes)
        wrong = [f"{key} {part.get_dtype()}" for key, part in slices.items() if part.get_dtype() not in FLOATS]
        if wrong:
            raise RecfoundError(f"{self.file}: {len(wrong)} tensors are not of floating-point numbers: {wrong[0]}")
        strange = [module for module in self.modules if not check_target_module_exists(self.config, module)]
        if strange:
            raise RecfoundError(
                f"{self.file} adapts {strange[0]}, which target_modules of its {CONFIG_FILE} does not match: the two "
                "files are of different adapters"
            )
        self._check_initialization()

    def _expected(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int | None, ...]]:
        """Key -> shape; a layer's inputs and outputs are those of its first group, and its groups must agree."""
        experts, r, d = self.config.experts, self.config.r, self.config.task_dim
        expected: dict[str, tuple[int | None, ...]] = {embedding_key(t): (d,) for t in self.config.kinds}
        groups = [group for group in GROUPS if experts[group]]
        for module in self.modules:
            inputs = next(iter(shapes.get(factor_key(module, "A", groups[0]), ())[1:2]), None)
            outputs = next(iter(shapes.get(factor_key(module, "B", groups[0]), ())[:1]), None)
            for group in groups:
                expected[factor_key(module, "A", group)] = (experts[group] * r, inputs)
                expected[factor_key(module, "B", group)] = (outputs, experts[group] * r)
                expected[factor_key(module, "R", group)] = (experts[group], d)
                expected[factor_key(module, "b", group)] = (experts[group],)
        return expected

    def _check_initialization(self) -> None:
        announced, found = self.config.initialization, (self._handle.metadata() or {}).get(INITIALIZATION)
        # Adapters of the first version have no such metadata.
        if found is not None and found != announced:
            raise RecfoundError(
                f"{self.file} descends from another initialisation than its {CONFIG_FILE} says: the two files are of "
                "different adapters"
            )

    def tensor(self, key: str) -> Tensor:
        """One tensor, as float32 on the CPU; see `read_tensor`."""
        return read_tensor(self._handle, key, self.file)

    def factors(self, module: str, groups: tuple[str, ...]) -> Factors:
        """The factors of one adapted linear, over `groups` in their order."""
        side = {"A": 0, "B": 1, "R": 0, "b": 0}
        return Factors(
            **{x: torch.cat([self.tensor(factor_key(module, x, g)) for g in groups], dim=side[x]) for x in LETTERS}
        )

    def sha256(self) -> str:
        """The hash of the file of tensors."""
        with self.file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def read_tensor(handle: Any, key: str, file: Path) -> Tensor:
    """One tensor of an adapter's open file, as float32 on the CPU.

    Raises:
        RecfoundError: one of its values is not a number, or infinite.
    """
    tensor: Tensor = handle.get_tensor(key).float()
    # The extremes are NaN or infinite if any value is; they are found at the speed of memory.
    if not all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor)):
        raise RecfoundError(f"{file}: {key} holds NaN or infinite values: its training diverged, or it is damaged")
    return tensor


@contextmanager
def open_adapter(source: str | Path, revision: str | None = None) -> Iterator[AdapterReader]:
    """Opens an adapter of a local folder or of a repository on the Hub.

    Raises:
        RecfoundError: a file is missing or damaged, or configuration and tensors do not belong together.
    """
    config = TmoleConfig.from_pretrained(source, revision)
    file = fetch(source, TENSOR_FILE, revision)
    try:
        with safe_open(file, framework="pt") as handle:
            yield AdapterReader(config, file, handle)
    except SafetensorError as error:
        raise RecfoundError(f"{file} is damaged or incomplete ({error}): fetch or train it again") from error


def check_tensors(what: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Do two sets of tensors have the same names and shapes?

    Raises:
        RecfoundError: they do not; names the first few that differ.
    """
    _check_keys(what, {k: tuple(t.shape) for k, t in expected.items()}, {k: tuple(t.shape) for k, t in found.items()})


def _check_keys(
    what: str, expected: Mapping[str, tuple[int | None, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    faults = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "of another shape": [
            f"{key} {found[key]} instead of {shape}"
            for key, shape in sorted(expected.items(), key=lambda item: item[0])
            if key in found and not _fits(found[key], shape)
        ],
    }
    lines = [f"{len(keys)} {fault}: {', '.join(keys[:3])}" for fault, keys in faults.items() if keys]
    if lines:
        raise RecfoundError(f"{what} does not fit: tensors " + "; ".join(lines))


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(have > 0 and want in (None, have) for have, want in pairs)


def fingerprint(tensors: Mapping[str, Tensor], descends_from: str | None = None) -> str:
    """SHA-256 over names, shapes and values of tensors, in the order of their names, and an earlier fingerprint."""
    digest = hashlib.sha256((descends_from or "").encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().float().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: tuple[str, str] = ("format", "pt")) -> None:
    """Writes a safetensors file whose bytes depend on names, values and metadata only.

    Args:
        tensors: what to write.
        file: where to.
        metadata: one key and its value, since safetensors does not order several.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    plain, seen = {}, set()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        # safetensors refuses tensors that share memory; only those are copied.
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        plain[key] = tensor
    try:
        save_file(plain, file, metadata=dict([metadata]))
    except SafetensorError as error:
        # safetensors wraps what the operating system says.
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(file)) from error


def write_adapter(
    out: str | Path, config: TmoleConfig, tensors: Mapping[str, Tensor], training: Training | None = None
) -> None:
    """Writes the folder of an adapter, whole or not at all; `training` says where it comes from.

    Raises:
        RecfoundError: `out` is in the way; see `write_folder`.
    """
    with write_folder(out) as folder:
        config.save_pretrained(folder)
        origin = config.initialization
        save_tensors(tensors, folder / TENSOR_FILE, ("format", "pt") if origin is None else (INITIALIZATION, origin))
        if training is not None:
            training.write(folder)
        (folder / "README.md").write_text(adapter_card(config, training), encoding="utf-8")
