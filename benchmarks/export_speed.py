"""Do exported embedders encode as fast as the plain base? All layouts, the same texts, interleaved, one thread.

    python benchmarks/export_speed.py --adapter RUN/adapter [--data DIR] [--out DIR]
    python benchmarks/export_speed.py --base HuggingFaceTB/SmolLM2-135M-Instruct --data DIR

Without `--adapter` one is drawn for the base and moved away from zero, which costs as much to run as a trained one.
Every layout is exported through the parity gate, then loaded in a process without this project, together with the base
in the same pooling; each round encodes with all of them in turn, in a shuffled order, and its times are divided by the
base's of that round. The plain base pools after the same prompts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from recfound_model import TmoleConfig, add_tmole, export_embedder
from recfound_model.adapter_files import open_adapter
from recfound_model.bases import load_base
from recfound_model.exporting.held_out import held_out

TASKS = ["item2item", "query2item", "user2item"]
LEAST = 0.97

STOCK = """
import json, random, statistics, sys, time
sys.modules["recfound_data"] = sys.modules["recfound_model"] = None
import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer

plan = json.loads(sys.argv[1])
torch.set_num_threads(1)
task, texts, folder = plan["task"], plan["texts"], plan["folder"]
open = lambda name: SentenceTransformer(f"{folder}/{name}", device="cpu")

def with_adapters():
    model = open("adapters")
    for name in plan["tasks"]:
        model.load_adapter(f"{folder}/adapters", adapter_name=name, adapter_kwargs={"subfolder": name})
    model.set_adapter(task)
    return model

def merged_adapter():
    model = open("adapters")
    PeftModel.from_pretrained(model.transformers_model, f"{folder}/adapters", subfolder=task).merge_and_unload()
    return model

named = {"prompt_name": task}
runs = {
    "base": (open("adapters"), named),
    "base again": (open("adapters"), named),
    "merged": (open(f"embedder/{task}"), {"prompt_name": "query"}),
    "router": (open("router"), {"task": task}),
    "adapters": (with_adapters(), named),
    "adapters, merged in memory": (merged_adapter(), named),
}
encode = {name: (lambda m=m, k=k: m.encode(texts, batch_size=16, **k)) for name, (m, k) in runs.items()}
for run in encode.values():
    run()
ratios, order, random_order = {name: [] for name in encode}, list(encode), random.Random(0)
for _ in range(plan["rounds"]):
    random_order.shuffle(order)
    took = {}
    for name in order:
        started = time.process_time()
        encode[name]()
        took[name] = time.process_time() - started
    for name, seconds in took.items():
        ratios[name].append(took["base"] / seconds)
print(json.dumps({name: [statistics.median(found), min(found), max(found)] for name, found in ratios.items()}))
"""


def drawn_adapter(base: str, folder: Path) -> Path:
    """An adapter for a base with all its matrices away from zero."""
    model, _ = load_base(base, dtype="float32")
    torch.manual_seed(0)
    adapted = add_tmole(model, TmoleConfig(tasks=TASKS, max_length=96, base_model_name_or_path=base))
    with torch.no_grad():
        for key, tensor in adapted.adapter_tensors().items():
            if ".B." in key:
                tensor.copy_(torch.randn(tensor.shape) * 2e-3)
    adapted.save_pretrained(folder)
    return folder


def main() -> None:
    """Export, time, and say whether each layout reaches `LEAST` times the base's speed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--adapter", help="a trained adapter with the three embedding tasks")
    parser.add_argument("--base", help="folder or repository, if not the adapter's own")
    parser.add_argument("--data", help="dataset to take texts from (default: built-in ones)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--texts", type=int, default=16, help="encoded at once (default: %(default)s, which are all)")
    parser.add_argument("--out", help="folder for the exports (default: a temporary one)")
    options = parser.parse_args()
    if options.adapter is None and options.base is None:
        parser.error("name an adapter, or a base to draw one for")
    with tempfile.TemporaryDirectory() as workspace:
        folder = Path(options.out or workspace).resolve()
        adapter = options.adapter or str(drawn_adapter(options.base, folder / "adapter"))
        for layout in ("merged", "router", "adapters"):
            place = folder / ("embedder" if layout == "merged" else layout)
            if not place.exists():
                found = export_embedder(
                    adapter,
                    place,
                    TASKS,
                    base_model=options.base,
                    dtype=options.dtype,
                    layout=layout,
                    data=options.data,
                )
                for task, parity in found.parity.items():
                    print(f"{layout}, {task}: {parity.figures}")
        with open_adapter(adapter) as opened:
            texts = held_out(adapter, opened.config, ["query2item"], options.data)["query2item"].texts["document"]
        plan = {
            "folder": str(folder),
            "task": "query2item",
            "tasks": TASKS,
            "texts": texts[: options.texts],
            "rounds": options.rounds,
        }
        command = [sys.executable, "-c", STOCK, json.dumps(plan)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if run.returncode:
            raise SystemExit(run.stderr)
    print(f"{'model':<28}{'times the base':>16}{'lowest':>8}{'highest':>9}  (CPU seconds, {options.rounds} rounds)")
    for name, (median, low, high) in json.loads(run.stdout.splitlines()[-1]).items():
        verdict = "" if name.startswith("base") else "ok" if median >= LEAST else f"below {LEAST}"
        print(f"{name:<28}{median:>16.3f}{low:>8.3f}{high:>9.3f}  {verdict}")


if __name__ == "__main__":
    main()
