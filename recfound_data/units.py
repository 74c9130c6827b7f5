"""Units of work: each writes a folder of its own, whole or not at all, so that a killed build goes on where it was."""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from recfound_data.errors import RecfoundError
from recfound_data.progress import Progress

DONE = "done.json"
Result = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Attributes:
        folder: where its result lies; a folder that is there is done.
        work: called with a folder to write in and `arguments`; what it returns, as JSON, is the unit's result.
        arguments: plain values that can go to another process.
        size: how much work it is, in any measure that the units of a stage share.
    """

    folder: Path
    work: Callable[..., Result]
    arguments: tuple[Any, ...]
    size: int = 1


class Executor(Protocol):
    """Where units are done that are not done yet."""

    def results(self, units: Sequence[Unit]) -> Iterator[tuple[int, Result]]:
        """Do all units and yield the place of each and its result, as they come.

        Raises:
            WorkerDiedError: a process or machine was lost, and its unit with it.
        """
        ...

    def close(self) -> None:
        """End what still runs."""
        ...


class Processes:
    """Runs units in this process, or in `workers` others on this machine."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def results(self, units: Sequence[Unit]) -> Iterator[tuple[int, Result]]:
        """Do all units and yield the place of each and its result, as they come.

        Raises:
            WorkerDiedError: a worker died.
        """
        if self._workers == 1:
            yield from ((number, do(unit)) for number, unit in enumerate(units))
            return
        if self._pool is None:
            # Spawned, not forked: polars keeps threads, and a fork would copy their locks.
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
            )
        running: dict[Future[Result], int] = {self._pool.submit(do, units[at]): at for at in largest_first(units)}
        try:
            while running:
                ready, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            raise WorkerDiedError(
                "a worker died, most likely for want of memory; run the same command again, with fewer --workers: "
                "it goes on where this one stopped"
            ) from None

    def close(self) -> None:
        """End the processes when what they do is done."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def largest_first(units: Sequence[Unit]) -> list[int]:
    """Return the units' places in the order to start them: the last unit to finish decides when a stage does."""
    return sorted(range(len(units)), key=lambda number: -units[number].size)


class Stage(AbstractContextManager["Stage"]):
    """Runs units where an executor does; it and the number of its workers change the time and nothing else."""

    def __init__(self, executor: Executor, quiet: bool = False) -> None:
        self._executor, self._quiet = executor, quiet

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.close()

    def run(self, what: str, units: Sequence[Unit], rows: str = "rows") -> list[Result]:
        """Return the units' results in their order, doing those that are not done yet.

        Raises:
            RecfoundError: a worker died.
        """
        started, done = time.monotonic(), 0
        total = sum(unit.size for unit in units)
        results: dict[int, Result] = {}
        with Progress(what, total) if not self._quiet and total else _Silent() as progress:
            for number, result in self._results(units):
                results[number] = result
                done += int(result.get("rows", 0))
                rate = done / max(time.monotonic() - started, 1e-9)
                progress.advance(units[number].size, {rows: f"{done:,}", f"{rows}/s": f"{rate:,.0f}"})
        return [results[number] for number in range(len(units))]

    def _results(self, units: Sequence[Unit]) -> Iterator[tuple[int, Result]]:
        todo = []
        for number, unit in enumerate(units):
            result = finished(unit.folder)
            if result is None:
                todo.append(number)
            else:
                yield number, result
        if todo:
            for place, result in self._executor.results([units[number] for number in todo]):
                yield todo[place], result


class StoppedError(RecfoundError):
    """A build stopped for a reason that is not in what it was given; what it finished is kept."""


class WorkerDiedError(StoppedError):
    """A worker ended without a result."""


class _Silent(AbstractContextManager["_Silent"]):
    def advance(self, count: int = 1, facts: object = None) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def finished(folder: Path) -> Result | None:
    """Return the result of a unit that is done, or None."""
    try:
        result = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    assert isinstance(result, dict), "a unit's result is a dictionary"
    return result


def do(unit: Unit) -> Result:
    """Do a unit here and return its result."""
    # A name of its own for every attempt: one that outlives its build, or that another machine was given again when
    # it seemed lost, writes into no other's folder.
    partial = unit.folder.with_name(f"{_partial(unit)}{uuid.uuid4().hex[:12]}")
    partial.mkdir(parents=True)
    result = unit.work(partial, *unit.arguments)
    (partial / DONE).write_text(json.dumps(result), encoding="utf-8")
    try:
        partial.rename(unit.folder)
    except OSError:
        if finished(unit.folder) is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)  # that other worker was first, with the same bytes
    return result


def clear_attempts(unit: Unit) -> None:
    """Remove what lost attempts left of a unit that is done; one that still runs fails, and nobody waits for it."""
    for partial in unit.folder.parent.glob(f"{glob.escape(_partial(unit))}*"):
        shutil.rmtree(partial, ignore_errors=True)


def _partial(unit: Unit) -> str:
    return f".{unit.folder.name}.partial-"


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone, however it went, and in silence when interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"

    def watch() -> None:
        wait_for_any([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Return the sums of counts by name, without those that are nothing."""
    sums: dict[str, int] = {}
    for part in counts:
        for name, count in part.items():
            sums[name] = sums.get(name, 0) + count
    return {name: count for name, count in sums.items() if count}
