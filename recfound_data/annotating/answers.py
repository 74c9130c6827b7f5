"""The file of answers: what was paid for is written down before it is used, and never asked for again.

A line a fact, appended: `asked` before a request leaves, with the most that it can cost; `answered` with the answer;
`unpaid` when the server refused to work on it. What was asked and has neither, because the connection or this process
died, may have been paid and counts as if it had cost the most. A line that a kill cut in two is dropped.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from recfound_data.annotating.asking import Question
from recfound_data.annotating.endpoint import Reply
from recfound_data.errors import RecfoundError, UsageError


@dataclass(frozen=True)
class Answer:
    """A model's answer: what it says, why it ended, and the tokens it cost, `most` of them where nobody told."""

    text: str
    finish: str
    tokens_in: int
    tokens_out: int


class Answers:
    """The answers by their question's key, kept in a file."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path, self._stream, self._lock = path, stream, threading.Lock()
        self._answers: dict[str, Answer] = {}
        self._open: Counter[tuple[str, int, int]] = Counter()
        for number, line in enumerate(stream.read().split(b"\n")[:-1], start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise RecfoundError(
                    f"{path}:{number}: is no line of an answers file; name another with --answers"
                ) from None

    def _take(self, line: dict[str, Any]) -> None:
        match line:
            case {"asked": str(key), "input": int(tokens_in), "output": int(tokens_out)}:
                self._open[key, tokens_in, tokens_out] += 1
            case {"answered": str(key), "text": str(text), "finish": str(finish), "input": int(), "output": int()}:
                self._close(key)
                self._answers[key] = Answer(text, finish, line["input"], line["output"])
            case {"unpaid": str(key)}:
                self._close(key)
            case _:
                raise ValueError(line)

    def _close(self, key: str) -> None:
        for entry in [entry for entry in self._open if entry[0] == key][-1:]:
            self._open[entry] -= 1
            self._open += Counter()

    def __contains__(self, key: object) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def spent(self) -> tuple[int, int]:
        """Return the tokens of prompts and of answers that were paid for, or may have been."""
        known = [(answer.tokens_in, answer.tokens_out) for answer in self._answers.values()]
        known += [(tokens_in * times, tokens_out * times) for (_, tokens_in, tokens_out), times in self._open.items()]
        return sum(tokens for tokens, _ in known), sum(tokens for _, tokens in known)

    def ask(self, question: Question) -> None:
        """Write down that a request is about to leave."""
        self._append({"asked": question.key, "input": question.most_input, "output": question.most_output})

    def unpaid(self, question: Question) -> None:
        """Write down that the server did no work on the request."""
        self._append({"unpaid": question.key})

    def keep(self, question: Question, reply: Reply) -> Answer:
        """Write down an answer, on the disk before this returns; return it with what it cost."""
        tokens_in = question.most_input if reply.tokens_in is None else reply.tokens_in
        tokens_out = question.most_output if reply.tokens_out is None else reply.tokens_out
        line = {"answered": question.key, "text": reply.text, "finish": reply.finish}
        self._append(line | {"input": tokens_in, "output": tokens_out}, durable=True)
        return self._answers[question.key]

    def _append(self, line: dict[str, Any], *, durable: bool = False) -> None:
        with self._lock:
            self._stream.write(json.dumps(line).encode() + b"\n")
            self._stream.flush()
            if durable:
                os.fsync(self._stream.fileno())
            self._take(line)


@contextmanager
def answers_file(path: Path) -> Iterator[Answers]:
    """Yield the answers in a file, which is made where there is none, and keep other processes from it.

    Raises:
        UsageError: another process uses it.
        RecfoundError: it cannot be written, or is something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=0), path.open("a+b") as stream:
            _drop_torn_line(stream)
            stream.seek(0)
            try:
                yield Answers(path, stream)
            finally:
                Path(f"{path}.lock").unlink(missing_ok=True)
    except Timeout:
        raise UsageError(f"{path}: another run is adding answers to it; wait for it or name another file") from None


def _drop_torn_line(stream: IO[bytes]) -> None:
    """Cut off what stands behind the last line end."""
    stream.seek(0)
    data = stream.read()
    stream.truncate(data.rfind(b"\n") + 1)
