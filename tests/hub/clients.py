"""Clients of the hub in tests: in this process, and in processes that can be ended at any moment."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .server import LoopbackHub


def use_here(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, home: Path) -> list[float]:
    """Point this process at the hub, without Xet and this machine's login; return the waits, which take no time."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, time=time.time)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "no-token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr("recfound_data.release.hub.time", clock)
    return waits


class Client:
    """Runs functions in fresh processes that have the client's modules loaded; `kill` ends one as a power cut would."""

    def __init__(self, hub: LoopbackHub, home: Path, modules: tuple[str, ...]) -> None:
        command = [sys.executable, str(Path(__file__).with_name("forking.py")), *modules]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._server = subprocess.Popen(command, env=hub.environment(home), **pipes)
        self._send(sys.path)
        self._process = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(timeout=30)

    def run(self, function: Callable[..., Any], *arguments: object, **options: object) -> int:
        """Run it to its end, or to the process's; return the exit code: 1 after an error, -9 if it was killed."""
        self._send((function, arguments, options))
        self._process = pickle.load(self._server.stdout)
        return int(pickle.load(self._server.stdout))

    def kill(self) -> None:
        """End the process now, from any thread; it is gone when this returns."""
        process, until = self._process, time.monotonic() + 10
        os.kill(process, signal.SIGKILL)
        while time.monotonic() < until:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                return
            time.sleep(0.001)
        raise TimeoutError("the client does not end")

    def _send(self, content: object) -> None:
        pickle.dump(content, self._server.stdin)
        self._server.stdin.flush()
