"""Evaluations of folds put together: one interval over all queries, and each model against the first, query by query.

python benchmarks/pooled_folds.py bm25=EVALUATIONS/bm25 ours=EVALUATIONS/ours
"""

import argparse
from pathlib import Path

import polars as pl

from recfound_model.evaluation.comparing import differences
from recfound_model.evaluation.results import TaskResult, read_evaluation

METRICS = ("ndcg@20", "mrr@20", "recall@100")


def pooled(folder: Path, task: str) -> TaskResult:
    """Return the queries of the evaluations `fold-*` in `folder`; they must not overlap."""
    scores = pl.concat([read_evaluation(path).results[task].scores for path in sorted(folder.glob("fold-*"))])
    if scores["query_id"].n_unique() != len(scores):
        raise SystemExit(f"{folder}: a query is in two of the evaluations")
    return TaskResult(task, scores.sort("query_id"))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--task", default="query2item")
    arguments = parser.parse_args()
    named = dict(model.split("=", 1) for model in arguments.models)
    results = {name: pooled(Path(folder), arguments.task) for name, folder in named.items()}
    first = next(iter(results))
    print(f"| model | {' | '.join(METRICS)} | {METRICS[0]}, difference to {first}, p, win/tie/loss |")
    print("|---" * (len(METRICS) + 2) + "|")
    for name, result in results.items():
        against = "" if name == first else str(differences(result, results[first])[METRICS[0]])
        print(f"| {name} | {' | '.join(str(result.summary[metric]) for metric in METRICS)} | {against} |")
    print(f"\n{len(results[first].scores)} queries")


if __name__ == "__main__":
    main()
