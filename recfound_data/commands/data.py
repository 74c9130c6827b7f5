"""`recfound data ...`: corpora to dataset."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from recfound_data.commands import command, notes_of, plain, positive, release_options, show_release
from recfound_data.errors import UsageError


def add_data_commands(data: Any) -> None:
    """Add the commands of the group `data`."""
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
    download = command(data, "download", _download, "fetch corpora from their official addresses", _show_download)
    download.add_argument("corpora", nargs="*", metavar="CORPUS[/VERSION]")
    where = download.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="DIR", help="folder to write, with a folder a release")
    where.add_argument("--list", action="store_true", help="say what there is, where, and what is known of it")
    build = command(data, "build", _build, "build the dataset that a recipe describes", _show_build)
    build.add_argument("recipe", metavar="RECIPE.yaml")
    build.add_argument("--out", required=True, help="folder to write; an earlier dataset there is replaced")
    build.add_argument("--executor", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster")
    build.add_argument(
        "--workers",
        type=positive,
        help="units at once; the result does not depend on it (default: 1, with ray the cluster's CPUs)",
    )
    build.add_argument("--strict", action="store_true", help="stop at the first line that cannot be parsed")
    check = command(data, "check", _check, "verify schema, hashes, leakage and people of a dataset", _show_check)
    check.add_argument("path", metavar="DIR")
    describe = command(
        data, "describe", _describe, "count rows, lengths, labels, popularity and drops of a dataset", _show_description
    )
    describe.add_argument("path", metavar="DIR")
    describe.add_argument("--plots", metavar="DIR", help="draw them as PNG files in this folder")
    annotate = command(data, "annotate", _annotate, "have a model write the profiles of a dataset", _show_annotation)
    annotate.add_argument("path", metavar="DIR")
    annotate.add_argument(
        "--endpoint", required=True, metavar="URL", help="OpenAI-compatible API, as in http://127.0.0.1:8000/v1"
    )
    annotate.add_argument("--model", required=True, metavar="NAME", help="as the server knows it")
    annotate.add_argument("--out", metavar="DIR", help="folder to write (default: in place of the dataset)")
    annotate.add_argument(
        "--task", action="extend", nargs="+", default=[], metavar="NAME", help="user_profile, item_profile"
    )
    annotate.add_argument("--limit", type=positive, metavar="N", help="label at most so many samples")
    annotate.add_argument("--concurrency", type=positive, default=8, help="requests at once (default: %(default)s)")
    annotate.add_argument("--budget-tokens", type=int, metavar="N", help="spend at most so many tokens")
    annotate.add_argument("--budget", type=float, metavar="AMOUNT", help="spend at most so much, by the prices")
    annotate.add_argument("--price-in", type=float, metavar="P", help="of a million tokens of prompts")
    annotate.add_argument("--price-out", type=float, metavar="P", help="of a million tokens of answers")
    annotate.add_argument(
        "--answer-tokens",
        type=positive,
        default=400,
        metavar="N",
        help="most tokens of an answer (default: %(default)s)",
    )
    annotate.add_argument("--temperature", type=float, help="of the sampling (default: the server's)")
    annotate.add_argument("--timeout", type=float, default=300.0, help="seconds for one request (default: %(default)s)")
    annotate.add_argument("--answers", metavar="FILE", help="where answers are kept (default: OUT.answers.jsonl)")
    annotate.add_argument("--dry-run", action="store_true", help="estimate tokens and cost, and ask nothing")
    select = command(data, "select", _select, "keep so many training samples a task", _show_selection)
    select.add_argument("path", metavar="DIR")
    select.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    select.add_argument(
        "--per-task",
        action="extend",
        nargs="+",
        required=True,
        metavar="N|TASK=N",
        help="training samples of every task, and of single ones",
    )
    select.add_argument(
        "--by",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME[:END]",
        help="deduplicate, length, compression, perplexity; END is low, middle or high (default: deduplicate)",
    )
    select.add_argument("--model", metavar="NAME", help="causal language model for perplexity")
    select.add_argument("--revision", metavar="REV", help="of that model on the Hub")
    select.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    push = command(data, "push", _push_data, "release a dataset on the Hub", show_release)
    release_options(push)
    push.add_argument(
        "--allow-corpus",
        action="append",
        default=[],
        metavar="NAME",
        help="publish this corpus although its terms may not allow it",
    )


def _generate(options: argparse.Namespace) -> Any:
    from recfound_data.shop import DEFAULT, generate

    return generate(options.out, options.reviews, options.seed, options.formats or DEFAULT)


def _build(options: argparse.Namespace) -> Any:
    from recfound_data.build import build

    return build(options.recipe, options.out, workers=options.workers, executor=options.executor, strict=options.strict)


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


def _select(options: argparse.Namespace) -> Any:
    from recfound_data.selecting import budgets, select

    return select(
        options.path,
        options.out,
        per_task=budgets(options.path, options.per_task),
        by=tuple(options.by) or ("deduplicate",),
        model=options.model,
        revision=options.revision,
        seed=options.seed,
    )


def _show_selection(done: Any) -> str:
    lines = [f"{task}: {kept:,} of {done.before[task]:,} training samples" for task, kept in done.kept.items()]
    return "\n".join([*lines, str(done.path)])


def _push_data(options: argparse.Namespace) -> Any:
    from recfound_data.publish import push_dataset

    return push_dataset(
        options.path,
        options.repo,
        options.version,
        notes=notes_of(options.notes),
        private=options.private,
        dry_run=options.dry_run,
        allow_corpora=tuple(options.allow_corpus),
    )


def _show_shop(summary: Any) -> str:
    facts = [
        f"{value:,} {key.replace('_', ' ')}"
        for key, value in plain(summary).items()
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


def _annotate(options: argparse.Namespace) -> Any:
    from recfound_data.annotating import Asking, Spending, annotate
    from recfound_data.annotating.asking import TASKS

    asking = Asking(
        options.endpoint,
        options.model,
        concurrency=options.concurrency,
        answer_tokens=options.answer_tokens,
        temperature=options.temperature,
        timeout=options.timeout,
    )
    return annotate(
        options.path,
        asking,
        out=options.out,
        tasks=tuple(options.task) or TASKS,
        spending=Spending(options.budget_tokens, options.budget, options.price_in, options.price_out),
        limit=options.limit,
        answers=options.answers,
        dry_run=options.dry_run,
    )


def _download(options: argparse.Namespace) -> Any:
    from recfound_data.downloading import download, listed

    if options.list:
        return {"files": listed(options.corpora)}
    if not options.corpora:
        raise UsageError(
            "name what to download, as in movielens/ml-1m; `recfound data download --list` says what there is"
        )
    return download(options.corpora, options.out)


def _show_annotation(done: Any) -> str:
    if done.dry_run:
        return str(done.estimate)
    lines = [
        f"{task}: " + ", ".join(f"{rows:,} {split}" for split, rows in splits.items())
        for task, splits in done.labelled.items()
    ]
    for task, kept in done.kept.items():
        lines += [f"{task}: {rows:,} keep their composed label: {reason}" for reason, rows in kept.items()]
    cost = "" if done.cost is None else f", {done.cost:,.2f}"
    spent = f"{done.tokens_in:,} tokens of prompts, {done.tokens_out:,} of answers{cost}"
    return "\n".join([*lines, spent, str(done.path)])


def _show_download(done: Any) -> str:
    if isinstance(done, dict):
        return "\n".join(_listed(file) for file in done["files"])
    lines = [f"{name}: no checksum is known, so it is not verified" for name in done.unverified]
    return "\n".join([*lines, f"# {done.path}: entries for a recipe in this folder", done.recipe.rstrip()])


def _listed(file: dict[str, Any]) -> str:
    if not file["address"]:
        return f"{file['name']}  by hand: {file['note']}  ({file['page']})"
    known = [kind for kind in ("sha256", "md5") if file[kind]] or ["no checksum"]
    size = f"{file['size']:,} bytes" if file["size"] else "size unknown"
    tried = f"tried {file['tried']}" if file["tried"] else "not tried"
    note = f"  ({file['note']})" if file["note"] else ""
    return f"{file['name']}  {file['address']}  {size}, {', '.join(known)}, {tried}{note}"
