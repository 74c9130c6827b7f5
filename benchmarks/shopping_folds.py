"""Shopping Queries in folds, so that each judged query is a test query once.

Each fold is a dataset of its own: the corpus with the split of its queries set anew. Folds are drawn from the query ids
and the seed alone.

    python benchmarks/shopping_folds.py --corpus FOLDER --out FOLDER [--folds 5] [--only 0] [--mining lexical]
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from recfound_data import build

EXAMPLES = "shopping_queries_dataset_examples.parquet"
PRODUCTS = "shopping_queries_dataset_products.parquet"


def folds_of(queries: list[int], folds: int, seed: int) -> dict[int, int]:
    """Return the fold of each query; folds differ by one query at most."""
    order = np.random.default_rng(seed).permutation(sorted(queries))
    return {int(query): at % folds for at, query in enumerate(order)}


def write_fold(corpus: Path, out: Path, test: set[int], mining: dict[str, str] | None) -> None:
    """Build the dataset whose test queries are `test`; its raw files and recipe are left beside it."""
    raw = out.with_name(f"{out.name}-raw")
    raw.mkdir(parents=True, exist_ok=True)
    split = pl.when(pl.col("query_id").is_in(list(test))).then(pl.lit("test")).otherwise(pl.lit("train"))
    pl.read_parquet(corpus / EXAMPLES).with_columns(split.alias("split")).write_parquet(raw / EXAMPLES)
    recipe = {
        "seed": 0,
        "tasks": ["query2item"],
        "corpora": [
            {
                "corpus": "shopping_queries",
                "examples": str(raw.resolve() / EXAMPLES),
                "products": str(corpus.resolve() / PRODUCTS),
            }
        ],
    }
    if mining:
        recipe["mining"] = mining
    (raw / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    build(raw / "recipe.yaml", out, quiet=True)


def main() -> None:
    """Build the folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the two Parquet files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, help="build this fold alone")
    parser.add_argument("--mining", choices=["lexical"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    queries = pl.read_parquet(arguments.corpus / EXAMPLES, columns=["query_id"])["query_id"].unique().to_list()
    folds = folds_of(queries, arguments.folds, arguments.seed)
    mining = {"kind": arguments.mining} if arguments.mining else None
    for fold in range(arguments.folds):
        if arguments.only in (None, fold):
            test = {query for query, where in folds.items() if where == fold}
            write_fold(arguments.corpus, arguments.out / f"fold-{fold}", test, mining)


if __name__ == "__main__":
    main()
