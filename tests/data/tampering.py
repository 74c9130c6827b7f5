"""Change a dataset on disk and make manifest and card agree with it again, so that only the planted fault is left."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recfound_data.card import dataset_card

SCHEMA = {
    "id": pl.String, "task": pl.String, "corpus": pl.String, "domain": pl.String,
    "prompt": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
    "completion": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
    "options": pl.List(pl.String), "label": pl.String, "label_source": pl.String,
}  # fmt: skip
FIVE = ["very negative", "negative", "neutral", "positive", "very positive"]
RELATIONS = ["bought together", "viewed together", "similar"]
TRIPLES = '[{"attribute":"Colour","value":"teal","source":"title"},{"attribute":"Size","value":null,"source":null}]'


class Tampered:
    """A dataset that a test damages; each of its files holds one split, or one corpus's items."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, config: str, split: str) -> Path:
        """The file of a split, or of a corpus's items."""
        folder = "items" if config == "items" else f"data/{config}"
        return self.folder / folder / f"{split}-00000-of-00001.parquet"

    def read(self, config: str, split: str) -> pl.DataFrame:
        return pl.read_parquet(self.path(config, split))

    def write(self, config: str, split: str, rows: pl.DataFrame) -> None:
        """Write other rows, whatever their columns."""
        rows.write_parquet(self.path(config, split))
        self.seal()

    def change(self, config: str, split: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Write the rows with the values that `change` returns for one; the first row for which there are some."""
        rows = self.read(config, split)
        found = rows.to_dicts()
        at, values = next((at, values) for at, row in enumerate(found) if (values := change(row)) is not None)
        found[at] |= values
        self.write(config, split, pl.DataFrame(found, schema=rows.schema))

    def add(self, config: str, split: str, **row: Any) -> None:
        """Append a row."""
        rows = self.read(config, split)
        self.write(config, split, pl.concat([rows, pl.DataFrame([row], schema=rows.schema)]))

    def judge(self, split: str, task: str, text: str, query_id: str, item_id: str, grade: int = 1) -> None:
        """List an item for a query in this split and in no other; the query is added where the split lacks it."""
        for name in ("train", "validation", "test"):
            graded = self.read("qrels", name)
            named = (pl.col("query_id") == query_id) & (pl.col("item_id") == item_id)
            self.write("qrels", name, graded.filter(~named))
        self.add("qrels", split, query_id=query_id, item_id=item_id, grade=grade)
        if query_id not in self.read("queries", split)["query_id"]:
            self.add("queries", split, query_id=query_id, task=task, text=text)

    def give(self, task: str, splits: dict[str, list[dict[str, Any]]]) -> None:
        """Write a generative task whole, in place of what was there of it."""
        shutil.rmtree(self.folder / "data" / task, ignore_errors=True)
        (self.folder / "data" / task).mkdir(parents=True)
        manifest = self.manifest()
        corpora: dict[str, dict[str, int]] = {}
        for split, found in splits.items():
            pl.DataFrame(found, schema=SCHEMA).write_parquet(self.path(task, split))
            for given in found:
                corpora.setdefault(given["corpus"], {}).setdefault(split, 0)
        manifest["configs"][task] = {
            "splits": {split: len(found) for split, found in splits.items()},
            "corpora": corpora,
        }
        (self.folder / "recfound.json").write_text(json.dumps(manifest), encoding="utf-8")
        self.seal()

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "recfound.json").read_text(encoding="utf-8"))

    def seal(self) -> None:
        """Put the files' sizes, hashes and counts into the manifest, and write the card anew."""
        after = self.manifest()
        others = {name: entry for name, entry in after["files"].items() if not name.endswith(".parquet")}
        after["files"] = others | {
            path.relative_to(self.folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(self.folder.rglob("*.parquet"))
        }
        for config, entry in after["configs"].items():
            if config == "items":
                counts = {name: {"train": len(self.read("items", name))} for name in entry["corpora"]}
                entry |= {"splits": {"train": sum(count["train"] for count in counts.values())}, "corpora": counts}
                continue
            frames = {split: self.read(config, split) for split in entry["splits"]}
            entry["splits"] = {split: len(frame) for split, frame in frames.items()}
            if "corpora" in entry:
                counted = {split: dict(frame.group_by("corpus").len().iter_rows()) for split, frame in frames.items()}
                entry["corpora"] = {
                    corpus: {split: counted[split][corpus] for split in counted if corpus in counted[split]}
                    for corpus in entry["corpora"]
                }
        text = json.dumps(after, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (self.folder / "recfound.json").write_text(text, encoding="utf-8")
        (self.folder / "README.md").write_text(dataset_card(self.folder, after), encoding="utf-8")


def row(task: str, number: int, asked: str, label: str, options: Sequence[str] = (), **other: str) -> dict[str, Any]:
    """A generative sample of a corpus named `hand`, in a group of its own."""
    given = {
        "id": f"{number:016x}-{number:016x}",
        "task": task,
        "corpus": "hand",
        "domain": "things",
        "prompt": [{"role": "user", "content": f"Please do this, as in way {number % 3}.\n\n{asked}"}],
        "completion": [{"role": "assistant", "content": label}],
        "options": list(options),
        "label": label,
        "label_source": "corpus",
    }
    return given | other


def samples(number: int) -> list[dict[str, Any]]:
    """One sound sample of each task that the shop's four do not cover; other numbers give other texts."""
    thing, both = f"Lamp number {number}", ("yes", "no")
    said = f"User: Is {thing} in stock?\nAssistant: Yes.\nUser: What does it cost?"
    product = f"Attributes:\n- Colour\n- Size\n\nProduct:\n- title: {thing}, teal"
    review = f"Item: {thing}\nReview: I have had it for {number} weeks and would not want to be without it any more."
    history = f"Rated choices:\n- {thing} [Lamps; by Lumo]: 4.5"
    width = f"Question: How wide is {thing}?\n\nReviews:\n- Nice."
    offers = f"Offer 1:\nTitle: {thing}\nPrice: 12\n\nOffer 2:\nTitle: {thing}, teal"
    pair = f"First product: {thing}\nSecond product: Bulb"
    made = {"label_source": "composed"}
    return [
        row("query_rewriting", number, f"Dialogue:\n{said}", said.replace("does it cost", f"does {thing} cost")),
        row("attribute_value_extraction", number, product, TRIPLES),
        row("answer_generation", number, f"Question: How tall is {thing}?", f"About {number} centimetres."),
        row("sentiment_analysis", number, f"Options: {', '.join(FIVE)}\n\n{review}", FIVE[number % 5], FIVE),
        row("user_profile", number, history, "Likes lamps.", **made),
        row("answerability_prediction", number, width, "no", both),
        row("product_relation_prediction", number, pair, RELATIONS[number % 3], RELATIONS),
        row("product_matching", number, offers, "yes", both),
        row("item_profile", number, f"Title: {thing}\nBrand: Lumo", f"{thing} is a lamp by Lumo.", **made),
    ]


def write_by_hand(folder: Path) -> Tampered:
    """Write a dataset of the nine tasks: three samples of each for training, one for validation, one for the test."""
    terms = {
        "title": "Things by hand", "address": "https://example.com/things", "licence": "CC0",
        "citation": "Nobody, Things, 2020.", "redistributable": True,
    }  # fmt: skip
    manifest = {
        "schema_version": "1.0",
        "recfound": "0.1.0",
        "recipe": {"split": "leave_last", "item_text_chars": 600},
        "recipe_sha256": "0" * 64,
        "seed": 0,
        "user_key": True,
        "configs": {},
        "drops": {"hand": {"sample that was not good enough": 3}},
        "files": {},
        "corpora": {"hand": {"reader": "hand", "terms": terms}},
    }
    folder.mkdir(parents=True)
    (folder / "recfound.json").write_text(json.dumps(manifest), encoding="utf-8")
    made = Tampered(folder)
    columns = zip(*(samples(number) for number in range(1, 6)), strict=True)
    for first, second, third, fourth, fifth in columns:
        given = {"train": [first, second, third], "validation": [fourth], "test": [fifth]}
        made.give(first["task"], given)
    return made
