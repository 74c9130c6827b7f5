"""A server of processes: loads modules once, then runs each function that it is sent in a fork of itself.

Standard input and output carry pickles: a function with arguments in; the process's id, then its exit code, out.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import traceback
from typing import Any


def serve(modules: list[str]) -> None:
    """Run what comes until standard input ends."""
    wire, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the functions print
    sys.path[:0] = pickle.load(wire)
    for module in modules:
        importlib.import_module(module)
    while True:
        try:
            function, arguments, options = pickle.load(wire)
        except EOFError:
            return
        process = os.fork()
        if process == 0:
            os._exit(_run(function, arguments, options))
        _tell(out, process)
        _tell(out, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def _tell(out: Any, answer: int) -> None:
    pickle.dump(answer, out)
    out.flush()


def _run(function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> int:
    try:
        function(*arguments, **options)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve(sys.argv[1:])
