"""MovieLens ratings and films: the csv form (latest, 25M, 32M) and the `::` form (1M, 10M)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import polars as pl

from recfound_data.sources import Block, Unparsable, csv_frame, line_blocks, text_lines
from recfound_data.tables import Batch, People, Source, Terms

_RATING = {"userId": pl.String, "movieId": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
_FILM = {"movieId": pl.String, "title": pl.String, "genres": pl.String}
_FIRST_RATING = 788_918_400  # 1995-01-01, the year MovieLens opened
_LAST_RATING = 4_102_444_800  # 2100-01-01: a later time is none in seconds


class MovieLens(Source):
    """A MovieLens release.

    Attributes:
        ratings: path, glob or URL of `ratings.csv` or `ratings.dat`.
        movies: path, glob or URL of `movies.csv` or `movies.dat`.
    """

    corpus: Literal["movielens"] = "movielens"
    ratings: str
    movies: str

    path_fields: ClassVar[tuple[str, ...]] = ("ratings", "movies")
    terms: ClassVar[Terms] = Terms(
        title="MovieLens",
        address="https://grouplens.org/datasets/movielens/",
        licence="GroupLens terms: no commercial use without permission; only some releases may be passed on",
        citation="F. Maxwell Harper, Joseph A. Konstan. The MovieLens Datasets: History and Context. "
        "ACM TiiS 5(4), 2015.",
        redistributable=False,
    )

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield interactions from the ratings, then items from the films."""
        for frame, bad in _rows(self.ratings, _RATING):
            rated = frame.filter(pl.col("rating").is_between(0.5, 5))
            dated = rated.filter(pl.col("timestamp").is_between(_FIRST_RATING, _LAST_RATING))
            interactions = dated.select(
                user_id=people.pseudonym(pl.col("userId")),
                item_id=pl.col("movieId"),
                rating=pl.col("rating"),
                timestamp=pl.col("timestamp"),
            )
            drops = {
                "rating unparsable": len(bad),
                "impossible rating": len(frame) - len(rated),
                "impossible date": len(rated) - len(dated),
            }
            yield Batch("interactions", interactions, drops, bad)
        for frame, bad in _rows(self.movies, _FILM):
            genres = pl.col("genres").str.split("|").list.filter(pl.element() != "(no genres listed)")
            items = frame.select(
                item_id=pl.col("movieId"),
                title=natural_title(pl.col("title")),
                description=pl.lit(""),
                categories=genres,
                brand=pl.lit(None, pl.String),
                domain=pl.lit(self.domain or "Films"),
            )
            yield Batch("items", items, {"film unparsable": len(bad)}, bad)


def natural_title(title: pl.Expr) -> pl.Expr:
    """Return `Usual Suspects, The (1995)` as `The Usual Suspects (1995)`: sorting order is not how people write."""
    return title.str.replace(r"^([^()]+), (The|A|An|Les|La|Le|L'|Der|Die|Das|El|Il) (\(.*)$", "$2 $1 $3")


def _rows(pattern: str, schema: dict[str, Any]) -> Iterator[tuple[pl.DataFrame, list[Unparsable]]]:
    header, current = b"", ""
    for block in line_blocks(pattern):
        first = block.data[: block.data.find(b"\n") + 1] or block.data
        if block.path != current:
            header, current = first, block.path
        yield _colons(block, schema) if b"::" in header else csv_frame(block, header, schema)


def _colons(block: Block, schema: dict[str, Any]) -> tuple[pl.DataFrame, list[Unparsable]]:
    lines = text_lines(block)
    fields = pl.col("line").str.split("::")
    # A film title may hold `::` itself: the first and last fields are fixed, what lies between is the title.
    parts = [fields.list.get(i, null_on_oob=True) for i in range(len(schema))]
    enough = fields.list.len() == len(schema)
    if "title" in schema:
        enough = fields.list.len() >= len(schema)
        parts = [parts[0], fields.list.slice(1, fields.list.len() - 2).list.join("::"), fields.list.get(-1)]
    cast = [
        part.cast(dtype, strict=False).alias(name) for part, (name, dtype) in zip(parts, schema.items(), strict=True)
    ]
    frame = lines.with_columns(enough.alias("enough"), *cast)
    good = pl.col("enough") & pl.all_horizontal(pl.col(name).is_not_null() for name in schema)
    bad = [
        Unparsable(block.path, number, f"expected {len(schema)} fields between '::'")
        for number in frame.filter(~good)["number"]
    ]
    return frame.filter(good).select(list(schema)), bad
