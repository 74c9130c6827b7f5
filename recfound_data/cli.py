"""The command `recfound`: its groups, and how results and errors reach the person who typed it.

Results go to standard output, as one JSON object with `--json`; everything else goes to standard error. Exit codes: 0
done, 1 the work found a fault in what it was given, 2 the command line or a recipe is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from recfound_data.commands import command, load_model_side, plain
from recfound_data.commands.data import add_data_commands
from recfound_data.commands.model import add_model_commands
from recfound_data.errors import RecfoundError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        result = options.run(options)
    except RecfoundError as error:
        print(f"recfound: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("recfound: interrupted; nothing half-written was left as whole", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"recfound: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    if result is None:  # a process that another one speaks for
        return 0
    if options.json:
        print(json.dumps(plain(result), ensure_ascii=False))
    elif (text := options.show(result)) is not None:
        print(text)
    return int(getattr(result, "passed", True) is False)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    top = argparse.ArgumentParser(
        prog="recfound",
        description="Recommendation corpora to one dataset, the dataset to models for all of its tasks.",
    )
    top.add_argument("--version", action="version", version=f"recfound {version('recfound')}")
    groups = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = command(groups, "demo", _demo, "build, train, merge, export and evaluate, small and offline", _show_demo)
    demo.add_argument("--out", default="recfound-demo", help="folder to write (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="seeds everything (default: %(default)s)")
    data = groups.add_parser("data", help="corpora to dataset").add_subparsers(required=True, metavar="COMMAND")
    add_data_commands(data)
    model = groups.add_parser("model", help="dataset to model").add_subparsers(required=True, metavar="COMMAND")
    add_model_commands(model)
    return top


def _demo(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model.demo import demo

    return demo(options.out, options.seed)


def _show_demo(summary: Any) -> str:
    return str(summary)


if __name__ == "__main__":
    sys.exit(main())
