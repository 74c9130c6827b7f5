"""Look for leakage, duplicates and people in a dataset: `python tests/data/audit.py DIR`, exit code 1 if there are any.

A second opinion: it uses the Python standard library and pyarrow alone, knows the published layout and nothing of the
project's code, and holds the rows in plain dictionaries. It is for datasets that fit into memory.
"""

import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Row = dict[str, Any]
Rows = dict[str, dict[str, list[Row]]]

SPLITS = ("train", "validation", "test")
EMBEDDING = {"user2item", "query2item", "item2item"}
BY_TIME = {"user2item", "sequential_recommendation"}
SAME_GROUPS = (
    ("item2item", "product_relation_prediction"),
    ("answer_generation", "answerability_prediction"),
)
CHOICES = {
    "sequential_recommendation": 20,
    "sentiment_analysis": 5,
    "answerability_prediction": 2,
    "product_relation_prediction": 3,
    "product_matching": 2,
}
SHOWN_CHARS = 90
MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
CALL = re.compile(
    r"(?<![\w.-])(\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[ .-]\d{4}|\+\d{1,3}([ .-]\d{2,4}){3,4})(?!\w)"
)
NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.parquet")
HEX = re.compile(r"[0-9a-f]{16}")


def main(arguments: list[str]) -> int:
    """Print what is found in the dataset that is named, and return how the command ends."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "recfound.json").is_file():
        print("usage: python audit.py DIR, a folder that holds recfound.json", file=sys.stderr)
        return 2
    found = audit(Path(arguments[0]))
    for line in found:
        print(line)
    print(f"{arguments[0]}: {len(found)} findings")
    return int(bool(found))


def audit(folder: Path) -> list[str]:
    """Return what is wrong with a dataset, a line each."""
    rows, items = load(folder)
    found = [*layout(folder), *duplicates(rows, items), *people(rows, items), *answers(rows)]
    found += [*groups(rows), *targets(rows, items), *histories(rows, items), *pairs(rows, items)]
    return [*found, *negatives(rows, items)]


def load(folder: Path) -> tuple[Rows, dict[str, Row]]:
    """Return all rows by configuration and split, and the items by id; an item that is repeated is marked."""
    rows: Rows = {}
    for path in sorted(folder.glob("data/*/*.parquet")):
        split = path.name.split("-")[0]
        rows.setdefault(path.parent.name, {}).setdefault(split, []).extend(pq.read_table(path).to_pylist())
    items: dict[str, Row] = {}
    for path in sorted(folder.glob("items/*.parquet")):
        for item in pq.read_table(path).to_pylist():
            item["again"] = item["item_id"] in items
            items[item["item_id"]] = item
    return rows, items


def each(rows: Rows, task: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a configuration with their split."""
    for split, found in rows.get(task, {}).items():
        for row in found:
            yield split, row


def tasks(rows: Rows) -> list[str]:
    """Return the configurations that hold samples."""
    return [name for name in rows if name not in ("queries", "qrels")]


def letters(text: str) -> str:
    """Return a text in lower case with anything but letters and digits as single spaces."""
    kept = "".join(sign if unicodedata.category(sign)[0] in "LN" else " " for sign in text.lower())
    return " ".join(kept.split()) or text


def product(title: str) -> str:
    """Return what stands for a product: as much of its title as an option shows."""
    if len(title) > SHOWN_CHARS:
        cut = title[:SHOWN_CHARS]
        title = re.sub(r"\s+\S*$", "", cut) or cut
    return letters(title)


def prompt(row: Row) -> str:
    """Return what a generative sample asks."""
    return "\n".join(message["content"] for message in row["prompt"])


def body(row: Row) -> str:
    """Return what a sample asks about, without the phrasing before it."""
    return prompt(row).split("\n\n", 1)[-1]


def content(task: str, row: Row) -> tuple[str, str]:
    """Return what a sample asks and what answers it."""
    return (row["anchor"], row["positive"]) if task in EMBEDDING else (body(row), row["label"])


def user(row: Row) -> tuple[str, str]:
    """Return whose sample it is."""
    return row["corpus"], row["id"].split("-")[0]


def layout(folder: Path) -> Iterator[str]:
    """Compare the folder with the manifest: files and numbers of rows."""
    manifest = json.loads((folder / "recfound.json").read_text(encoding="utf-8"))
    there = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    listed = {"recfound.json", "README.md", *manifest["files"]}
    yield from (f"file that nobody lists: {name}" for name in sorted(there - listed))
    yield from (f"file that is not there: {name}" for name in sorted(listed - there))
    rows: Counter[tuple[str, str]] = Counter()
    for name in sorted(there & listed):
        parts = NUMBERED.fullmatch(Path(name).name)
        if parts and (folder / name).is_file():
            config = Path(name).parent.name
            rows[config, "train" if config == "items" else parts[1]] += pq.read_metadata(folder / name).num_rows
    told = {(config, split): n for config, entry in manifest["configs"].items() for split, n in entry["splits"].items()}
    for config, split in sorted({*told, *rows}):
        if told.get((config, split), 0) != rows[config, split]:
            yield f"rows of {config} {split}: {rows[config, split]}, listed {told.get((config, split), 0)}"


def duplicates(rows: Rows, items: dict[str, Row]) -> Iterator[str]:
    """Find ids, samples, judgements and queries that are there more than once."""
    yield from (f"item twice: {name}" for name, item in items.items() if item["again"])
    for task in tasks(rows):
        ids = Counter(row["id"] for _, row in each(rows, task))
        yield from (f"{task}: id {name} {times} times" for name, times in ids.items() if times > 1)
        where = defaultdict(list)
        for split, row in each(rows, task):
            where[content(task, row)].append((split, row["id"]))
        for places in where.values():
            if len(places) > 1:
                leak = "leak, " if len({split for split, _ in places}) > 1 else ""
                yield f"{task}: {leak}the same sample: {places}"
    judged = Counter((row["query_id"], row["item_id"]) for _, row in each(rows, "qrels"))
    yield from (f"qrels: {pair} {times} times" for pair, times in judged.items() if times > 1)
    asked = Counter((split, row["query_id"]) for split, row in each(rows, "queries"))
    yield from (f"queries: {query} {times} times" for query, times in asked.items() if times > 1)


def texts(value: Any) -> Iterator[str]:
    """Yield every text inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def people(rows: Rows, items: dict[str, Row]) -> Iterator[str]:
    """Find addresses and numbers of people in any text, and users that are not hashed."""
    every: Iterable[tuple[str, Row]] = [("items", item) for item in items.values()]
    for config in rows:
        every = [*every, *((config, row) for _, row in each(rows, config))]
    for config, row in every:
        for name, value in row.items():
            if name.endswith(("id", "ids")):
                continue
            for text in texts(value):
                told = ("@" in text and MAIL.search(text)) or CALL.search(text)
                if told:
                    yield f"{config}.{name}: {told[0]}"
    for task in tasks(rows):
        for _, row in each(rows, task):
            if not all(HEX.fullmatch(part) for part in row["id"].split("-")) or row["id"].count("-") != 1:
                yield f"{task}: id {row['id']} is no hash"
    named = {row["anchor_id"] for _, row in each(rows, "user2item")}
    named |= {row["query_id"] for _, row in each(rows, "queries") if row["task"] == "user2item"}
    yield from (f"user {name} is not hashed" for name in sorted(named) if not HEX.fullmatch(name))


def answers(rows: Rows) -> Iterator[str]:
    """Find labels that are none of the choices, and one question with two answers."""
    for task in tasks(rows):
        if task in EMBEDDING:
            continue
        said = defaultdict(set)
        for _, row in each(rows, task):
            said[body(row)].add(row["label"])
            choices = list("ABCDEFGHIJKLMNOPQRST") if task == "sequential_recommendation" else row["options"]
            if task in CHOICES and (len(set(row["options"])) != CHOICES[task] or row["label"] not in choices):
                yield f"{task}: {row['id']}: {row['label']!r} of {len(set(row['options']))} options"
            if [message["content"] for message in row["completion"]] != [row["label"]] or not row["label"].strip():
                yield f"{task}: {row['id']}: the completion is not the label"
        yield from (f"{task}: two answers: {text[:80]!r}" for text, labels in said.items() if len(labels) > 1)


def groups(rows: Rows) -> Iterator[str]:
    """Find groups on two sides of a split, in one task or over two that have the same groups."""
    sides: dict[str, dict[str, set[str]]] = {}
    for task in tasks(rows):
        found = sides.setdefault(task, defaultdict(set))
        for split, row in each(rows, task):
            found[row["id"].split("-")[0]].add(split)
        if task not in BY_TIME:
            yield from (
                f"leak, {task}: group {group} in {len(at)} splits" for group, at in found.items() if len(at) > 1
            )
    for first, second in SAME_GROUPS:
        for group in sides.get(first, {}).keys() & sides.get(second, {}).keys():
            if (
                len(sides[first][group]) == len(sides[second][group]) == 1
                and sides[first][group] != sides[second][group]
            ):
                yield f"leak, {first} and {second}: group {group} in different splits"


def chosen(task: str, row: Row, items: dict[str, Row]) -> str:
    """Return the product that a sample's user chose."""
    if task == "user2item":
        return product(items.get(row["positive_id"], {"title": ""})["title"])
    place = "ABCDEFGHIJKLMNOPQRST".find(row["label"])
    return product(row["options"][place]) if 0 <= place < len(row["options"]) else ""


def targets(rows: Rows, items: dict[str, Row]) -> Iterator[str]:
    """Find what a user chose in one split and again in another, in any task."""
    sides = defaultdict(set)
    for task in BY_TIME:
        for split, row in each(rows, task):
            sides[user(row), chosen(task, row, items)].add(split)
    for (who, what), at in sides.items():
        if len(at) > 1:
            yield f"leak: user {who[1]} chose {what!r} in {sorted(at)}"


def lines(task: str, row: Row) -> Iterator[str]:
    """Yield the titles that a sample shows its user to have chosen."""
    shown = row["anchor"] if task == "user2item" else prompt(row)
    for line in shown.split("\n"):
        if task == "user2item":
            yield line
        elif line.startswith("- "):
            title = re.sub(r": \d+(\.\d+)?$", "", line[2:]) if task == "user_profile" else line[2:]
            yield title
            yield re.sub(r" \[[^\[\]]*\]$", "", title)
        elif line.startswith("Item: "):
            yield line[6:]


def histories(rows: Rows, items: dict[str, Row]) -> Iterator[str]:
    """Find held-out choices among what training shows of the same user."""
    held = {
        (user(row), chosen(task, row, items)) for task in BY_TIME for split, row in each(rows, task) if split != "train"
    }
    for task in (*sorted(BY_TIME), "sentiment_analysis", "user_profile"):
        for row in rows.get(task, {}).get("train", []):
            told = {title for title in lines(task, row) if (user(row), product(title)) in held}
            if told:
                yield f"leak, {task}: {row['id']} shows {sorted(told)}"


def pairs(rows: Rows, items: dict[str, Row]) -> Iterator[str]:
    """Find pairs of products, and queries, on two sides of a split; whatever their ids say."""
    sides = defaultdict(set)
    for split, row in each(rows, "item2item"):
        if row["anchor_id"] in items and row["positive_id"] in items:
            both = sorted(product(items[row[end]]["title"]) for end in ("anchor_id", "positive_id"))
            if both[0] == both[1]:
                yield f"item2item: {row['id']} joins a product with itself"
            sides[row["corpus"], row["domain"], *both].add(split)
    for split, row in each(rows, "product_relation_prediction"):
        shown = [line.split(": ", 1)[1] for line in body(row).split("\n") if ": " in line]
        if len(shown) == 2:
            sides[row["corpus"], row["domain"], *sorted(map(product, shown))].add(split)
    yield from (f"leak: pair {pair[2:]} in {sorted(at)}" for pair, at in sides.items() if len(at) > 1)
    asked = defaultdict(set)
    for split, row in each(rows, "query2item"):
        asked[row["corpus"], row["domain"], letters(row["anchor"])].add(split)
    yield from (f"leak: query {query[2]!r} in {sorted(at)}" for query, at in asked.items() if len(at) > 1)


def negatives(rows: Rows, items: dict[str, Row]) -> Iterator[str]:
    """Find texts that are not their items', and negatives that are positives, duplicates of them or out of place."""
    known: dict[str, set[str]] = defaultdict(set)
    least = {row["query_id"]: 2 if row["task"] == "query2item" else 1 for _, row in each(rows, "queries")}
    for _, row in each(rows, "qrels"):
        if row["grade"] >= least.get(row["query_id"], 1):
            known[row["query_id"]].add(row["item_id"])
    for task in sorted(EMBEDDING & rows.keys()):
        for _, row in each(rows, task):
            said = [row["positive"], row["negative"], *row["more_negatives"]]
            ids = [row["positive_id"], *row["negative_ids"]]
            if len(said) != len(ids) or not all(name in items and items[name]["text"] for name in ids):
                yield f"{task}: {row['id']} names items that are not there"
                continue
            if [items[name]["text"] for name in ids] != said:
                yield f"{task}: {row['id']} holds texts that are not its items'"
            first = items[row["positive_id"]]
            if row["positive_id"] not in known[row["anchor_id"]]:
                yield f"{task}: {row['id']}: its positive is not in qrels"
            for name in row["negative_ids"]:
                same = product(items[name]["title"]) == product(first["title"])
                place = [(item["corpus"], item["domain"]) for item in (items[name], first)]
                if same or place[0] != place[1] or name in known[row["anchor_id"]] or name == row["anchor_id"]:
                    yield f"{task}: {row['id']}: negative {name} is a positive, its duplicate or of another place"
            if any(one == two for one, two in combinations(row["negative_ids"], 2)):
                yield f"{task}: {row['id']}: a negative twice"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
