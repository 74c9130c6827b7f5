"""What each merge method makes of copies of one adapter: how far from it, in relation to its change since step 0.

    python benchmarks/merged_with_itself.py RUN

RUN is the folder of a finished run. Methods take their defaults; nearswap, which has no default, takes t = 0.001.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from recfound_model.adapter_files import TENSOR_FILE
from recfound_model.merging import merge_adapters
from recfound_model.merging.methods import method_named, method_names


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the Frobenius norm of the difference of two adapters."""
    return float(sum((one[key].double() - other[key].double()).square().sum() for key in one) ** 0.5)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run: Path = parser.parse_args().run
    first, adapter = run / "checkpoints" / "step-000000", run / "adapter"
    wanted, before = load_file(adapter / TENSOR_FILE), load_file(first / TENSOR_FILE)
    print("| method | distance, of the change since step 0 |\n|---|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in method_names():
            method = method_named(name)
            merge_adapters(
                [adapter] * (method.most or 2),
                Path(folder, name),
                name,
                base=first if method.base == "required" else None,
                parameters={"t": 0.001} if name == "nearswap" else None,
            )
            found = distance(load_file(Path(folder, name, TENSOR_FILE)), wanted) / distance(before, wanted)
            print(f"| {name} | {found:.1e} |" if found < 1e-3 else f"| {name} | {found:.0%} |", flush=True)


if __name__ == "__main__":
    main()
