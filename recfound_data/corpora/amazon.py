"""What the corpora of Amazon's shop share: how reviews become interactions, and metadata items and relations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self, TypeVar

import polars as pl
from pydantic import model_validator

from recfound_data.errors import RecfoundError
from recfound_data.files import expand
from recfound_data.sources import Unparsable
from recfound_data.tables import Batch, People, Source

FIRST_REVIEW = 801_619_200
"""1995-05-28, before the shop's first review; an earlier one has an impossible date."""
_MOST_FACTS = 8
_FACT_CHARS = 60
_LEVELS = 4
_ASIN = r"[0-9A-Z]{10}"
_NO_FACT = r"[<>@\\]|https?:|www\."
_MONEY = r"^\$?\s*[\d,]+(?:\.\d+)?$"

Reader = TypeVar("Reader", bound=Source)
Rows = Iterator[tuple[pl.DataFrame, list[Unparsable]]]


class AmazonReviews(Source):
    """A category of Amazon Reviews, or several of them.

    Attributes:
        reviews: path, glob or URL of the reviews; empty for none.
        metadata: path, glob or URL of the metadata; empty for none.
    """

    reviews: str
    metadata: str

    path_fields: ClassVar[tuple[str, ...]] = ("reviews", "metadata")
    relations: ClassVar[dict[str, str]]
    """The relation of each list of ids that `item_rows` gives."""
    last_review: ClassVar[int]
    """The time by which the corpus was collected, in seconds."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.reviews and not self.metadata:
            raise ValueError("name the files of `reviews`, of `metadata`, or of both")
        return self

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield interactions from the reviews, then items and relations from the metadata."""
        if self.reviews:
            for number, (frame, bad) in enumerate(self.review_rows()):
                if not number:
                    why = f"{self.reviews}: no review names who wrote it; is it the metadata?"
                    no_other_file(frame, "user_id", "item_id", why)
                yield interactions(frame, bad, people, self.last_review)
        if self.metadata:
            for frame, bad in self.item_rows():
                items = frame.drop_nulls("item_id").filter(pl.col("item_id") != "")
                drops = {"item unparsable": len(bad), "item without id": len(frame) - len(items)}
                named = items.drop(list(self.relations)).with_columns(domain=pl.lit(self.domain or self.label))
                yield Batch("items", named, drops, bad)
                yield relations(items, self.relations)

    def parts(self) -> list[Self]:
        """Return a reader for each file."""
        return file_parts(self)

    def review_rows(self) -> Rows:
        """Yield reviews, as `interactions` takes them, and lines that could not be parsed."""
        raise NotImplementedError

    def item_rows(self) -> Rows:
        """Yield items without their domain and their lists of related ids, and lines that could not be parsed."""
        raise NotImplementedError


def file_parts(source: Reader) -> list[Reader]:
    """Return a reader for each file of each path field, which has no other file."""
    nothing = dict.fromkeys(source.path_fields, "")
    return [
        source.model_copy(update={**nothing, field: path})
        for field in source.path_fields
        if getattr(source, field)
        for path in expand(getattr(source, field))
    ]


def no_other_file(frame: pl.DataFrame, column: str, given: str, why: str) -> None:
    """Raise RecfoundError if rows all have `given` and all lack `column`: they are another file's."""
    if len(frame) > 1 and frame[column].null_count() == len(frame) and not frame[given].null_count():
        raise RecfoundError(why)


def interactions(frame: pl.DataFrame, bad: list[Unparsable], people: People, last: int) -> Batch:
    """Return the interactions among reviews, drops counted.

    Args:
        frame: `user_id`, raw, `item_id`, `rating`, `timestamp` in seconds, maybe with a fraction, `text`.
        bad: lines that could not be parsed.
        people: hashes users.
        last: the time by which the corpus was collected; a later one is impossible.
    """
    complete = frame.drop_nulls(["user_id", "item_id", "rating", "timestamp"])
    complete = complete.filter((pl.col("user_id") != "") & (pl.col("item_id") != ""))
    rated = complete.filter(pl.col("rating").is_between(1, 5))
    dated = rated.filter(pl.col("timestamp").is_between(FIRST_REVIEW, last))
    # A user has several reviews in a block: hashing each once and joining takes less than half the time.
    users = dated.select(pl.col("user_id").unique()).with_columns(hashed=people.pseudonym(pl.col("user_id")))
    known = dated.join(users, on="user_id", how="left", maintain_order="left")
    time = pl.col("timestamp").cast(pl.Int64)
    found = known.select(pl.col("hashed").alias("user_id"), "item_id", "rating", time, "text")
    drops = {
        "review unparsable": len(bad),
        "review without user, item, rating or time": len(frame) - len(complete),
        "impossible rating": len(complete) - len(rated),
        "impossible date": len(rated) - len(dated),
    }
    return Batch("interactions", found, drops, bad)


def relations(items: pl.DataFrame, columns: Mapping[str, str]) -> Batch:
    """Return the relations that lists of ids hold.

    Args:
        items: `item_id` and the lists.
        columns: the relation of each list, by the name of its column.
    """
    lists = [
        items.select("item_id", other_id=pl.col(column), relation=pl.lit(relation))
        for column, relation in columns.items()
    ]
    pairs = pl.concat(lists).explode("other_id").drop_nulls().filter(pl.col("other_id") != "")
    others = pairs.filter(pl.col("item_id") != pl.col("other_id"))
    once = others.unique(maintain_order=True)
    drops = {
        "relation of an item to itself": len(pairs) - len(others),
        "relation repeated": len(others) - len(once),
    }
    return Batch("relations", once, drops)


def linked_items(text: pl.Expr) -> pl.Expr:
    """Return the ids that a piece of a page links to (`/dp/B00...`), or that a list written as JSON holds."""
    linked = text.str.extract_all(rf"/(?:dp|gp/product)/{_ASIN}")
    listed = text.str.extract_all(rf'"{_ASIN}"')
    found = pl.when(text.str.starts_with("[")).then(listed).otherwise(linked)
    return found.list.eval(pl.element().str.extract(rf"({_ASIN})\"?$"))


def levels(categories: pl.Expr) -> pl.Expr:
    """Return the first names of a list of categories, each once.

    The lists go on into marketing lines ("No expiration, no fees."); names have no full stop.
    """
    named = categories.list.filter(~pl.element().str.contains(r"[.!:]\s*$|^.{41,}"))
    return named.list.unique(maintain_order=True).list.head(_LEVELS).fill_null([])


def prose(*lists: str) -> pl.Expr:
    """Return the texts of columns of lists, joined."""
    return pl.concat_list(pl.col(*lists).fill_null([])).list.join(" ", ignore_nulls=True)


def item_facts(items: pl.DataFrame, known: Mapping[str, pl.Expr]) -> pl.Series:
    """Return each item's first few facts, those that are short enough to be read as such and hold no link or address.

    Args:
        items: the rows.
        known: what may be known of each, as text, by the fact's name.
    """
    rows = items.select(**known).with_row_index("row")
    value = pl.col("value").str.replace_all(r"\s+", " ").str.strip_chars()
    said = rows.unpivot(index="row", variable_name="name").drop_nulls("value").with_columns(value)
    short = said.filter(
        pl.col("value").str.len_chars().is_between(1, _FACT_CHARS) & ~pl.col("value").str.contains(_NO_FACT)
    )
    few = short.sort("row", maintain_order=True).group_by("row", maintain_order=True)
    lists = few.agg(facts=pl.struct("name", "value").head(_MOST_FACTS))
    return rows.select("row").join(lists, on="row", how="left", maintain_order="left")["facts"].fill_null([])


def price(text: pl.Expr) -> pl.Expr:
    """Return a price as the shop shows it, `$1,250.00` or `$3.99 - $9.99`; null where the text is none."""
    amount = pl.when(text.str.contains(_MONEY)).then(text.str.replace_all(r"[$,\s]", "")).cast(pl.Float64)
    cents = (amount * 100).round().cast(pl.Int64, strict=False)
    whole = (cents // 100).cast(pl.String)
    thousands = whole.str.replace(r"^(\d+)(\d{3})$", "$1,$2")
    shown = pl.concat_str(pl.lit("$"), thousands, pl.lit("."), (cents % 100).cast(pl.String).str.zfill(2))
    ranged = pl.when(text.str.contains(r"^\$[\d,.]+ - \$[\d,.]+$")).then(text)
    return pl.when(cents > 0).then(shown).otherwise(ranged)


def brand(text: pl.Expr) -> pl.Expr:
    """Return a brand without what the shop's page says around it ("Visit Amazon's ... Page")."""
    page = text.str.replace(r"(?i)^\s*Visit Amazon's (.+) Page\s*$", "$1")
    return page.str.replace(r"\s+Format:.*$", "").str.strip_chars()
