"""MovieLens ratings, films, users and tags: 100K (tabs and `|`), 1M and 10M (`::`), latest, 20M, 25M and 32M (csv)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import polars as pl

from recfound_data.delimited import split_block
from recfound_data.errors import RecfoundError
from recfound_data.facts import age_group, facts, gender
from recfound_data.sources import Unparsable, csv_frame, expand, line_blocks
from recfound_data.tables import Batch, People, Source, Terms

_RATING = {"userId": pl.String, "movieId": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
_FILM = {"movieId": pl.String, "title": pl.String, "genres": pl.String}
_TAG = {"userId": pl.String, "movieId": pl.String, "tag": pl.String, "timestamp": pl.Int64}
_USER_1M = {"userId": pl.String, "gender": pl.String, "age": pl.Int64, "occupation": pl.String, "zip": pl.String}
_USER_100K = {"userId": pl.String, "age": pl.Int64, "gender": pl.String, "occupation": pl.String, "zip": pl.String}
_FIRST_RATING = 788_918_400  # 1995-01-01, the year MovieLens opened
_LAST_RATING = 4_102_444_800  # 2100-01-01: a later time is none in seconds

_FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""The genres of 100K in the order of its columns, as its `u.genre` has them."""
_FILM_100K = dict.fromkeys(("movieId", "title", "released", "video", "address", *_FLAGS), pl.String)

_OCCUPATIONS = (
    "", "academic or educator", "artist", "clerical or administrative worker", "college or graduate student",
    "customer service worker", "doctor or health care worker", "executive or manager", "farmer", "homemaker",
    "school student", "lawyer", "programmer", "retired", "sales or marketing worker", "scientist", "self-employed",
    "technician or engineer", "tradesman or craftsman", "unemployed", "writer",
)  # fmt: skip
"""The occupations of 1M by their code; 0 is `other or not specified`."""

TAGS = 5
"""Most tags that a film is told by."""
_TAGGERS = 2  # a tag that one person alone gave a film may say more of the person than of the film
_TAG_CHARS = 40
_OWN_SHELF = (
    r"netflix|hulu|\bqueue|\bwatch(ed)?\b|\blibrary\b|\bdvds?\b|\bvhs\b|blu-?ray|\bbd-?r\b|betamax|\bclv\b|\bown(ed)?\b"
    r"|^i\b|\b(my|me)\b|\bseen\b|\bto[- ]see\b|see again|wish ?list|\bcollection\b|\bratings?\b|\brated\b"
    r"|\d stars?\b|imdb|\btivo\b"
)
"""Tags that are their writer's notes (where a copy stands, what was seen) and say nothing of the film."""


class MovieLens(Source):
    """A MovieLens release; each file's form is told by its look.

    Attributes:
        ratings: path, glob or URL of `u.data`, `ratings.dat` or `ratings.csv`.
        movies: path, glob or URL of `u.item`, `movies.dat` or `movies.csv`.
        users: path, glob or URL of `u.user` or `users.dat`; later releases have none.
        tags: path, glob or URL of `tags.dat` or `tags.csv`, where the release has one.
    """

    corpus: Literal["movielens"] = "movielens"
    ratings: str
    movies: str
    users: str = ""
    tags: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("ratings", "movies", "users", "tags")
    terms: ClassVar[Terms] = Terms(
        title="MovieLens",
        address="https://grouplens.org/datasets/movielens/",
        licence="GroupLens terms: no commercial use without permission; only some releases may be passed on",
        citation="F. Maxwell Harper, Joseph A. Konstan. The MovieLens Datasets: History and Context. "
        "ACM TiiS 5(4), 2015.",
        redistributable=False,
    )

    def parts(self) -> list[Self]:
        """Return a reader for each file of ratings, one for the films and their tags, one for the users."""
        nothing = {"ratings": "", "movies": "", "users": "", "tags": ""}
        parts = [{"ratings": path} for path in (expand(self.ratings) if self.ratings else ())]
        if self.movies:
            parts.append({"movies": self.movies, "tags": self.tags})
        if self.users:
            parts.append({"users": self.users})
        return [self.model_copy(update=nothing | part) for part in parts]

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield interactions from the ratings, items from the films and their tags, users."""
        if self.ratings:
            yield from self._interactions(people)
        if self.movies:
            yield from self._items()
        if self.users:
            yield from self._users(people)

    def _interactions(self, people: People) -> Iterator[Batch]:
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

    def _items(self) -> Iterator[Batch]:
        tags, drops, bad_tags = _film_tags(self.tags)
        for frame, bad in _rows(self.movies, _FILM):
            titled = frame.filter(pl.col("title") != "unknown")  # a placeholder in 100K, genre and all
            films = titled.join(tags, on="movieId", how="left", maintain_order="left")
            year = pl.col("title").str.extract(r"\((\d{4})(?:\s*[-–]\s*\d{0,4})?\)(?:\s*\(V\))?$")  # V: video
            items = films.select(
                item_id=pl.col("movieId"),
                title=natural_title(pl.col("title")),
                description=pl.lit(""),
                categories=_genres(films.columns),
                brand=pl.lit(None, pl.String),
                domain=pl.lit(self.domain or "Films"),
                facts=facts({"Year": year, "Tags": pl.col("tags")}),
            )
            drops |= {"film unparsable": len(bad), "film without a title": len(frame) - len(titled)}
            yield Batch("items", items, drops, bad + bad_tags)
            drops, bad_tags = {}, []

    def _users(self, people: People) -> Iterator[Batch]:
        for frame, bad in _rows(self.users, _USER_1M):
            told = {
                "Gender": gender(pl.col("gender")),
                "Age group": age_group(pl.when(pl.col("age") == 1).then(5).otherwise("age")),  # 1M: 1 is under 18
                "Occupation": _occupation(),
            }
            users = frame.select(user_id=people.pseudonym(pl.col("userId")), facts=facts(told))
            yield Batch("users", users, {"user unparsable": len(bad)}, bad)


def natural_title(title: pl.Expr) -> pl.Expr:
    """Return `Usual Suspects, The (1995)` as `The Usual Suspects (1995)`: sorting order is not how people write."""
    moved = title.str.replace(r"^([^()]+), ?(The|A|An|Les|La|Le|L'|Der|Die|Das|El|Il)( \(.*)?$", "$2 $1$3")
    return moved.str.replace(r"^L' ", "L'")


def _rows(pattern: str, schema: dict[str, Any]) -> Iterator[tuple[pl.DataFrame, list[Unparsable]]]:
    """Yield the lines of files in any of the forms, with the columns of `schema`, or those of 100K for films."""
    header, current = b"", ""
    for block in line_blocks(pattern):
        first = block.data[: block.data.find(b"\n") + 1] or block.data
        if block.path != current:
            header, current = first, block.path
        if b"::" in header:
            # Titles and tags are written by hand and may hold `::` themselves.
            wide = next((name for name in ("title", "tag") if name in schema), "")
            yield split_block(block, schema, "::", wide=wide)
        elif b"\t" in header:
            yield split_block(block, schema, "\t")
        elif header.count(b"|") > 3:
            columns = _FILM_100K if "title" in schema else _USER_100K
            if not {"title", "gender"} & set(schema):
                raise RecfoundError(f"{block.path}: line 1: holds films or users of 100K; ratings are in `u.data`")
            yield split_block(block, columns, "|", optional=("released", "video", "address"))
        else:
            yield csv_frame(block, header, schema)


def _genres(columns: list[str]) -> pl.Expr:
    if "genres" in columns:
        return pl.col("genres").str.split("|").list.filter(~pl.element().is_in(["", "(no genres listed)"]))
    named = [pl.when(pl.col(flag) == "1").then(pl.lit(flag)) for flag in _FLAGS[1:]]
    return pl.concat_list(named).list.drop_nulls()


def _occupation() -> pl.Expr:
    """Return the words of 1M's code, or 100K's own word."""
    words = {str(code): name for code, name in enumerate(_OCCUPATIONS)} | {"other": "", "none": ""}
    return pl.col("occupation").replace(words)


def _film_tags(pattern: str) -> tuple[pl.DataFrame, dict[str, int], list[Unparsable]]:
    """Return `movieId` and `tags`, the most used ones first, what was left out, and what could not be parsed."""
    told, bad, personal = [pl.DataFrame(schema=_TAG).drop("timestamp")], list[Unparsable](), 0
    for frame, faults in _rows(pattern, _TAG) if pattern else ():
        tags = frame.select("userId", "movieId", pl.col("tag").str.to_lowercase().str.replace_all(r"\s+", " "))
        said = pl.col("tag").str.contains(r"\p{L}") & (pl.col("tag").str.len_chars() <= _TAG_CHARS)
        kept = tags.filter(said & ~pl.col("tag").str.contains(_OWN_SHELF))
        told.append(kept)
        bad += faults
        personal += len(tags) - len(kept)
    counted = pl.concat(told).unique().group_by("movieId", "tag").agg(people=pl.len())
    shared = counted.filter(pl.col("people") >= _TAGGERS).sort(
        ["movieId", "people", "tag"], descending=[False, True, False]
    )
    best = shared.group_by("movieId", maintain_order=True).agg(pl.col("tag").head(TAGS).str.join(", ").alias("tags"))
    drops = {
        "tag unparsable": len(bad),
        "tag that is a note of its writer or no word": personal,
        "tag that one person alone gave a film": len(counted) - len(shared),
    }
    return best, {why: count for why, count in drops.items() if count}, bad
