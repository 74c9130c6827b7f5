"""Runs a command and watches it: wall and processor time, anonymous memory over all of its processes, what it says."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

INTERVAL = 0.2
_SESSION = 3  # its place in /proc/PID/stat after the command's name


@dataclass(frozen=True)
class Line:
    """What a command printed on standard error, and how many seconds after its start."""

    at: float
    text: str


@dataclass(frozen=True)
class Watched:
    """How a command ran.

    Attributes:
        code: its exit code; negative where a signal ended it.
        timed_out: whether it was ended because it took too long.
        seconds: wall time.
        cpu_seconds: user and system time of all processes that were waited for.
        peak_anonymous: largest sum of RssAnon over its processes, in bytes; pages that two of them share count twice.
        peak_at: seconds after the start when that was seen.
        most_processes: how many processes there were at once.
        output: what it printed on standard output.
        lines: what it printed on standard error.
    """

    code: int
    timed_out: bool
    seconds: float
    cpu_seconds: float
    peak_anonymous: int
    peak_at: float
    most_processes: int
    output: str
    lines: list[Line] = field(default_factory=list)


def watch(command: Sequence[str], environment: Mapping[str, str], limit: float) -> Watched:
    """Run a command in a session of its own, sampling its memory every 0.2 s, and end it after `limit` seconds."""
    started = time.monotonic()
    process = subprocess.Popen(  # noqa: S603  (the benchmark's own commands)
        command,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[Line] = []
    output: list[str] = []
    readers = [
        threading.Thread(target=_read, args=(process.stderr, lines, started), daemon=True),
        threading.Thread(target=lambda stream: output.append(stream.read()), args=(process.stdout,), daemon=True),
    ]
    for reader in readers:
        reader.start()
    peak, peak_at, most, timed_out = 0, 0.0, 0, False
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            break
        sizes = [anonymous_bytes(pid) for pid in session_processes(process.pid)]
        if sum(sizes) > peak:
            peak, peak_at = sum(sizes), time.monotonic() - started
        most = max(most, len(sizes))
        if time.monotonic() - started > limit and not timed_out:
            timed_out = True
            _end(process.pid)
        time.sleep(INTERVAL)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    for reader in readers:
        reader.join(timeout=5)
    return Watched(
        code=process.returncode,
        timed_out=timed_out,
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_anonymous=peak,
        peak_at=peak_at,
        most_processes=most,
        output="".join(output),
        lines=lines,
    )


def session_processes(session: int) -> list[int]:
    """Return the processes of a session: a command that leads one, and all that it started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The command's name is in brackets and may hold anything.
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[_SESSION]) == session:
                found.append(int(entry.name))
    return found


def anonymous_bytes(pid: int) -> int:
    """Return a process's RssAnon in bytes, 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(stream: IO[str], lines: list[Line], started: float) -> None:
    for line in stream:
        lines.append(Line(time.monotonic() - started, line.rstrip()))


def _end(session: int) -> None:
    for pid in session_processes(session):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue
