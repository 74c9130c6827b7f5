"""Amazon Reviews 2014: reviews and metadata, JSON lines or a Python literal a line, or ratings alone as CSV."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, Literal

import polars as pl

from recfound_data.corpora.amazon import AmazonReviews, Rows, brand, item_facts, levels, no_other_file, price
from recfound_data.files import expand, form
from recfound_data.records import block_literals
from recfound_data.sources import Block, Unparsable, frames, json_lines, line_blocks
from recfound_data.tables import Terms

_REVIEW = {
    "reviewerID": pl.String,
    "asin": pl.String,
    "overall": pl.Float32,
    "unixReviewTime": pl.Float64,
    "reviewText": pl.String,
}
_NAMES = dict(zip(_REVIEW, ("user_id", "item_id", "rating", "timestamp", "text"), strict=True))
_RATINGS_ONLY = "reviewerID,asin,overall,unixReviewTime"
_RELATED = ("also_bought", "bought_together", "also_viewed", "buy_after_viewing")
_ITEM = {
    "asin": pl.String,
    "title": pl.String,
    "description": pl.String,
    "categories": pl.List(pl.List(pl.String)),
    "brand": pl.String,
    "price": pl.String,
    "related": pl.Struct({name: pl.List(pl.String) for name in _RELATED}),
}
_LITERAL = re.compile(rb"(?m)^\s*\{u?'")
_LOOKED_AT = 1 << 16


class AmazonReviews2014(AmazonReviews):
    """A category of Amazon Reviews 2014.

    Attributes:
        reviews: path, glob or URL of `reviews_<Category>_5.json.gz`, `reviews_<Category>.json.gz` or
            `ratings_<Category>.csv`.
        metadata: path, glob or URL of `meta_<Category>.json.gz`.
    """

    corpus: Literal["amazon_reviews_2014"] = "amazon_reviews_2014"

    relations: ClassVar[dict[str, str]] = {
        "also_bought": "bought together",
        "bought_together": "bought together",
        "also_viewed": "viewed together",
        "buy_after_viewing": "viewed together",
    }
    last_review: ClassVar[int] = 1_420_070_400  # 2015-01-01: the corpus ends in July 2014
    terms: ClassVar[Terms] = Terms(
        title="Amazon product data (2014)",
        address="https://jmcauley.ucsd.edu/data/amazon/",
        licence="no licence text; made available by its authors for research",
        citation="Julian McAuley, Christopher Targett, Qinfeng Shi, Anton van den Hengel. Image-based recommendations "
        "on styles and substitutes. SIGIR 2015.",
        redistributable=False,
    )

    def review_rows(self) -> Rows:
        """Yield reviews and lines that could not be parsed."""
        for path in expand(self.reviews):
            if form(path) == "csv":
                rows = frames(path, _REVIEW, optional=("reviewText",), header=_RATINGS_ONLY)
            else:
                rows = _lines(path, _REVIEW)
            yield from ((frame.rename(_NAMES), bad) for frame, bad in rows)

    def item_rows(self) -> Rows:
        """Yield items with their lists of related ids, and lines that could not be parsed."""
        first = pl.col("categories").list.first()
        for number, (frame, bad) in enumerate(_lines(self.metadata, _ITEM)):
            if not number:
                no_other_file(frame, "title", "asin", f"{self.metadata}: no item has a title; are they the reviews?")
            items = frame.select(
                pl.col("related").struct.field(*_RELATED),
                item_id=pl.col("asin"),
                title=pl.col("title"),
                description=pl.col("description"),
                categories=levels(first),
                brand=brand(pl.col("brand")),
                facts=item_facts(frame, {"Main category": first.list.first(), "Price": price(pl.col("price"))}),
            )
            yield items, bad


def _lines(pattern: str, schema: dict[str, Any]) -> Rows:
    """Yield the rows of files of JSON lines or of Python literals, whichever a block holds."""
    for block in line_blocks(pattern):
        if _LITERAL.search(block.data[:_LOOKED_AT]):
            block, bad = _as_json(block)
            frame, more = json_lines(block, schema)
            yield frame, sorted(bad + more, key=lambda found: found.line)
        else:
            yield json_lines(block, schema)


def _as_json(block: Block) -> tuple[Block, list[Unparsable]]:
    """Return a block of Python literals as JSON with the same numbers of lines, and the lines that are no literals."""
    lines = [b""] * (block.data.count(b"\n") + 1)
    bad: list[Unparsable] = []
    for record in block_literals(block):
        if isinstance(record, Unparsable):
            bad.append(record)
            continue
        try:
            lines[record.line - block.first_line] = json.dumps(record.values, skipkeys=True, default=str).encode()
        except (ValueError, RecursionError) as error:  # a number of more digits than Python writes
            bad.append(Unparsable(block.path, record.line, str(error)[:200]))
    return Block(block.path, block.first_line, b"\n".join(lines)), bad
