"""`recfound model ...`: dataset to model."""

from __future__ import annotations

import argparse
from typing import Any

from recfound_data.commands import (
    command,
    load_model_side,
    notes_of,
    positive,
    release_options,
    show_paths,
    show_release,
)


def add_model_commands(model: Any) -> None:
    """Add the commands of the group `model`."""
    train = command(model, "train", _train, "train one adapter on all tasks of a dataset", _show_train)
    train.add_argument("recipe", metavar="RECIPE.yaml")
    train.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="key=value", help="override keys of the recipe"
    )
    train.add_argument("--resume", action="store_true", help="continue from the run's last checkpoint")
    plot = command(model, "plot", _plot, "draw the losses, shares and gates of a run", show_paths)
    plot.add_argument("folder", metavar="RUN", help="folder of a run, finished or not")
    merge = command(model, "merge", _merge, "merge checkpoints of one run into one adapter", _show_merge)
    merge.add_argument("adapters", nargs="+", metavar="ADAPTER")
    merge.add_argument(
        "--method", default="linear", metavar="NAME", help="any method of mergekit, such as ties (default: %(default)s)"
    )
    merge.add_argument(
        "--space",
        default="factors",
        choices=("factors", "delta"),
        help="merge factors, or the products that they stand for (default: %(default)s)",
    )
    merge.add_argument("--rank", type=positive, metavar="N", help="of an expert of the result, in delta space")
    merge.add_argument("--weights", type=float, nargs="+", help="one for each adapter (default: equal)")
    merge.add_argument("--density", type=float, help="share of changes that ties and its kin keep (default: 0.8)")
    merge.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="another parameter of the method"
    )
    merge.add_argument("--base", help="adapter that changes are measured from (default: step 0 of the adapters' run)")
    merge.add_argument("--seed", type=int, default=0, help="of methods that draw values (default: %(default)s)")
    merge.add_argument("--workers", type=positive, metavar="N", help="threads; the result does not depend on them")
    merge.add_argument(
        "--select", choices=("validation",), help="merge only those that improve the validation losses of the tasks"
    )
    merge.add_argument("--data", metavar="DIR|ORG/NAME", help="dataset to select by (default: the run's)")
    merge.add_argument(
        "--samples", type=positive, default=64, help="validation samples of each task (default: %(default)s)"
    )
    merge.add_argument("--out", required=True, help="folder to write")
    collapse = command(model, "collapse", _collapse, "write each task as one standard LoRA adapter", show_paths)
    collapse.add_argument("adapter", metavar="ADAPTER")
    collapse.add_argument("--task", action="extend", nargs="+", default=[], metavar="NAME", help="only these tasks")
    collapse.add_argument(
        "--pad-rank", action="store_true", help="fill the rank up with zeros to the next that vLLM reserves memory for"
    )
    collapse.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of the tensors (default: %(default)s)"
    )
    collapse.add_argument("--out", required=True, help="folder to write, with a folder a task")
    export = command(model, "export", _export, "write models that stock libraries load, checked", _show_export)
    export.add_argument("adapter", metavar="ADAPTER")
    export.add_argument("--to", required=True, choices=("embedder", "generator"))
    export.add_argument(
        "--layout",
        default="merged",
        choices=("merged", "router", "adapters"),
        help="a model a task; one model with a decoder a task (embedders); the base with a LoRA folder a task "
        "(default: %(default)s)",
    )
    export.add_argument(
        "--task",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these tasks; merged, a single one is written to DIR itself, several to a folder each in DIR",
    )
    export.add_argument("--base", help="folder or repository of the base, if not where the adapter says")
    export.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights (default: the base's own)")
    export.add_argument(
        "--data",
        metavar="DIR|ORG/NAME",
        help="held-out texts to compare on (default: the dataset of the adapter's run, or else built-in texts)",
    )
    export.add_argument("--out", required=True, help="folder to write")
    evaluate = command(model, "evaluate", _evaluate, "evaluate a model or a baseline on a dataset", _show_evaluation)
    evaluate.add_argument(
        "model", metavar="MODEL", help="adapter, export or model, or random, popularity, cooccurrence or bm25"
    )
    evaluate.add_argument("--data", required=True, metavar="DIR|ORG/NAME")
    evaluate.add_argument("--task", action="extend", nargs="+", default=[], metavar="NAME", help="only these tasks")
    evaluate.add_argument(
        "--protocol",
        default="full",
        choices=("full", "sampled"),
        help="rank the whole catalogue, or one positive among 19 negatives (default: %(default)s)",
    )
    evaluate.add_argument(
        "--keep-known", action="store_true", help="known positives of other splits stay in the whole catalogue"
    )
    evaluate.add_argument("--split", default="test", choices=("validation", "test"))
    evaluate.add_argument("--revision", help="of the model's repository")
    evaluate.add_argument("--data-revision", help="of the dataset's repository")
    evaluate.add_argument("--compare", metavar="DIR", help="an earlier evaluation; report paired differences to it")
    evaluate.add_argument("--most", type=positive, metavar="N", help="at most so many queries a task and corpus")
    evaluate.add_argument(
        "--most-answers", type=positive, metavar="N", help="at most so many samples a generative task"
    )
    evaluate.add_argument("--max-length", type=positive, metavar="N", help="truncate texts at so many tokens")
    evaluate.add_argument("--bertscore-model", metavar="FOLDER", help="encoder for BERTScore of free text")
    evaluate.add_argument("--bertscore-layer", type=positive, metavar="N", help="its layer (default: the last)")
    evaluate.add_argument("--seed", type=int, default=0, help="of sampled negatives and of ties (default: %(default)s)")
    evaluate.add_argument("--out", help="folder for results, the scores of each query, and work that can be resumed")
    compare = command(
        model, "compare", _compare, "set evaluations of the same queries beside each other", _show_comparison
    )
    compare.add_argument("folders", nargs="+", metavar="DIR", help="folders of evaluations; the first against the rest")
    compare.add_argument("--out", help="folder for the comparison as JSON, Markdown and an HTML page")
    inspect = command(model, "inspect", _inspect, "look inside an adapter: gates, norms, embeddings", _show_inspection)
    inspect.add_argument("adapter", metavar="ADAPTER")
    inspect.add_argument("--data", metavar="DIR|ORG/NAME", help="dataset whose held-out texts are embedded")
    inspect.add_argument("--most", type=positive, metavar="N", help="texts a task and side (default: 512)")
    inspect.add_argument("--revision", help="of the adapter's repository")
    inspect.add_argument("--out", required=True, help="folder to write")
    push = command(model, "push", _push_model, "release an adapter, embedder or generator on the Hub", show_release)
    release_options(push)
    push.add_argument("--base", metavar="ORG/NAME@REV", help="of the base, where the folder names it otherwise")
    push.add_argument("--data", metavar="ORG/NAME@REV", help="of the dataset that it was trained on")
    push.add_argument("--adapter", metavar="ORG/NAME@REV", help="of the native adapter that it was exported from")
    push.add_argument(
        "--related", action="append", default=[], metavar="ORG/NAME", help="another repository of the same training"
    )
    push.add_argument("--evaluation", metavar="DIR", help="an evaluation of this model, for its card")


def _train(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model.training.loop import train
    from recfound_model.training.recipe import load_recipe

    return train(load_recipe(options.recipe, options.set), resume=options.resume)


def _plot(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model.plots import plot_run

    return {"paths": [str(path) for path in plot_run(options.folder)]}


def _merge(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model.merging import initial_adapter, merge_adapters
    from recfound_model.merging.methods import method_named, read_parameters

    base = options.base
    if base is None and method_named(options.method).base == "required":
        base = initial_adapter(options.adapters[0])
    return merge_adapters(
        options.adapters,
        options.out,
        options.method,
        weights=options.weights,
        base=base,
        density=options.density,
        space=options.space,
        rank=options.rank,
        parameters=read_parameters(options.parameter),
        seed=options.seed,
        workers=options.workers,
        select=options.select,
        data=options.data,
        samples=options.samples,
    )


def _collapse(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model.collapsing import collapse_all

    tasks = options.task or None
    folders = collapse_all(options.adapter, options.out, tasks, pad_rank=options.pad_rank, dtype=options.dtype)
    return {"paths": [str(folder) for folder in folders.values()]}


def _export(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model import export_embedder, export_generator

    write = export_embedder if options.to == "embedder" else export_generator
    return write(
        options.adapter,
        options.out,
        options.task[0] if len(options.task) == 1 else options.task,
        base_model=options.base,
        dtype=options.dtype,
        layout=options.layout,
        data=options.data,
    )


def _evaluate(options: argparse.Namespace) -> Any:
    load_model_side()
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
        protocol=options.protocol,
        keep_known=options.keep_known,
        most=options.most,
        most_answers=options.most_answers,
        max_length=options.max_length,
        bertscore_model=options.bertscore_model,
        bertscore_layer=options.bertscore_layer,
        seed=options.seed,
    )


def _compare(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model.evaluation import compare, write_comparison

    comparison = compare(options.folders)
    if options.out is not None:
        write_comparison(comparison, options.out)
    return comparison


def _inspect(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model.inspecting import inspect_adapter

    return inspect_adapter(options.adapter, options.out, options.data, most=options.most, revision=options.revision)


def _push_model(options: argparse.Namespace) -> Any:
    load_model_side()
    from recfound_model.publishing import push_model

    return push_model(
        options.path,
        options.repo,
        options.version,
        notes=notes_of(options.notes),
        base=options.base,
        data=options.data,
        adapter=options.adapter,
        related=tuple(options.related),
        evaluation=options.evaluation,
        private=options.private,
        dry_run=options.dry_run,
    )


def _show_train(summary: Any) -> str:
    losses = ", ".join(f"{task} {loss:.3f}" for task, loss in summary.losses.items())
    best = "" if summary.best is None else f"\nbest: {summary.best}, validation losses {summary.score:.1%} of the first"
    return f"{summary.path}/adapter: {summary.steps:,} steps; last losses: {losses}{best}"


def _show_merge(report: Any) -> str:
    return str(report)


def _show_export(report: Any) -> str:
    lines = []
    for task, parity in report.parity.items():
        figures = "; ".join(
            f"{computed}: " + ", ".join(f"{name} {value:g}" for name, value in found.items())
            for computed, found in parity.figures.items()
        )
        lines.append(f"{task}: as the adapter on {parity.texts} texts ({parity.source}); {figures}")
    return "\n".join([*lines, *map(str, report.paths)])


def _show_evaluation(evaluation: Any) -> str:
    from recfound_model.evaluation.results import shown

    return shown(evaluation).rstrip("\n")


def _show_comparison(comparison: Any) -> str:
    return str(comparison)


def _show_inspection(inspection: Any) -> str:
    return str(inspection)
