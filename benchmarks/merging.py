"""What a merge costs: eight synthetic checkpoints of the size of a 7B base's adapter, and the initial one.

    python benchmarks/merging.py --workers 2

q, k, v and o of 32 layers at 4096 (k and v 1024 wide), six experts of rank 16: about 82 million parameters and 328 MB a
checkpoint. They are written to a temporary folder (3 GB), which is removed afterwards. Each merge runs in a process of
its own, with peak resident memory and CPU seconds of that process; `plain mergekit` is one call of
`merge_state_dicts` a tensor in a loop, by all of torch's threads, without anything of this package.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from recfound_data.tasks import TASKS
from recfound_model import TmoleConfig
from recfound_model.adapter_files import TENSOR_FILE, embedding_key, factor_key, fingerprint, write_adapter
from recfound_model.merging import merge_adapters

WIDTHS = {"q_proj": 4096, "k_proj": 1024, "v_proj": 1024, "o_proj": 4096}
HIDDEN, RANK, EXPERTS, TASK_DIM = 4096, 16, 2, 512
METHODS = ("ties", "linear")


def initial_tensors(layers: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a freshly drawn adapter."""
    tensors = {embedding_key(task): torch.randn(TASK_DIM) for task in TASKS}
    for layer in range(layers):
        for name, width in WIDTHS.items():
            module = f"model.layers.{layer}.self_attn.{name}"
            for group in ("embedding", "shared", "generative"):
                tensors[factor_key(module, "A", group)] = torch.rand(EXPERTS * RANK, HIDDEN) / 32 - 1 / 64
                tensors[factor_key(module, "B", group)] = torch.zeros(width, EXPERTS * RANK)
                tensors[factor_key(module, "R", group)] = torch.randn(EXPERTS, TASK_DIM)
                tensors[factor_key(module, "b", group)] = torch.zeros(EXPERTS)
    return tensors


def write_checkpoints(folder: Path, count: int, layers: int) -> int:
    """Write the initial adapter as `step-000000` and descendants of it, and return the parameters of one."""
    torch.manual_seed(0)
    initial = initial_tensors(layers)
    config = TmoleConfig(
        tasks=list(TASKS), base_model_name_or_path="synthetic", dropout=0.0, initialization=fingerprint(initial)
    )
    for step in range(count + 1):
        moved = {key: tensor + step * 1e-3 * torch.randn_like(tensor) for key, tensor in initial.items()}
        write_adapter(folder / f"step-{step:06d}", config, moved)
    return sum(tensor.numel() for tensor in initial.values())


def plain_mergekit(places: list[Path], base: Path | None, out: Path, method: str) -> None:
    """Merge with mergekit alone, a tensor a call."""
    from mergekit.merge_methods import merge_state_dicts

    inputs = places if base is None else [*places, base]
    parameters: dict[str, object] = {"weight": dict.fromkeys(range(len(places)), 1.0)}
    if method == "ties":
        parameters["density"] = 0.8
    handles = [safe_open(place / TENSOR_FILE, framework="pt") for place in inputs]
    merged = {}
    for key in handles[0].keys():  # noqa: SIM118  (no mapping)
        tensors = {at: {key: handle.get_tensor(key)} for at, handle in enumerate(handles)}
        merged |= merge_state_dicts(tensors, method, parameters=parameters, base=base and len(places))
    save_file(merged, out)


def measured(arguments: argparse.Namespace) -> None:
    """Merge once, and print seconds, CPU seconds and peak memory of this process."""
    first, *places = sorted(Path(arguments.folder).glob("step-*"))
    out = Path(arguments.folder) / "out"
    base = first if arguments.method == "ties" else None
    started = time.perf_counter()
    if arguments.part == "plain mergekit":
        out.mkdir(exist_ok=True)
        torch.set_num_threads(arguments.workers)
        plain_mergekit(places, base, out / TENSOR_FILE, arguments.method)
    else:
        merge_adapters(
            places, out, arguments.method, base=base, workers=arguments.workers, space=arguments.part.split()[-1]
        )
    took = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6]))


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument(
        "--parts", nargs="+", default=("recfound factors", "plain mergekit"), help="also: 'recfound delta'"
    )
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        measured(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_checkpoints(Path(folder), arguments.checkpoints, arguments.layers)
        print(f"torch {torch.__version__}, {platform.machine()}, {arguments.workers} workers")
        print(f"{arguments.checkpoints} checkpoints of {parameters:,} parameters\n")
        print("| | method | seconds | CPU seconds | peak GB |\n|---|---|--:|--:|--:|")
        for method in arguments.methods:
            for part in arguments.parts:
                own = [sys.executable, __file__, "--folder", folder, "--part", part, "--method", method]
                workers = ["--workers", str(arguments.workers)]
                done = subprocess.run([*own, *workers], capture_output=True, text=True)  # noqa: S603
                if done.returncode:
                    raise SystemExit(done.stderr)
                took, used, peak = json.loads(done.stdout.splitlines()[-1])
                print(f"| {part} | {method} | {took:.1f} | {used:.1f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
