"""Time, memory and disk of evaluating an embedder on a large catalogue, killed half way and run again.

A catalogue of 100,000 made-up products and 5,000 test histories, from a folder of one's own tables. The evaluation is
ended by SIGKILL once half of the items are encoded; the second run counts what it encodes itself.

    python benchmarks/evaluation.py --model all-MiniLM-L6-v2 [--items N] [--users N]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from watching import watch

from recfound_data import build

COLOURS = ["red", "blue", "green", "black", "white", "grey", "brown", "amber", "olive", "ivory", "coral", "teal"]
MADE_OF = ["steel", "oak", "glass", "cotton", "bamboo", "ceramic", "wool", "leather", "copper", "linen"]
THINGS = ["kettle", "mug", "lamp", "chair", "shelf", "basket", "clock", "mirror", "towel", "blanket", "vase", "bowl"]
CORES = 2


def write_dataset(folder: Path, items: int, users: int, seed: int) -> Path:
    """Write a dataset of `users` histories of five over `items` products."""
    draw = np.random.default_rng(seed)
    words = [draw.choice(kind, items) for kind in (COLOURS, MADE_OF, THINGS)]
    titles = [f"{a} {b} {c} no. {at}" for at, (a, b, c) in enumerate(zip(*words, strict=True))]
    names = [f"p{at}" for at in range(items)]
    raw = folder / "raw"
    raw.mkdir(parents=True)
    pl.DataFrame({"item_id": names, "title": titles}).write_parquet(raw / "items.parquet")
    chosen = np.concatenate([draw.choice(items, 7, replace=False) for _ in range(users)])
    pl.DataFrame(
        {
            "user_id": np.repeat([f"u{at}" for at in range(users)], 7),
            "item_id": [names[at] for at in chosen],
            "rating": 5.0,
            "timestamp": 1_600_000_000 + np.arange(7 * users) * 60,
        }
    ).write_parquet(raw / "interactions.parquet")
    (raw / "recipe.yaml").write_text(
        f"corpora:\n  - corpus: tables\n    name: made_up\n    domain: Home\n    licence: none\n"
        f"    items: {{path: {raw}/items.parquet}}\n    interactions: {{path: {raw}/interactions.parquet}}\n"
        "tasks: [user2item]\n",
        encoding="utf-8",
    )
    build(raw / "recipe.yaml", folder / "dataset", quiet=True)
    return folder / "dataset"


def main() -> None:
    """Print one JSON object."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", required=True)
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--users", type=int, default=5_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--limit", type=float, default=7200, help="seconds")
    chosen = options.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(CORES))}
    with tempfile.TemporaryDirectory() as name:
        data = write_dataset(Path(name), chosen.items, chosen.users, chosen.seed)
        out = Path(name) / "out"
        command = [sys.executable, "-m", "recfound_data.cli", "model", "evaluate", chosen.model]
        command += ["--data", str(data), "--out", str(out)]
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603  (this benchmark's own command)
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        half = chosen.items // 2
        while process.poll() is None and sum(path.stat().st_size for path in out.rglob("keys.bin")) < 16 * half:
            time.sleep(1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = sum(path.stat().st_size for path in out.rglob("keys.bin")) // 16
        first = time.monotonic() - started
        again = watch(command, environment, chosen.limit)
        assert again.code == 0, again.lines[-3:]
        report = json.loads((out / "results.json").read_text(encoding="utf-8"))
        found = {
            "items": chosen.items,
            "histories": report["tasks"]["user2item"]["queries"],
            "texts_before_the_kill": kept,
            "seconds_before_the_kill": round(first, 1),
            "again": report["spent"]["user2item"],
            "again_seconds": round(again.seconds, 1),
            "again_cpu_seconds": round(again.cpu_seconds, 1),
            "peak_anonymous_mb": round(again.peak_anonymous / 2**20),
            "work_mb": round(sum(path.stat().st_size for path in (out / "work").rglob("*") if path.is_file()) / 2**20),
        }
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
