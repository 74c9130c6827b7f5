"""How fast `recfound data build` is and what memory it takes, beside the same conversion written the usual way.

    python benchmarks/build_speed.py --sizes 1000000 10000000 --workers 2 --out /tmp/build-speed

Every size is a synthetic shop in Amazon Reviews 2023 format, generated first (apart, not counted) and kept for the next
run. A recipe of user2item, item2item, sequential_recommendation, sentiment_analysis and product_relation_prediction
is then built by the command line in a process of its own, and `usual_way.py` converts the same files. Writes
`report.json` and `report.md` into the folder and prints the latter.
"""

import argparse
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from watching import Line, Watched, watch

TASKS = (
    "user2item",
    "item2item",
    "sequential_recommendation",
    "sentiment_analysis",
    "product_relation_prediction",
)
_RECIPE = """\
seed: 0
corpora:
  - {{corpus: amazon_reviews_2023, name: shop, domain: Shop, reviews: {reviews}, metadata: {metadata}}}
tasks: [{tasks}]
"""
_KEY = "a key for benchmarks"
_STAGE = re.compile(r"^(?P<name>[^:]+): (?P<done>[\d,]+)/(?P<total>[\d,]+), ")
_HERE = Path(__file__).resolve().parent
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Raw:
    """A shop's raw files, and how long it took to write them: None where an earlier run did."""

    reviews: Path
    metadata: Path
    seconds: float | None


@dataclass(frozen=True)
class Run:
    """One conversion of one size.

    Attributes:
        size: reviews in the raw file.
        way: `recfound` or `usual`.
        seconds: wall time of the whole process.
        reviews_per_second: by wall time.
        cpu_seconds: over all processes.
        peak_anonymous: bytes of RssAnon, summed over all processes at one moment.
        peak_at: when that was, in seconds after the start.
        processes: at most at once.
        samples: of each task.
        stages: how far and when each stage of the build was, as it said.
        failed: why there is no result, or an empty text.
    """

    size: int
    way: str
    seconds: float
    reviews_per_second: float
    cpu_seconds: float
    peak_anonymous: int
    peak_at: float
    processes: int
    samples: dict[str, int]
    stages: list[dict[str, Any]] = field(default_factory=list)
    failed: str = ""


def machine() -> dict[str, str]:
    """Return what the figures depend on besides the code."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / (1 << 20):.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    return facts | {name: version(name) for name in ("recfound", "polars", "pyarrow", "datasets", "pandas")}


def raw_files(folder: Path, size: int) -> Raw:
    """Return the raw files of a shop of `size` reviews; they are written once and kept."""
    shop = folder / f"shop-{size}"
    corpus = shop / "amazon_reviews_2023"
    seconds = None
    if not shop.exists():
        command = [*_recfound("generate"), "--out", str(shop), "--reviews", str(size)]
        done = watch([*command, "--formats", "amazon_reviews_2023"], os.environ, limit=3_600)
        if done.code:
            raise SystemExit("\n".join(line.text for line in done.lines))
        seconds = done.seconds
    raw = Raw(corpus / "Shop.jsonl.gz", corpus / "meta_Shop.jsonl.gz", seconds)
    # Both ways find the files in memory, so that neither pays for the disk.
    for path in (raw.reviews, raw.metadata):
        with path.open("rb") as file:
            while file.read(16 * _MEGABYTE):
                pass
    return raw


def build(folder: Path, raw: Raw, size: int, workers: int, limit: float) -> Run:
    """Build the dataset of a shop with `recfound data build`."""
    recipe, out = folder / f"recipe-{size}.yaml", folder / f"dataset-{size}"
    recipe.write_text(
        _RECIPE.format(reviews=raw.reviews, metadata=raw.metadata, tasks=", ".join(TASKS)), encoding="utf-8"
    )
    _remove(out)
    command = [*_recfound("build"), str(recipe), "--out", str(out), "--workers", str(workers)]
    done = watch(command, {**os.environ, "RECFOUND_USER_KEY": _KEY}, limit)
    samples: dict[str, int] = {}
    if not done.code:
        manifest = json.loads((out / "recfound.json").read_text(encoding="utf-8"))
        samples = {task: sum(manifest["configs"][task]["splits"].values()) for task in TASKS}
    _remove(out)
    return _run(size, "recfound", done, samples, list(stages(done.lines)))


def usual_way(folder: Path, raw: Raw, size: int, limit: float) -> Run:
    """Convert the same files with `usual_way.py`."""
    out = folder / f"usual-{size}"
    _remove(out)
    script = [sys.executable, str(_HERE / "usual_way.py"), "--out", str(out)]
    command = [*script, "--reviews", str(raw.reviews), "--metadata", str(raw.metadata)]
    # Its cache is in the folder that it writes, so that nothing is found from an earlier run.
    done = watch(command, {**os.environ, "HF_HOME": str(out / "home"), "HF_HUB_OFFLINE": "1"}, limit)
    samples = json.loads(done.output.splitlines()[-1])["samples"] if not done.code else {}
    _remove(out)
    return _run(size, "usual", done, samples, [])


def stages(lines: list[Line]) -> Iterator[dict[str, Any]]:
    """Yield the stages in the order in which they ended: what each did, when, how long since the one before."""
    last: dict[str, tuple[float, str]] = {}
    for line in lines:
        if found := _STAGE.match(line.text):
            last[found["name"]] = (line.at, found["done"])
    before = 0.0
    for name, (at, done) in sorted(last.items(), key=lambda entry: entry[1][0]):
        yield {
            "stage": name,
            "done": int(done.replace(",", "")),
            "ended": round(at, 1),
            "seconds": round(at - before, 1),
        }
        before = at


def report(facts: dict[str, str], workers: int, raw: dict[int, Raw], runs: list[Run]) -> str:
    """Return all figures as Markdown."""
    parts = ["| | |\n|---|---|\n", *(f"| {name} | {value} |\n" for name, value in facts.items())]
    parts.append(f"| workers | {workers} |\n")
    parts.append("\n| reviews | way | s | reviews/s | CPU s | peak RssAnon, MiB | at s | processes | samples |\n")
    parts.append("|---:|---|---:|---:|---:|---:|---:|---:|---:|\n")
    for run in runs:
        anonymous, samples = run.peak_anonymous / _MEGABYTE, sum(run.samples.values())
        figures = f"{run.reviews_per_second:,.0f} | {run.cpu_seconds:,.1f} | {anonymous:,.0f} | {run.peak_at:,.0f}"
        outcome = run.failed or f"{samples:,}"
        parts.append(f"| {run.size:,} | {run.way} | {run.seconds:,.1f} | {figures} | {run.processes} | {outcome} |\n")
    parts += ["\n", *comparisons(runs)]
    parts += [
        f"Writing the raw files of {size:,} reviews took {one.seconds:,.0f} s, not counted above.\n"
        for size, one in raw.items()
        if one.seconds is not None
    ]
    for run in runs:
        if run.samples:
            counted = ", ".join(f"{count:,} {task}" for task, count in run.samples.items())
            parts.append(f"\nSamples of {run.size:,} reviews, {run.way}: {counted}.\n")
        if run.stages:
            parts.append(
                f"\nStages at {run.size:,} reviews:\n\n| stage | done | ended at s | s |\n|---|---:|---:|---:|\n"
            )
            parts += [f"| {s['stage']} | {s['done']:,} | {s['ended']} | {s['seconds']} |\n" for s in run.stages]
    return "".join(parts)


def comparisons(runs: list[Run]) -> Iterator[str]:
    """Yield how the two ways compare at each size, and how memory grows from the smallest size to the largest."""
    whole = {(run.way, run.size): run for run in runs if not run.failed}
    for size in sorted({run.size for run in runs}):
        ours, usual = whole.get(("recfound", size)), whole.get(("usual", size))
        if ours and usual:
            times, cpu = usual.seconds / ours.seconds, usual.cpu_seconds / ours.cpu_seconds
            yield f"At {size:,} reviews the build is {times:.1f} times as fast and takes 1/{cpu:.1f} of the CPU time.\n"
    built = sorted((run for (way, _), run in whole.items() if way == "recfound"), key=lambda run: run.size)
    for small in built[:-1]:
        growth = built[-1].peak_anonymous / max(small.peak_anonymous, 1)
        yield f"Peak RssAnon at {built[-1].size:,} reviews is {growth:.2f} times that at {small.size:,}.\n"


def _run(size: int, way: str, done: Watched, samples: dict[str, int], found: list[dict[str, Any]]) -> Run:
    failed = ""
    if done.code:
        said = done.lines[-1].text if done.lines else "nothing"
        failed = "stopped at the time limit" if done.timed_out else f"exit {done.code}, said {said!r}"
    return Run(
        size=size,
        way=way,
        seconds=done.seconds,
        reviews_per_second=size / done.seconds,
        cpu_seconds=done.cpu_seconds,
        peak_anonymous=done.peak_anonymous,
        peak_at=done.peak_at,
        processes=done.most_processes,
        samples=samples,
        stages=found,
        failed=failed,
    )


def _recfound(command: str) -> list[str]:
    return [sys.executable, "-m", "recfound_data.cli", "data", command]


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def _remove(folder: Path) -> None:
    # A build that was stopped leaves finished units beside its folder; a benchmark never goes on with those.
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder.with_name(f".{folder.name}.building"), ignore_errors=True)


def main() -> int:
    """Run the benchmark and return 1 if a conversion failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000], help="reviews to build")
    parser.add_argument(
        "--usual", type=int, nargs="*", default=[200_000, 1_000_000], help="reviews to convert both ways"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=1_800, help="seconds after which a conversion is stopped")
    parser.add_argument("--out", type=Path, required=True, help="folder for raw files and the report")
    options = parser.parse_args()
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    raw: dict[int, Raw] = {}
    runs: list[Run] = []
    for size in sorted({*options.sizes, *options.usual}):
        raw[size] = raw_files(folder, size)
        runs.append(build(folder, raw[size], size, options.workers, options.limit))
        if size in options.usual:
            runs.append(usual_way(folder, raw[size], size, options.limit))
    facts = machine()
    text = report(facts, options.workers, raw, runs)
    written = {
        "machine": facts,
        "workers": options.workers,
        "generated": {size: one.seconds for size, one in raw.items()},
        "runs": [asdict(run) for run in runs],
    }
    (folder / "report.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return int(any(run.failed for run in runs))


if __name__ == "__main__":
    sys.exit(main())
