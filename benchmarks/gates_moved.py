"""How far training moved the gates of a run: how much of what a task draws from its experts went to others.

    python benchmarks/gates_moved.py RUN

Half the sum of the absolute changes of a task's gates, which is 0 where none moved and 1 where all of their mass did,
averaged over the adapted layers; for every checkpoint and the last adapter.
"""

import argparse
from pathlib import Path

from recfound_model.adapter_files import open_adapter
from recfound_model.run_history import adapter_gates


def main() -> None:
    """Print a Markdown table: a row a checkpoint, a column a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    found = {}
    for folder in [*sorted(run.glob("checkpoints/step-*")), run / "adapter"]:
        with open_adapter(folder) as adapter:
            tasks = list(adapter.config.kinds)
            found[folder.name] = adapter_gates(adapter, tasks)
    first = next(iter(found.values()))
    print(f"| | all | {' | '.join(tasks)} |")
    print("|---" * (len(tasks) + 2) + "|")
    for name, gates in found.items():
        moved = ((gates - first).abs().sum(-1) / 2).mean(0)
        print(f"| {name} | {' | '.join(f'{float(share):.3f}' for share in (moved.mean(), *moved))} |")


if __name__ == "__main__":
    main()
