"""The same conversion as `recfound data build`, written the way such scripts are usually written.

`datasets.load_dataset("json")`, pandas to group by user and sort by time, and `Dataset.map` over rows in plain Python,
with as many processes as there are cores. The rules are those of `build_speed.py`'s recipe: titles and texts cleaned
of HTML, exact duplicates and items without metadata left out, ratings of three stars or more make the history, the last
interaction is test, the one before validation and the one before that training, five negatives for embedding samples
and twenty options for generative ones, as popular as the positive and never touched by the user. Co-liked pairs, checks
of leakage and duplicates across splits, full-ranking judgements and the card are left out, so it does less.
"""

import argparse
import html
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

Row = dict[str, Any]

MIN_RATING, MIN_HISTORY, MAX_HISTORY = 3.0, 3, 20
NEGATIVES, OPTIONS, WINDOW = 5, 20, 100
PAIRS_PER_ITEM, MIN_WORDS = 2, 10
ITEM_CHARS, OPTION_CHARS, REVIEW_CHARS = 600, 90, 1_000
LETTERS = "ABCDEFGHIJKLMNOPQRST"
SENTIMENTS = ("very negative", "negative", "neutral", "positive", "very positive")
INSTRUCTIONS = {
    "user2item": "Find the item that this customer will choose next.",
    "item2item": "Find an item that is bought together with this one.",
    "sequential_recommendation": "Which option does this person choose next? Answer with its letter.",
    "sentiment_analysis": "What does the writer of this review feel? Choose one of the five sentiments.",
    "product_relation_prediction": "How are these two products related?",
}
_TAG = re.compile(r"<[^>]+>")
_PERSONAL = re.compile(r"[\w.+-]+@[\w-]+\.\w+|\(?\b\d{3}\)?[-. ]\d{3}[-. ]\d{4}\b")
_SPACE = re.compile(r"\s+")


def clean(text: str | None) -> str:
    """Return a text without markup, addresses and runs of white space."""
    text = _TAG.sub(" ", html.unescape(text or ""))
    return _SPACE.sub(" ", _PERSONAL.sub(" ", text)).strip()


def item_row(row: Row) -> Row:
    """Return the columns of the catalogue that a line of metadata gives."""
    title = clean(row["title"])
    prose = clean(" ".join([*(row["features"] or []), *(row["description"] or [])]))
    return {"item": row["parent_asin"], "title": title, "text": f"{title}. {prose}"[:ITEM_CHARS]}


class Negatives:
    """Draws items that are about as popular as another one."""

    def __init__(self, popularity: Counter[str], items: list[str]) -> None:
        self.ranked = sorted(items, key=lambda item: -popularity[item])
        self.rank = {item: place for place, item in enumerate(self.ranked)}

    def draw(self, positive: str, known: set[str], count: int, rng: random.Random) -> list[str]:
        """Return `count` items near `positive` in popularity, none of them known."""
        place, last = self.rank[positive], len(self.ranked) - 1
        found: list[str] = []
        for attempt in range(40 * count):
            if len(found) == count:
                break
            reach = WINDOW if attempt < 20 * count else last
            item = self.ranked[rng.randint(max(0, place - reach), min(last, place + reach))]
            if item != positive and item not in known and item not in found:
                found.append(item)
        return found


def targets(user: Row) -> list[tuple[str, int]]:
    """Return the splits and positions of a user's targets."""
    last = len(user["item"]) - 1
    wanted = (("test", last), ("validation", last - 1), ("train", last - 2))
    return [(split, at) for split, at in wanted if at >= MIN_HISTORY]


def user_rows(batch: Row, titles: dict[str, str], texts: dict[str, str], negatives: Negatives) -> Row:
    """Return the user2item samples of some users."""
    rows: dict[str, list[Any]] = {name: [] for name in ("split", "instruction", "anchor", "positive", "negatives")}
    for number, identity in enumerate(batch["user_id"]):
        user = {name: values[number] for name, values in batch.items()}
        rng = random.Random(identity)  # noqa: S311  (samples, not secrets)
        known = set(user["seen"])
        for split, at in targets(user):
            history = user["item"][max(0, at - MAX_HISTORY) : at][::-1]
            drawn = negatives.draw(user["item"][at], known, NEGATIVES, rng)
            rows["split"].append(split)
            rows["instruction"].append(INSTRUCTIONS["user2item"])
            rows["anchor"].append("\n".join(titles[item] for item in history))
            rows["positive"].append(texts[user["item"][at]])
            rows["negatives"].append([texts[item] for item in drawn])
    return rows


def chat(prompt: str, answer: str) -> Row:
    """Return a prompt and a completion as messages."""
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": answer}],
        "label": answer,
    }


def option_rows(batch: Row, titles: dict[str, str], negatives: Negatives) -> Row:
    """Return the sequential_recommendation samples of some users."""
    rows: dict[str, list[Any]] = {name: [] for name in ("split", "prompt", "completion", "label", "options")}
    for number, identity in enumerate(batch["user_id"]):
        user = {name: values[number] for name, values in batch.items()}
        rng = random.Random(identity + "options")  # noqa: S311
        known = set(user["seen"])
        for split, at in targets(user):
            positive = user["item"][at]
            options = [positive, *negatives.draw(positive, known, OPTIONS - 1, rng)]
            rng.shuffle(options)
            shown = [titles[item][:OPTION_CHARS] for item in options]
            history = "\n".join(f"- {titles[item]}" for item in user["item"][max(0, at - MAX_HISTORY) : at][::-1])
            lines = "\n".join(f"{letter}. {title}" for letter, title in zip(LETTERS, shown, strict=False))
            instruction = INSTRUCTIONS["sequential_recommendation"]
            prompt = f"{instruction}\n\nChosen so far, latest first:\n{history}\n\nOptions:\n{lines}"
            for name, value in chat(prompt, LETTERS[options.index(positive)]).items():
                rows[name].append(value)
            rows["split"].append(split)
            rows["options"].append(shown)
    return rows


def sentiment_row(row: Row, titles: dict[str, str]) -> Row:
    """Return a sentiment_analysis sample."""
    options, review = ", ".join(SENTIMENTS), clean(row["text"])[:REVIEW_CHARS]
    item = titles[row["item"]][:OPTION_CHARS]
    prompt = f"{INSTRUCTIONS['sentiment_analysis']}\n\nOptions: {options}\n\nItem: {item}\nReview: {review}"
    return {"split": split_of(row["user_id"]), **chat(prompt, SENTIMENTS[int(row["rating"]) - 1])}


def split_of(group: str) -> str:
    """Return a split drawn by a group's name."""
    share = random.Random(group).random()  # noqa: S311
    return "test" if share < 0.1 else "validation" if share < 0.2 else "train"


def related_rows(batch: Row, titles: dict[str, str], texts: dict[str, str], negatives: Negatives) -> Row:
    """Return the item2item samples of some items."""
    rows: dict[str, list[Any]] = {name: [] for name in ("split", "instruction", "anchor", "positive", "negatives")}
    for item, listed in zip(batch["parent_asin"], batch["bought_together"], strict=True):
        known = {item, *(listed or [])}
        for other in [other for other in listed or [] if other in titles and other != item][:PAIRS_PER_ITEM]:
            pair = " ".join(sorted((item, other)))
            drawn = negatives.draw(other, known, NEGATIVES, random.Random(pair))  # noqa: S311
            rows["split"].append(split_of(pair))
            rows["instruction"].append(INSTRUCTIONS["item2item"])
            rows["anchor"].append(texts[item])
            rows["positive"].append(texts[other])
            rows["negatives"].append([texts[negative] for negative in drawn])
    return rows


def relation_rows(batch: Row, titles: dict[str, str]) -> Row:
    """Return the product_relation_prediction samples of some items."""
    rows: dict[str, list[Any]] = {name: [] for name in ("split", "prompt", "completion", "label")}
    for item, listed in zip(batch["parent_asin"], batch["bought_together"], strict=True):
        for other in [other for other in listed or [] if other in titles and other != item][:PAIRS_PER_ITEM]:
            first, second = titles[item][:OPTION_CHARS], titles[other][:OPTION_CHARS]
            instruction = INSTRUCTIONS["product_relation_prediction"]
            prompt = f"{instruction}\n\nFirst product: {first}\nSecond product: {second}"
            for name, value in chat(prompt, "bought together").items():
                rows[name].append(value)
            rows["split"].append(split_of(" ".join(sorted((item, other)))))
    return rows


def convert(reviews: str, metadata: str, out: Path, processes: int) -> dict[str, int]:
    """Convert the raw files, write a Parquet file a task and split, and return how many samples each task has."""
    cache = str(out / "cache")
    raw = load_dataset("json", data_files=reviews, split="train", cache_dir=cache)
    items = load_dataset("json", data_files=metadata, split="train", cache_dir=cache)
    catalogue = items.map(item_row, remove_columns=items.column_names, num_proc=processes)
    catalogue = catalogue.filter(lambda row: row["title"] and "getTime" not in row["title"], num_proc=processes)
    titles = dict(zip(catalogue["item"], catalogue["title"], strict=True))
    texts = dict(zip(catalogue["item"], catalogue["text"], strict=True))

    frame = raw.select_columns(["user_id", "parent_asin", "rating", "timestamp", "text"]).to_pandas()
    frame = frame.rename(columns={"parent_asin": "item"}).drop_duplicates()
    frame = frame[frame["item"].isin(titles.keys()) & frame["rating"].between(1, 5)]
    frame = frame.sort_values(["user_id", "timestamp"]).drop_duplicates(["user_id", "item"])
    seen = frame.groupby("user_id", sort=False)["item"].agg(list).rename("seen")
    liked = frame[frame["rating"] >= MIN_RATING]
    users = liked.groupby("user_id", sort=False)["item"].agg(list).to_frame().join(seen).reset_index()
    held_out = liked.groupby("user_id", sort=False).tail(2).index
    training = frame.drop(held_out)
    negatives = Negatives(Counter(training["item"]), list(titles))
    long = training[training["text"].str.split().str.len() >= MIN_WORDS].drop_duplicates("user_id")

    histories = Dataset.from_pandas(users, preserve_index=False)
    reviewed = Dataset.from_pandas(long[["user_id", "item", "rating", "text"]], preserve_index=False)
    related = items.select_columns(["parent_asin", "bought_together"]).filter(
        lambda row: row["parent_asin"] in titles, num_proc=processes
    )

    def flat(dataset: Dataset, function: Any, **arguments: Any) -> Dataset:
        names = dataset.column_names
        return dataset.map(
            function, batched=True, batch_size=100, remove_columns=names, num_proc=processes, fn_kwargs=arguments
        )

    made = {
        "user2item": flat(histories, user_rows, titles=titles, texts=texts, negatives=negatives),
        "sequential_recommendation": flat(histories, option_rows, titles=titles, negatives=negatives),
        "sentiment_analysis": reviewed.map(
            sentiment_row, remove_columns=reviewed.column_names, num_proc=processes, fn_kwargs={"titles": titles}
        ),
        "item2item": flat(related, related_rows, titles=titles, texts=texts, negatives=negatives),
        "product_relation_prediction": flat(related, relation_rows, titles=titles),
    }
    for task, dataset in made.items():
        for split in ("train", "validation", "test"):
            part = dataset.filter(lambda row, wanted: row["split"] == wanted, fn_kwargs={"wanted": split})
            part.remove_columns("split").to_parquet(str(out / f"{task}-{split}.parquet"))
    return {task: len(dataset) for task, dataset in made.items()}


def main() -> None:
    """Convert and print the samples of each task and the seconds that it took, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--reviews", required=True, help="reviews in Amazon 2023 format")
    parser.add_argument("--metadata", required=True, help="metadata in Amazon 2023 format")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    started = time.monotonic()
    samples = convert(options.reviews, options.metadata, options.out, options.processes)
    print(json.dumps({"samples": samples, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
