"""Time, memory and disk of collapsing all thirteen tasks of an adapter of a 7B base.

The adapter is random and of the paper's sizes: q, k, v, o of 32 layers of Mistral-7B (4096 wide, keys and values 1024),
six experts of rank 16, task embeddings of 512: 82 million parameters. It lies in a temporary folder, which is removed.
`recfound model collapse` runs in a process of its own, which `watching.watch` watches.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from watching import watch

from recfound_data.tasks.catalogue import TASKS
from recfound_model import TmoleConfig
from recfound_model.adapter_files import embedding_key, factor_key, write_adapter
from recfound_model.routing import GROUPS

WIDTH, KEYS_AND_VALUES = 4096, 1024
OUTPUTS = {"q_proj": WIDTH, "k_proj": KEYS_AND_VALUES, "v_proj": KEYS_AND_VALUES, "o_proj": WIDTH}


def adapter_tensors(config: TmoleConfig, layers: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and random values of an adapter's tensors."""
    for task in config.kinds:
        yield embedding_key(task), torch.randn(config.task_dim)
    for layer in range(layers):
        for name, outputs in OUTPUTS.items():
            module = f"model.layers.{layer}.self_attn.{name}"
            for group in GROUPS:
                experts = config.experts[group]
                yield factor_key(module, "A", group), torch.randn(experts * config.r, WIDTH) / WIDTH**0.5
                yield factor_key(module, "B", group), torch.randn(outputs, experts * config.r) / 100
                yield factor_key(module, "R", group), torch.randn(experts, config.task_dim)
                yield factor_key(module, "b", group), torch.zeros(experts)


def main() -> None:
    """Make the adapter, collapse it, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--pad-rank", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recfound-collapse-") as place:
        config = TmoleConfig(tasks=list(TASKS), base_model_name_or_path="mistralai/Mistral-7B-Instruct-v0.3")
        torch.manual_seed(0)
        tensors = dict(adapter_tensors(config, options.layers))
        parameters = sum(tensor.numel() for tensor in tensors.values())
        write_adapter(Path(place, "adapter"), config, tensors)
        del tensors
        command = [sys.executable, "-m", "recfound_data.cli", "model", "collapse", f"{place}/adapter"]
        command += ["--out", f"{place}/lora", "--dtype", options.dtype, *["--pad-rank"] * options.pad_rank]
        environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
        watched = watch(command, environment, limit=600)
        if watched.code:
            raise SystemExit("\n".join(line.text for line in watched.lines))
        written = [file.stat().st_size for file in Path(place, "lora").glob("*/*.safetensors")]
    figures = {
        "parameters": parameters,
        "tasks": len(written),
        "seconds": round(watched.seconds, 1),
        "cpu_seconds": round(watched.cpu_seconds, 1),
        "peak_anonymous_mib": round(watched.peak_anonymous / 2**20),
        "written_mib": round(sum(written) / 2**20),
    }
    print(json.dumps(vars(options) | figures))


if __name__ == "__main__":
    main()
