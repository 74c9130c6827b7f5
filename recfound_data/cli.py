"""The command `recfound`: its groups, and how results and errors reach the person who typed it.

Results go to standard output, as one JSON object with `--json`; everything else goes to standard error. Exit codes: 0
done, 1 the work found a fault in what it was given, 2 the command line or a recipe is wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recfound_data.errors import RecfoundError, UsageError

Command = Callable[[argparse.Namespace], Any]


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
        print(json.dumps(_plain(result), ensure_ascii=False))
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
    _data_commands(data)
    model = groups.add_parser("model", help="dataset to model").add_subparsers(required=True, metavar="COMMAND")
    _model_commands(model)
    return top


def command(
    group: Any, name: str, run: Command, text: str, show: Callable[[Any], str | None]
) -> argparse.ArgumentParser:
    """Add a command to a group: `run` does it, `show` says its result to a person."""
    added: argparse.ArgumentParser = group.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.add_argument("--json", action="store_true", help="print the result as one JSON object")
    added.set_defaults(run=run, show=show)
    return added


def _data_commands(data: Any) -> None:
    generate = command(
        data, "generate", _generate, "write a synthetic shop in the corpora's own raw formats", _show_shop
    )
    generate.add_argument("--out", required=True, help="folder to write")
    generate.add_argument("--reviews", type=int, default=20_000, help="reviews to write (default: %(default)s)")
    generate.add_argument("--seed", type=int, default=0, help="seeds everything (default: %(default)s)")
    generate.add_argument(
        "--formats",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="corpora to write, or all (default: amazon_reviews_2018 movielens shopping_queries)",
    )
    build = command(data, "build", _build, "build the dataset that a recipe describes", _show_build)
    build.add_argument("recipe", metavar="RECIPE.yaml")
    build.add_argument("--out", required=True, help="folder to write; an earlier dataset there is replaced")
    build.add_argument("--workers", type=_positive, default=1, help="processes; the result does not depend on it")
    build.add_argument("--strict", action="store_true", help="stop at the first line that cannot be parsed")
    check = command(data, "check", _check, "verify schema, hashes, leakage and people of a dataset", _show_check)
    check.add_argument("path", metavar="DIR")
    describe = command(
        data, "describe", _describe, "count rows, lengths, labels, popularity and drops of a dataset", _show_description
    )
    describe.add_argument("path", metavar="DIR")
    describe.add_argument("--plots", metavar="DIR", help="draw them as PNG files in this folder")
    push = command(data, "push", _push_data, "release a dataset on the Hub", _show_release)
    _release_options(push)
    push.add_argument(
        "--allow-corpus",
        action="append",
        default=[],
        metavar="NAME",
        help="publish this corpus although its terms may not allow it",
    )


def _model_commands(model: Any) -> None:
    train = command(model, "train", _train, "train one adapter on all tasks of a dataset", _show_train)
    train.add_argument("recipe", metavar="RECIPE.yaml")
    train.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="key=value", help="override keys of the recipe"
    )
    train.add_argument("--resume", action="store_true", help="continue from the run's last checkpoint")
    plot = command(model, "plot", _plot, "draw the losses, shares and gates of a run", _show_paths)
    plot.add_argument("folder", metavar="RUN", help="folder of a run, finished or not")
    merge = command(model, "merge", _merge, "merge checkpoints of one run into one adapter", _show_path)
    merge.add_argument("adapters", nargs="+", metavar="ADAPTER")
    merge.add_argument("--method", default="linear", choices=("linear", "ties"), help="(default: %(default)s)")
    merge.add_argument("--space", default="factors", choices=("factors",), help="what is merged (default: %(default)s)")
    merge.add_argument("--weights", type=float, nargs="+", help="one for each adapter (default: equal)")
    merge.add_argument(
        "--density", type=float, default=0.8, help="share of changes that ties keeps (default: %(default)s)"
    )
    merge.add_argument("--base", help="adapter that ties measures changes from (default: step 0 of the adapters' run)")
    merge.add_argument("--out", required=True, help="folder to write")
    collapse = command(model, "collapse", _collapse, "write each task as one standard LoRA adapter", _show_paths)
    collapse.add_argument("adapter", metavar="ADAPTER")
    collapse.add_argument("--task", action="extend", nargs="+", default=[], metavar="NAME", help="only these tasks")
    collapse.add_argument("--out", required=True, help="folder to write, with a folder a task")
    export = command(model, "export", _export, "write merged models that stock libraries load", _show_paths)
    export.add_argument("adapter", metavar="ADAPTER")
    export.add_argument("--to", required=True, choices=("embedder", "generator"))
    export.add_argument("--layout", default="merged", choices=("merged",), help="(default: %(default)s)")
    export.add_argument(
        "--task", metavar="NAME", help="only this task, in DIR itself; otherwise a folder a task in DIR"
    )
    export.add_argument("--base", help="folder or repository of the base, if not where the adapter says")
    export.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights (default: the base's own)")
    export.add_argument("--out", required=True, help="folder to write")
    evaluate = command(
        model, "evaluate", _evaluate, "evaluate a model, or random or popularity, on a dataset", _show_evaluation
    )
    evaluate.add_argument("model", metavar="MODEL")
    evaluate.add_argument("--data", required=True, metavar="DIR|ORG/NAME")
    evaluate.add_argument("--task", action="extend", nargs="+", default=[], metavar="NAME", help="only these tasks")
    evaluate.add_argument("--protocol", default="full", choices=("full",), help="rank the whole catalogue")
    evaluate.add_argument("--split", default="test", choices=("validation", "test"))
    evaluate.add_argument("--revision", help="of the model's repository")
    evaluate.add_argument("--data-revision", help="of the dataset's repository")
    evaluate.add_argument("--compare", metavar="DIR", help="an earlier evaluation; report paired differences to it")
    evaluate.add_argument("--most", type=_positive, metavar="N", help="at most so many queries a task and corpus")
    evaluate.add_argument("--max-length", type=_positive, metavar="N", help="truncate texts at so many tokens")
    evaluate.add_argument("--out", help="folder for results and the scores of each query")
    push = command(model, "push", _push_model, "release an adapter, embedder or generator on the Hub", _show_release)
    _release_options(push)


def _release_options(push: argparse.ArgumentParser) -> None:
    push.add_argument("path", metavar="DIR")
    push.add_argument("--repo", required=True, metavar="ORG/NAME")
    push.add_argument("--version", required=True, metavar="X.Y.Z")
    push.add_argument("--private", action="store_true", help="create the repository as a private one")
    push.add_argument("--dry-run", action="store_true", help="say what would happen and change nothing")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _load_model_side() -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("peft") is None:
        raise UsageError("this command needs the model side; install it with: pip install 'recfound[model]'")
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()


def _demo(options: argparse.Namespace) -> Any:
    _load_model_side()
    from recfound_model.demo import demo

    return demo(options.out, options.seed)


def _generate(options: argparse.Namespace) -> Any:
    from recfound_data.shop import DEFAULT, generate

    return generate(options.out, options.reviews, options.seed, options.formats or DEFAULT)


def _build(options: argparse.Namespace) -> Any:
    from recfound_data.build import build

    return build(options.recipe, options.out, workers=options.workers, strict=options.strict)


def _check(options: argparse.Namespace) -> Any:
    from recfound_data.check import check

    return check(options.path)


def _describe(options: argparse.Namespace) -> Any:
    from recfound_data.describe import describe
    from recfound_data.plots import write_plots

    description = describe(options.path)
    if options.plots:
        for path in write_plots(description, Path(options.plots)):
            print(path, file=sys.stderr)
    return description


def _push_data(options: argparse.Namespace) -> Any:
    from recfound_data.publish import push_dataset

    return push_dataset(
        options.path,
        options.repo,
        options.version,
        private=options.private,
        dry_run=options.dry_run,
        allow_corpora=tuple(options.allow_corpus),
    )


def _train(options: argparse.Namespace) -> Any:
    _load_model_side()
    from recfound_model.training.loop import train
    from recfound_model.training.recipe import load_recipe

    return train(load_recipe(options.recipe, options.set), resume=options.resume)


def _plot(options: argparse.Namespace) -> Any:
    _load_model_side()
    from recfound_model.plots import plot_run

    return {"paths": [str(path) for path in plot_run(options.folder)]}


def _merge(options: argparse.Namespace) -> Any:
    _load_model_side()
    from recfound_model.merging import NEEDS_BASE, initial_adapter, merge_adapters

    base = options.base
    if base is None and NEEDS_BASE[options.method]:
        base = initial_adapter(options.adapters[0])
    merge_adapters(
        options.adapters,
        options.out,
        method=options.method,
        weights=options.weights,
        base=base,
        density=options.density,
    )
    return {"path": options.out}


def _collapse(options: argparse.Namespace) -> Any:
    _load_model_side()
    from recfound_model import TmoleConfig, collapse

    tasks = options.task or list(TmoleConfig.from_pretrained(options.adapter).kinds)
    for task in tasks:
        collapse(options.adapter, task, Path(options.out) / task)
    return {"paths": [str(Path(options.out) / task) for task in tasks]}


def _export(options: argparse.Namespace) -> Any:
    _load_model_side()
    from recfound_model import TmoleConfig, export_embedder, export_generator

    kind, write = ("embedding", export_embedder) if options.to == "embedder" else ("generative", export_generator)
    if options.task:
        folders = {options.task: Path(options.out)}
    else:
        kinds = TmoleConfig.from_pretrained(options.adapter).kinds
        folders = {task: Path(options.out) / task for task in kinds if kinds[task] == kind}
    if not folders:
        raise UsageError(f"{options.adapter}: has no {kind} task to export")
    for task, folder in folders.items():
        write(options.adapter, folder, task, base_model=options.base, dtype=options.dtype)
    return {"paths": [str(folder) for folder in folders.values()]}


def _evaluate(options: argparse.Namespace) -> Any:
    _load_model_side()
    from recfound_model.evaluation import evaluate

    return evaluate(
        options.model,
        options.data,
        options.out,
        tasks=options.task,
        split=options.split,
        revision=options.revision,
        data_revision=options.data_revision,
        compare=options.compare,
        most=options.most,
        max_length=options.max_length,
    )


def _push_model(options: argparse.Namespace) -> Any:
    _load_model_side()
    from recfound_model.publishing import push_model

    return push_model(options.path, options.repo, options.version, private=options.private, dry_run=options.dry_run)


def _show_demo(summary: Any) -> str:
    return str(summary)


def _show_shop(summary: Any) -> str:
    facts = [
        f"{value:,} {key.replace('_', ' ')}"
        for key, value in _plain(summary).items()
        if key != "seed" and isinstance(value, int)
    ]
    return f"{summary.out}: " + ", ".join(facts)


def _show_build(summary: Any) -> str:
    lines = [
        f"{config}: " + ", ".join(f"{rows:,} {split}" for split, rows in splits.items())
        for config, splits in summary.rows.items()
    ]
    dropped = sum(sum(reasons.values()) for reasons in summary.drops.values())
    return "\n".join([*lines, f"{dropped:,} left out, by reason in {summary.path}/recfound.json", str(summary.path)])


def _show_check(report: Any) -> str:
    if report.passed:
        return f"{report.path}: {report.rows:,} rows, nothing found"
    return "\n".join([*map(str, report.findings), f"{report.path}: {len(report.findings)} findings"])


def _show_description(description: Any) -> str:
    return str(description)


def _show_train(summary: Any) -> str:
    losses = ", ".join(f"{task} {loss:.3f}" for task, loss in summary.losses.items())
    best = "" if summary.best is None else f"\nbest: {summary.best}, validation losses {summary.score:.1%} of the first"
    return f"{summary.path}/adapter: {summary.steps:,} steps; last losses: {losses}{best}"


def _show_path(result: Any) -> str:
    return str(result["path"])


def _show_paths(result: Any) -> str:
    return "\n".join(result["paths"])


def _show_evaluation(evaluation: Any) -> str:
    from recfound_model.evaluation.evaluate import results_table

    return results_table({evaluation.model: evaluation}).rstrip("\n")


def _show_release(release: Any) -> str:
    from recfound_data.release import describe

    return describe(release)


def _plain(value: Any) -> Any:
    """Return `value` as what JSON can hold."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return fields | ({"passed": value.passed} if hasattr(value, "passed") else {})
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.exit(main())
