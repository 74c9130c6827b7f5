"""A copy of a Shopping Queries dataset whose training pairs are joined by words of titles as queries, two an item.

Two to five words of a title in their order, half of the time side by side, find the item's text, as a query finds a
product. The judged pairs are there three times, so that they are a fifth of all.

    python benchmarks/title_queries.py half/fold-0 half-titles
"""

import argparse
import re
import shutil
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import yaml

AN_ITEM = 2
JUDGED = 3
NO_QUERY = {
    "a",
    "an",
    "and",
    "or",
    "the",
    "of",
    "for",
    "with",
    "in",
    "on",
    "to",
    "by",
    "from",
    "at",
    "is",
    "-",
    "&",
    "/",
    "|",
    ",",
    "pack",
    "set",
    "count",
}


def words_of(title: str) -> list[str]:
    """Return the words of a title in lower case, without punctuation at their ends and without the commonest."""
    bare = (re.sub(r"^\W+|\W+$", "", word).lower() for word in title.split())
    return [word for word in bare if word and word not in NO_QUERY]


def query_of(words: list[str], draw: Random) -> str:
    """Return a query made of some of the words."""
    count = draw.randint(2, min(5, len(words)))
    if draw.random() < 0.5:
        first = draw.randrange(len(words) - count + 1)
        return " ".join(words[first : first + count])
    return " ".join(words[at] for at in sorted(draw.sample(range(len(words)), count)))


def pairs(items: pl.DataFrame, phrasings: list[str], draw: Random) -> list[dict[str, Any]]:
    """Return samples of `query2item` without negatives of their own."""
    found = []
    for item in items.iter_rows(named=True):
        words = words_of(item["title"])
        if len(set(words)) < 3:
            continue
        for number in range(AN_ITEM):
            query, key = query_of(words, draw), f"kw{number}-{item['item_id']}"
            found.append(
                {
                    "id": key,
                    "task": "query2item",
                    "corpus": item["corpus"],
                    "domain": item["domain"],
                    "instruction": draw.choice(phrasings),
                    "anchor": query,
                    "positive": item["text"],
                    "more_negatives": [],
                    "anchor_id": key,
                    "positive_id": item["item_id"],
                    "negative_ids": [],
                }
            )
    return found


def main() -> None:
    """Write the copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    shutil.copytree(arguments.data, arguments.out)
    path = next(arguments.out.glob("data/query2item/train-*.parquet"))
    judged = pl.read_parquet(path)
    items = pl.read_parquet(arguments.out / "items" / "*.parquet")
    made = pairs(items, judged["instruction"].unique().sort().to_list(), Random(0))  # noqa: S311
    both = pl.concat([judged] * JUDGED + [pl.DataFrame(made, schema=judged.schema)])
    numbered = both.with_columns(id=pl.col("id") + pl.int_range(pl.len()).cast(pl.String))
    numbered.sample(fraction=1, shuffle=True, seed=0).write_parquet(path)
    # The card counts the rows of the original, and readers compare.
    card = arguments.out / "README.md"
    _, front, body = card.read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(front)
    facts.pop("dataset_info", None)
    card.write_text(f"---\n{yaml.safe_dump(facts)}---\n{body}", encoding="utf-8")


if __name__ == "__main__":
    main()
