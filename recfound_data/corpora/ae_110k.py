"""AE-110K: titles of sports goods with values of some attributes, as published triples or in a JSON form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import model_validator

from recfound_data.cleaning import clean, title_key
from recfound_data.identity import stable_id
from recfound_data.records import Values, in_batches, json_records
from recfound_data.sources import Block, Unparsable, line_blocks, text_lines
from recfound_data.tables import Batch, People, Source, Terms

_BETWEEN = "\x01"
_TRIPLE = ("title", "attribute", "value")
_FOUND = pl.List(pl.Struct({"attribute": pl.String, "value": pl.String, "source": pl.String}))


class Ae110k(Source):
    """AE-110K.

    Attributes:
        triples: path, glob or URL of `publish_data.txt`: title, attribute, value a line; it has no split.
        train: `train.jsonl` of the JSON form: `input`, `category`, `target_scores`.
        test: `test.jsonl` of the JSON form.
    """

    corpus: Literal["ae_110k"] = "ae_110k"
    triples: str = ""
    train: str = ""
    test: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("triples", "train", "test")
    terms: ClassVar[Terms] = Terms(
        title="AE-110K",
        address="https://github.com/cubenlp/ACL19_Scaling_Up_Open_Tagging",
        licence="released by its authors for academic research only",
        citation="Huimin Xu, Wenting Wang, Xin Mao, Xinyu Jiang, Man Lan. Scaling up Open Tagging from Tens to "
        "Thousands: Comprehension Empowered Attribute Value Extraction from Product Title. ACL 2019.",
        redistributable=False,
    )

    @model_validator(mode="after")
    def _names_a_file(self) -> Self:
        if not self.paths():
            raise ValueError("names no file; give `triples`, `train` or `test`")
        return self

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people in this corpus)
        """Yield attributes: a row a triple, or a row a title of the JSON form."""
        for block in line_blocks(self.triples) if self.triples else ():
            frame, bad = _triples(block)
            rows = self._rows(_one_each(frame), None)
            yield self._batch(rows, {"line unparsable": len(bad)}, bad)
        for path, split in ((self.train, "train"), (self.test, "test")):
            for batch in in_batches("attributes", json_records(path), _of_title) if path else ():
                rows = self._rows(batch.frame, split)
                yield self._batch(rows, batch.drops, batch.unparsable)

    def _rows(self, frame: pl.DataFrame, split: str | None) -> pl.DataFrame:
        # Offers that read the same are one product; a triple of a title and the next one belong together.
        product = stable_id(title_key(clean(pl.col("texts").list.first().struct.field("text"))))
        domain = pl.lit(self.domain) if self.domain else pl.col("domain").fill_null(self.label)
        return frame.with_columns(product_id=product, split=pl.lit(split, pl.String), domain=domain)

    def _batch(self, rows: pl.DataFrame, drops: dict[str, int], bad: list[Unparsable]) -> Batch:
        """Return the rows without the values that their titles do not hold."""
        flat = rows.with_row_index("row").explode("attributes", empty_as_null=False, keep_nulls=False)
        title = pl.col("texts").list.first().struct.field("text")
        value = pl.col("attributes").struct.field("value")
        right = flat.filter(value.is_null() | (title.str.contains(value, literal=True) & (value != "")))
        lists = right.group_by("row", maintain_order=True).agg("attributes")
        kept = rows.drop("attributes").with_row_index("row").join(lists, on="row", how="inner").sort("row").drop("row")
        counted = {
            "value that its title does not hold": len(flat) - len(right),
            "title without a label left": len(rows) - len(kept),
        }
        return Batch("attributes", kept, {**drops, **counted}, bad)


def _triples(block: Block) -> tuple[pl.DataFrame, list[Unparsable]]:
    lines = text_lines(block).with_columns(fields=pl.col("line").str.split(_BETWEEN))
    fields = [
        pl.col("fields").list.get(place, null_on_oob=True).str.strip_chars().alias(name)
        for place, name in enumerate(_TRIPLE)
    ]
    lines = lines.with_columns(*fields)
    filled = pl.all_horizontal(pl.col(name).fill_null("") != "" for name in _TRIPLE)
    whole = filled & (pl.col("fields").list.len() == len(_TRIPLE))
    bad = [
        Unparsable(block.path, number, "expected title, attribute and value, separated by \\u0001")
        for number in lines.filter(~whole)["number"]
    ]
    return lines.filter(whole).select(_TRIPLE), bad


def _one_each(triples: pl.DataFrame) -> pl.DataFrame:
    """Return a row of `attributes` for every triple."""
    value = pl.when(pl.col("value") != "NULL").then("value")
    source = pl.when(value.is_not_null()).then(pl.lit("title"))
    one = pl.struct("attribute", value=value, source=source)
    text = pl.struct(source=pl.lit("title"), text=pl.col("title"))
    return triples.select(
        texts=pl.concat_list(text), attributes=pl.concat_list(one).cast(_FOUND), domain=pl.lit(None, pl.String)
    )


def _of_title(values: Values) -> list[Values] | str:
    title, scores = values.get("input"), values.get("target_scores")
    if not isinstance(title, str) or not title.strip() or not isinstance(scores, dict):
        return "record without a title or attributes"
    found: list[dict[str, Any]] = []
    for attribute, choices in scores.items():
        stated = [value for value in choices if value != "n/a"]
        found += [{"attribute": attribute, "value": value, "source": "title"} for value in stated]
        if not stated:
            found.append({"attribute": attribute, "value": None, "source": None})
    texts = [{"source": "title", "text": title}]
    return [{"texts": texts, "attributes": found, "domain": values.get("category")}]
