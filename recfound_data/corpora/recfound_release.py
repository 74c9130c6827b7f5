"""The finished samples that the authors of RecFound released, so that results on them can be compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

import polars as pl

from recfound_data.cleaning import clean, product_key, shorten, title_key
from recfound_data.errors import RecfoundError
from recfound_data.identity import stable_id
from recfound_data.records import Record, Values, json_items, json_records
from recfound_data.sources import Unparsable, expand, line_blocks
from recfound_data.tables import TABLES, Batch, People, Source, Terms

_BATCH_ROWS = 5_000
_ORDER = ("test", "validation", "train")
_TITLE_CHARS = 200
_EMBEDDING = {
    "user2item": ("Emb_user", "U2I", "user2item"),
    "query2item": ("Emb_query", "Q2I", "query2item"),
    "item2item": ("Emb_item", "I2I", "item2item"),
}
_GENERATIVE = {
    "query_rewriting": ("QR", "query_rewriting"),
    "attribute_value_extraction": ("AVE", "attribute_value_extraction"),
    "answer_generation": ("AG", "answer_generation"),
    "sequential_recommendation": ("SR", "sequential_recommendation"),
    "sentiment_analysis": ("SA", "sentiment_analysis"),
    "user_profile": ("UP", "user_profile"),
    "answerability_prediction": ("AP", "answerability_prediction"),
    "product_relation_prediction": ("PRP", "product_relation_prediction"),
    "product_matching": ("PM", "product_matching"),
    "item_profile": ("IP", "item_profile"),
}
_SPLIT_WORDS = {
    "test": "test",
    "eval": "validation",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "train": "train",
}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


RELEASED_NAMES = {_key(name): task for task, names in (_EMBEDDING | _GENERATIVE).items() for name in names}
"""Our task by the name that the released samples give it, in lower case, letters and digits alone."""


class RecFoundRelease(Source):
    """The released samples of RecFound.

    Attributes:
        samples: path, glob or URL of the files: JSON lines, or one JSON list.
        split: the split of all of them; empty takes it from each file's name (`train`, `eval`, `test`).
    """

    corpus: Literal["recfound_release"] = "recfound_release"
    samples: str
    split: Literal["", "train", "validation", "test"] = ""

    path_fields: ClassVar[tuple[str, ...]] = ("samples",)
    terms: ClassVar[Terms] = Terms(
        title="RecFound's released samples",
        address="https://huggingface.co/datasets/Anonqwq/RecFound",
        licence="none stated; made of corpora that have terms of their own",
        citation="Generative Representational Learning of Foundation Models for Recommendation. arXiv 2506.11999.",
        redistributable=False,
    )

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield the items of embedding samples, then the samples, file by file, the test split first.

        A sample is dropped that a split read earlier already asks: the held-out splits stay as they were released.
        """
        files = [(self.split or _split_of(path), path) for path in expand(self.samples)]
        earlier = _Earlier()
        for split, path in sorted(files, key=lambda file: _ORDER.index(file[0])):
            for rows, drops, bad in _sample_rows(_records(path)):
                made = _made(rows, split, people)
                kept, more = earlier.without_known(made)
                yield Batch("items", self._items(earlier.new_items(kept)))
                yield Batch("made", kept.select(list(TABLES["made"])), {**drops, **more}, bad)

    def _items(self, items: pl.DataFrame) -> pl.DataFrame:
        """Return rows of `items`: the title is the first line, or what of it fits; the description is the rest."""
        title = shorten(pl.col("text").str.extract(r"^([^\n]*)"), _TITLE_CHARS)
        rest = pl.col("text").str.slice(title.str.len_chars()).str.strip_chars()
        return items.select(
            item_id="item_id", title=title, description=rest, domain=pl.lit(self.domain or self.label, pl.String)
        )


class _Earlier:
    """What earlier batches held, as hashes."""

    def __init__(self) -> None:
        self._items: set[str] = set()
        self._asked: dict[str, str] = {}

    def new_items(self, made: pl.DataFrame) -> pl.DataFrame:
        """Return `item_id` and `text` of the items of the samples that no earlier batch gave."""
        ends = [
            made.filter(pl.col("task") == "item2item").select(item_id="anchor_item", text="anchor"),
            made.select(item_id="positive", text="positive_text"),
            made.select(item_id="negatives", text="negative_texts").explode(
                "item_id", "text", empty_as_null=False, keep_nulls=False
            ),
        ]
        items = pl.concat(ends).drop_nulls().unique("item_id", keep="first", maintain_order=True)
        fresh = [item not in self._items for item in items["item_id"]]
        self._items.update(items["item_id"])
        return items.filter(pl.Series(fresh, dtype=pl.Boolean))

    def without_known(self, made: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
        """Return the samples that ask something new, and how many went.

        Nothing is asked in two splits; a prompt is asked once, an anchor has as many positives as it likes.
        """
        keep, drops = [], Counter[str]()
        for split, asked, pair, prompt in made.select("split", "asked", "pair", "prompt").iter_rows():
            asks = [asked] if pair is None else [asked, pair]
            leaks = any(self._asked.get(key, split) != split for key in asks)
            again = prompt is not None and asked in self._asked
            drops["sample that a split held out from it asks too"] += leaks
            drops["prompt repeated"] += again and not leaks
            keep.append(not leaks and not again)
            if keep[-1]:
                self._asked.update(dict.fromkeys(asks, split))
        return made.filter(pl.Series(keep, dtype=pl.Boolean)), dict(drops)


def _split_of(path: str) -> str:
    words = re.split(r"[^a-z]+", path.replace("\\", "/").rsplit("/", 1)[-1].lower())
    found = [_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS]
    if not found:
        raise RecfoundError(f"{path}: its name tells no split (train, eval or test); set `split` in the recipe")
    return found[-1]


def _records(path: str) -> Iterator[Record | Unparsable]:
    first = next(line_blocks(path, block_bytes=1 << 16), None)
    if first is None or not first.data.lstrip().startswith(b"["):
        yield from json_records(path)
        return
    for number, value in json_items(path):
        if isinstance(value, dict):
            yield Record(path, number, value)
        else:
            yield Unparsable(path, number, f"expected an object, found {type(value).__name__}")


def _sample_rows(
    records: Iterable[Record | Unparsable],
) -> Iterator[tuple[list[Values], dict[str, int], list[Unparsable]]]:
    rows: list[Values] = []
    drops: Counter[str] = Counter()
    bad: list[Unparsable] = []
    for record in records:
        if isinstance(record, Unparsable):
            bad.append(record)
            drops["record unparsable"] += 1
        elif isinstance(made := _of_record(record.values), str):
            drops[made] += 1
        else:
            rows += made
        if len(rows) + len(bad) >= _BATCH_ROWS:
            yield rows, dict(drops), bad
            rows, drops, bad = [], Counter(), []
    yield rows, dict(drops), bad


def _of_record(values: Values) -> list[Values] | str:
    name = values.get("task")
    task = RELEASED_NAMES.get(_key(name)) if isinstance(name, str) else None
    if task is None:
        return f"sample of unknown task {str(name)[:60]!r}"
    own = {"task": task, "sample_id": str(values.get("id", ""))}
    if task in _GENERATIVE:
        text = values.get("text")
        if not isinstance(text, list) or len(text) < 2 or not all(isinstance(one, str) and one.strip() for one in text):
            return "generative sample without a prompt and an answer"
        if len(text) > 2:
            return "generative sample of several turns"
        return [{**own, "prompt": text[0].strip(), "answer": text[1].strip()}]
    queries, positives, negatives = (_pairs(values.get(name)) for name in ("query", "pos", "neg"))
    if len(queries) != 1 or not positives or not negatives:
        return "embedding sample without an anchor, a positive or a negative"
    (instruction, anchor), texts = queries[0], [text for _, text in negatives]
    return [
        {**own, "instruction": instruction, "anchor": anchor, "positive_text": text, "negative_texts": texts}
        for _, text in positives
    ]


def _pairs(value: Any) -> list[tuple[str, str]]:
    """Return the instruction and text of one pair, of a list of pairs, or of texts that have no instruction."""
    if isinstance(value, str):
        found = [("", value)]
    elif not isinstance(value, list):
        found = []
    elif len(value) == 2 and all(isinstance(one, str) for one in value):
        found = [(value[0], value[1])]
    else:
        found = [pair for one in value for pair in _pairs(one)]
    return [(instruction.strip(" \t\n:"), text) for instruction, text in found if text.strip()]


_RAW: dict[str, Any] = {
    **dict.fromkeys(("task", "sample_id", "instruction", "anchor", "positive_text", "prompt", "answer"), pl.String),
    "negative_texts": pl.List(pl.String),
}


def _made(rows: list[Values], split: str, people: People) -> pl.DataFrame:
    """Return rows of `made`, and beside its columns the items' texts and hashes of what a sample asks.

    Texts of embedding samples are cleaned here, a line at a time: an item's id is a hash of its text.
    """
    raw = pl.DataFrame([{name: row.get(name) for name in _RAW} for row in rows], schema=_RAW).with_row_index("row")
    texts = raw.with_columns(anchor=_lines(pl.col("anchor")), positive_text=_lines(pl.col("positive_text")))
    flat = raw.select("row", text="negative_texts").explode("text", empty_as_null=False, keep_nulls=False)
    flat = flat.with_columns(text=_lines(pl.col("text"))).filter(pl.col("text") != "")
    lists = flat.group_by("row", maintain_order=True).agg(negative_texts="text", negatives=stable_id(pl.col("text")))
    texts = texts.drop("negative_texts").join(lists, on="row", how="left", maintain_order="left")
    question = title_key(clean(pl.coalesce("anchor", "prompt")))
    ends = [product_key(clean(pl.col(name).str.extract(r"^([^\n]*)"))) for name in ("anchor", "positive_text")]
    pair = stable_id("pair", pl.min_horizontal(ends), pl.max_horizontal(ends))
    return texts.with_columns(
        sample_id=people.pseudonym(pl.col("sample_id")),
        # It names a category, but in samples of histories it may name a user.
        source=pl.lit(None, pl.String),
        positive=stable_id(pl.col("positive_text")),
        anchor_item=stable_id(pl.col("anchor")),
        split=pl.lit(split),
        asked=stable_id(pl.col("task"), question),
        pair=pl.when(pl.col("task") == "item2item").then(pair),
    )


def _lines(text: pl.Expr) -> pl.Expr:
    """Return `text` cleaned line by line, empty lines left out; null stays null."""
    lines = text.str.split("\n").list.eval(clean(pl.element())).list.eval(pl.element().filter(pl.element() != ""))
    return lines.list.join("\n")
