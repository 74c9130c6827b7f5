"""The work folder of an evaluation: vectors and answers that are already there are never computed again.

Files only grow, a batch at a time, vectors before their keys: what a kill tears off at the end is cut when they are
next opened. Everything is kept under the fingerprint of the model, which changes with its weights, tokenizer, prompts
and limits; within it, texts are told apart by their content and by what routes them (prompt, and task where the
model has weights of its own for each), so that tasks that encode alike share.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from recfound_data.errors import RecfoundError
from recfound_data.progress import Progress
from recfound_model.evaluation.models import LanguageModel, Model, StockEmbedder, adapter_prompt_name

WORK = "work"
_KEY_BYTES = 16
_TEXTS_AT_ONCE = 512
_FORMAT = 1


class NotFiniteError(RecfoundError):
    """What a model gives is no number."""

    def __init__(self) -> None:
        super().__init__("its scores are not finite; its weights are damaged, or its training diverged")


class Timer:
    """Counts seconds from its making."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._begun


@contextmanager
def working(folder: Path) -> Iterator[Path]:
    """Make a work folder this process's own, and yield it.

    Raises:
        RecfoundError: another process works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            yield folder
    except Timeout:
        raise RecfoundError(
            f"{folder}: another evaluation is writing here; wait for it, or name another --out"
        ) from None


def fingerprint(model: Model) -> str:
    """Return a name for everything about a model that its outputs depend on."""
    digest = hashlib.sha256(f"{_FORMAT} {type(model).__name__} {model.model}".encode())
    inner = model.model
    for name, tensor in sorted(inner.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            digest.update(memoryview(flat.view(torch.uint8).numpy()))
    tokenizer = model.tokenizer if isinstance(model, LanguageModel) else inner.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest.update(str(backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())).encode())
    facts: dict[str, Any] = {"template": tokenizer.chat_template}
    if isinstance(model, LanguageModel):
        facts |= {"length": model.max_length, "config": inner.config.to_dict()}
        facts["adapter"] = inner.tmole_config.to_dict() if model.native else None
    else:
        facts |= {"length": inner.max_seq_length, "prompts": inner.prompts, "config": _configs(inner)}
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]


def _configs(module: torch.nn.Module) -> list[Any]:
    return [part.config.to_dict() for part in module.modules() if isinstance(part, PreTrainedModel)]


def routing(model: Model, task: str, side: str) -> str:
    """Return what apart from a text decides on its vector: tasks and sides with the same routing share vectors."""
    if isinstance(model, StockEmbedder):
        if model.layout == "merged":
            name = side if side in model.model.prompts else None
            return f"prompt {model.model.prompts.get(name, '') if name else ''}"
        prompt = side if model.layout == "router" else adapter_prompt_name(model.model.prompts, task, side)
        return f"task {task} prompt {prompt}"
    own = f"task {task} " if model.native or model.switches else ""
    return f"{own}prompt {model.prompts(task)[side]}"


class VectorStore:
    """Vectors of texts on disk, appended in batches.

    `vectors.f32` holds a row of float32 for each of the keys in `keys.bin`, in the same order.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._vectors, self._keys, self._width = folder / "vectors.f32", folder / "keys.bin", folder / "width.json"
        self.places: dict[bytes, int] = {}
        self.width = 0
        if self._width.exists():
            self.width = int(json.loads(self._width.read_text(encoding="utf-8")))
            self._read()

    def _read(self) -> None:
        row = 4 * self.width
        for path in (self._vectors, self._keys):
            path.touch()
        rows = min(self._vectors.stat().st_size // row, self._keys.stat().st_size // _KEY_BYTES)
        os.truncate(self._vectors, rows * row)
        os.truncate(self._keys, rows * _KEY_BYTES)
        keys = self._keys.read_bytes()
        self.places = {keys[at * _KEY_BYTES : (at + 1) * _KEY_BYTES]: at for at in range(rows)}

    def append(self, keys: Sequence[bytes], vectors: Tensor) -> None:
        """Add vectors [keys, width]."""
        if not self.width:
            self.width = vectors.shape[1]
            written = self._width.with_suffix(".partial")
            written.write_text(json.dumps(self.width), encoding="utf-8")
            written.replace(self._width)
        for path, content in (
            (self._vectors, np.ascontiguousarray(vectors.numpy(), np.float32).tobytes()),
            (self._keys, b"".join(keys)),
        ):
            with path.open("ab") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        self.places |= {key: len(self.places) + at for at, key in enumerate(keys)}

    def mapped(self) -> NDArray[np.float32]:
        """Return all vectors [keys, width], read from the disk as they are looked at."""
        return np.memmap(self._vectors, np.float32, "r", shape=(len(self.places), self.width))


@dataclass
class Spent:
    """What was computed rather than found: texts encoded, prompts answered, and the seconds that they took."""

    texts: int = 0
    text_seconds: float = 0.0
    prompts: int = 0
    prompt_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return counts, seconds and rates."""
        rates = {}
        if self.text_seconds:
            rates["texts_per_second"] = round(self.texts / self.text_seconds, 2)
        if self.prompt_seconds:
            rates["prompts_per_second"] = round(self.prompts / self.prompt_seconds, 2)
        return {key: round(value, 2) for key, value in asdict(self).items()} | rates


class Vectors:
    """The vectors of a list of texts, in its order, taken block by block from a store."""

    def __init__(self, store: VectorStore, keys: Sequence[bytes]) -> None:
        self._mapped = store.mapped()
        self._rows = np.array([store.places[key] for key in keys], np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def block(self, first: int, count: int) -> Tensor:
        """Return the vectors [at most count, width] from place `first` on."""
        return torch.from_numpy(self._mapped[self._rows[first : first + count]])


def text_key(text: str) -> bytes:
    """Return the key of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]


def encoded(folder: Path, model: Model, task: str, side: str, texts: Sequence[str], spent: Spent) -> Vectors:
    """Return the vectors of texts; those that the folder lacks are encoded, the longest first, and stay in it.

    Args:
        folder: of this model's work.
        model: encodes.
        task: the task.
        side: `query` or `document`.
        texts: in any order, some perhaps equal.
        spent: is added to.

    Raises:
        NotFiniteError: a vector is not.
    """
    route = hashlib.sha256(routing(model, task, side).encode()).hexdigest()[:16]
    store = VectorStore(folder / "vectors" / route)
    keys = [text_key(text) for text in texts]
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in store.places}
    order = sorted(missing, key=lambda key: -len(missing[key]))
    timer = Timer()
    with Progress(f"{task}, {side} texts", len(order)) as progress:
        for first in range(0, len(order), _TEXTS_AT_ONCE):
            part = order[first : first + _TEXTS_AT_ONCE]
            vectors = model.encode(task, side, [missing[key] for key in part])
            if not torch.isfinite(vectors).all():
                raise NotFiniteError
            store.append(part, vectors)
            progress.advance(len(part))
    spent.texts += len(order)
    spent.text_seconds += timer.seconds
    return Vectors(store, keys)


class AnswerStore:
    """Answers of a model on disk, a JSON line each, by key."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._path = path
        self.found: dict[str, dict[str, Any]] = {}
        whole = 0
        with path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                row = json.loads(line)
                self.found[row.pop("key")] = row
                whole += len(line)
        os.truncate(path, whole)

    def append(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Add answers by key."""
        rows = list(rows)
        lines = "".join(json.dumps({"key": key, **row}, ensure_ascii=True) + "\n" for key, row in rows)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
        self.found |= dict(rows)
