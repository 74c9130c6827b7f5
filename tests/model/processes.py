"""Runs scripts in one or more processes on this machine, as a launcher does, with gloo."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import torch

_SEEN = 240


def launch(script: str, arguments: list[str], processes: int = 1, threads: int = 1) -> tuple[list[int], str]:
    """Return the exit codes of all processes and what they said; when one dies by a signal, so do the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"OMP_NUM_THREADS": str(threads)}
    if torch.accelerator.is_available():  # where there is none, training must find out by itself
        shared["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script, *arguments],
            env={**os.environ, **shared} | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    said = []
    for process in started:
        said.append(process.communicate(timeout=_SEEN)[0])
        if process.returncode < 0:
            for other in started:
                other.send_signal(signal.SIGKILL)
    return [process.returncode for process in started], "\n".join(said)
