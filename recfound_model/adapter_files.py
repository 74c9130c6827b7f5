"""An adapter on disk: `adapter_config.json`, `adapter_model.safetensors`, `README.md`.

The tensors, with `<module>` the path of the adapted linear in the base model:

    <module>.tmole.A.<group>   [experts of the group * r, in]
    <module>.tmole.B.<group>   [out, experts of the group * r]
    <module>.tmole.R.<group>   [experts of the group, task_dim]
    <module>.tmole.b.<group>   [experts of the group]
    tmole.z.<task>             [task_dim]

A group without experts has no tensors. Everything is float32.
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_model.adapter_config import TmoleConfig
from recfound_model.folders import fetch, write_folder
from recfound_model.routing import GROUPS

TENSOR_FILE = "adapter_model.safetensors"
LETTERS = ("A", "B", "R", "b")


def factor_key(module: str, letter: str, group: str) -> str:
    """Key of one group's A, B, R or b of one adapted linear."""
    return f"{module}.tmole.{letter}.{group}"


def embedding_key(task: str) -> str:
    """Key of one task embedding."""
    return f"tmole.z.{task}"


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
        experts, r = self.config.experts, self.config.r
        expected: dict[str, tuple[int | None, ...]] = {
            embedding_key(t): (self.config.task_dim,) for t in self.config.kinds
        }
        for module in self.modules:
            for group in (g for g in GROUPS if experts[g]):
                expected[factor_key(module, "A", group)] = (experts[group] * r, None)
                expected[factor_key(module, "B", group)] = (None, experts[group] * r)
                expected[factor_key(module, "R", group)] = (experts[group], self.config.task_dim)
                expected[factor_key(module, "b", group)] = (experts[group],)
        shapes = {key: tuple(self._handle.get_slice(key).get_shape()) for key in self.keys}
        if not self.modules:
            raise RecfoundError(f"{self.file} holds no TMoLE tensors")
        _check_keys(str(self.file), expected, shapes)

    def tensor(self, key: str) -> Tensor:
        """One tensor, as float32 on the CPU."""
        tensor: Tensor = self._handle.get_tensor(key)
        return tensor.float()

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
    return len(shape) == len(expected) and all(want in (None, have) for have, want in zip(shape, expected, strict=True))


def fingerprint(tensors: Mapping[str, Tensor], descends_from: str | None = None) -> str:
    """SHA-256 over names, shapes and values of tensors, in the order of their names, and an earlier fingerprint."""
    digest = hashlib.sha256((descends_from or "").encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().float().contiguous()
        digest.update(f"{key} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Writes a safetensors file whose bytes depend on names and values only.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    # contiguous().clone(): safetensors refuses tensors that share memory.
    plain = {key: tensors[key].detach().cpu().contiguous().clone() for key in sorted(tensors)}
    # One key: safetensors does not order the keys of its metadata.
    try:
        save_file(plain, file, metadata={"format": "pt"})
    except SafetensorError as error:
        # safetensors wraps what the operating system says.
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(file)) from error


def write_adapter(out: str | Path, config: TmoleConfig, tensors: Mapping[str, Tensor]) -> None:
    """Writes the folder of an adapter, whole or not at all.

    Raises:
        RecfoundError: `out` is in the way; see `write_folder`.
    """
    with write_folder(out) as folder:
        config.save_pretrained(folder)
        save_tensors(tensors, folder / TENSOR_FILE)
        (folder / "README.md").write_text(_readme(config), encoding="utf-8")


def _readme(config: TmoleConfig) -> str:
    base = config.base_model_name_or_path or "a model that was built in memory"
    at = f" at revision `{config.revision}`" if config.revision else ""
    tasks = "\n".join(f"- `{task}` ({kind})" for task, kind in sorted(config.kinds.items()))
    return f"""---
library_name: recfound
tags: [tmole, recommendation]
---

# A RecFound adapter

A task-wise mixture of low-rank experts (TMoLE; RecFound, arXiv 2506.11999) for `{base}`{at}. One adapter, these tasks:

{tasks}

Open it with `recfound_model.load_tmole(base_model, folder)`. Stock PEFT and sentence-transformers cannot: they stop
with `KeyError: 'TMOLE'`. Turn it into something that they, transformers and serving engines load without this package:

    recfound model collapse ADAPTER --out DIR                  # one standard LoRA adapter a task
    recfound model export ADAPTER --to embedder --out DIR      # or --to generator: a merged model
"""
