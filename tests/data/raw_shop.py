"""The shop's raw files and users' histories from them, in plain Python: nothing of the project's is used."""

import csv
import gzip
import hashlib
import hmac
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

KEY = "the secret of these tests"
MIN_RATING = 3.0
"""The recipe's default: what is rated lower leaves the history."""


class Event(NamedTuple):
    """One interaction as the raw file has it."""

    time: int
    item: str
    rating: float


History = dict[str, list[Event]]


def pseudonym(corpus: str, user: str, key: str = KEY) -> str:
    """What stands in a dataset for a user: a keyed hash, which keeps corpora apart."""
    return hmac.new(key.encode(), f"{corpus}\x1f{user}".encode(), hashlib.sha256).hexdigest()[:16]


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def reviews(shop: Path) -> list[dict]:
    with gzip.open(shop / "amazon_reviews_2018/Shop_5.json.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def metadata(shop: Path) -> list[dict]:
    with gzip.open(shop / "amazon_reviews_2018/meta_Shop.json.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ratings(shop: Path) -> list[dict[str, str]]:
    with (shop / "movielens/ratings.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def histories(shop: Path) -> dict[str, History]:
    """All interactions by corpus and pseudonym, in the order of time, each item once."""
    seen: dict[str, dict[str, set[Event]]] = {"shop": defaultdict(set), "shop_films": defaultdict(set)}
    for row in reviews(shop):
        event = Event(row["unixReviewTime"], f"shop/{row['asin']}", row["overall"])
        seen["shop"][pseudonym("shop", row["reviewerID"])].add(event)
    for line in ratings(shop):
        event = Event(int(line["timestamp"]), f"shop_films/{line['movieId']}", float(line["rating"]))
        seen["shop_films"][pseudonym("shop_films", line["userId"])].add(event)
    found: dict[str, History] = {}
    for corpus, users in seen.items():
        found[corpus] = {user: sorted(events) for user, events in users.items()}
        for events in found[corpus].values():  # the shop plants neither ties nor items bought again
            assert len({event.time for event in events}) == len({event.item for event in events}) == len(events)
    return found


def liked(events: list[Event], items: dict[str, dict]) -> list[Event]:
    """What of a user's interactions a history shows: known items, liked."""
    return [event for event in events if event.item in items and event.rating >= MIN_RATING]


def rows(dataset: Path, config: str, split: str = "*") -> list[dict]:
    """The rows of a configuration, or of one split of it."""
    pattern = "items/*.parquet" if config == "items" else f"data/{config}/{split}-*.parquet"
    paths = sorted(dataset.glob(pattern))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def catalogue(dataset: Path) -> dict[str, dict]:
    """The items by id."""
    return {row["item_id"]: row for row in rows(dataset, "items")}


def words(text: str) -> str:
    """A text without case and punctuation: what two titles of one product share."""
    return " ".join(re.findall(r"\w+", text.lower()))
