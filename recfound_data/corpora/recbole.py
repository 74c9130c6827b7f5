"""RecBole's atomic files: `.inter`, `.item` and `.user`, tab separated, each column named and typed in the header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from recfound_data.corpora.movielens import natural_title
from recfound_data.delimited import split_lines
from recfound_data.errors import RecfoundError
from recfound_data.facts import age_group, facts, gender, private
from recfound_data.files import expand
from recfound_data.recipe import nearest
from recfound_data.sources import Block, Unparsable, line_blocks, listed, text_lines
from recfound_data.tables import Batch, People, Source, Terms

_TYPES = ("token", "token_seq", "float", "float_seq")
_COMMON: dict[str, tuple[str, ...]] = {
    "user": ("user_id",),
    "item": (
        "item_id", "movie_id", "book_id", "business_id", "product_id", "artist_id", "track_id", "song_id", "venue_id",
        "news_id", "game_id", "id",
    ),
    "rating": ("rating", "stars"),
    "timestamp": ("timestamp", "time", "date"),
    "review": ("review", "review_text"),
    "title": (
        "title", "movie_title", "movie_name", "book_title", "item_name", "name", "product_name", "track_name",
        "song_name", "artist_name", "news_title", "app_name",
    ),
    "categories": ("categories", "category", "genre", "genres", "class", "type"),
    "brand": ("brand", "author", "book_author", "artist", "publisher", "developer"),
    "description": ("description", "abstract", "summary"),
}  # fmt: skip
"""The names under which RecBole's own data sets have a column, the likelier first."""
_FILMS = ("movie_title", "movie_name")
"""Columns whose titles are MovieLens's: sorted by their second word, and with a placeholder, once misspelt."""
_NO_FILM = ("unknown", "unkonwn")
_NOTHING = ("None", "nan", "NaN", "NULL")
"""What programs write where they have no value."""
_QUOTED = r'^"(?:[^"]|"")*"$'
_ESCAPE = r"\\u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})|\\x[a-fA-F][0-9a-fA-F]"
"""Letters as Steam's titles have them, `\\u2122`."""
_YEARS = ("release_year", "year", "publication_year", "publish_year", "year_of_publication")


class RecBole(Source):
    """A data set in RecBole's atomic files.

    Attributes:
        interactions: path, glob or URL of `<name>.inter`.
        items: path, glob or URL of `<name>.item`; needed by every task that shows a title.
        users: path, glob or URL of `<name>.user`.
        user: the column of users' ids. This and the following are found by RecBole's usual names where left empty.
        item: the column of items' ids.
        rating: the column of ratings; without one every row is a choice.
        timestamp: the column of times; without one the rows are in the order of time.
        review: the column of reviews' texts.
        title: the column of items' titles.
        categories: the column of items' categories.
        brand: the column of items' brands.
        description: the column of items' descriptions.
        item_facts: more of what is known of items, the file's column by the fact's name (`Price: price`).
        user_facts: the same for users, beside age, gender and occupation.
        rating_scale: the best rating; ratings are scaled so that it becomes 5.
        field_separator: between the values of a row.
        seq_separator: between the values of a `token_seq`.
    """

    corpus: Literal["recbole"] = "recbole"
    interactions: str
    items: str = ""
    users: str = ""
    user: str = ""
    item: str = ""
    rating: str = ""
    timestamp: str = ""
    review: str = ""
    title: str = ""
    categories: str = ""
    brand: str = ""
    description: str = ""
    item_facts: dict[str, str] = {}
    user_facts: dict[str, str] = {}
    rating_scale: float = Field(default=5.0, gt=0)
    field_separator: str = Field(default="\t", min_length=1)
    seq_separator: str = Field(default=" ", min_length=1)

    path_fields: ClassVar[tuple[str, ...]] = ("interactions", "items", "users")
    terms: ClassVar[Terms] = Terms(
        title="A data set in RecBole's atomic files",
        address="https://recbole.io/dataset_list.html",
        licence="that of each data set's own publisher",
        citation="Wayne Xin Zhao et al. RecBole: Towards a Unified, Comprehensive and Efficient Framework for "
        "Recommendation Algorithms. CIKM 2021.",
        redistributable=False,
    )

    @model_validator(mode="after")
    def _people_stay_out(self) -> Self:
        telling = private([*self.user_facts, *self.user_facts.values()])
        if telling is not None:
            raise ValueError(f"user_facts: {telling!r} tells who or where a person is; leave it out")
        return self

    def parts(self) -> list[Self]:
        """Return a reader for the interactions, one a file if they have times, one for the items, one for the users."""
        nothing = {"interactions": "", "items": "", "users": ""}
        parts = []
        if self.interactions:
            paths = expand(self.interactions)
            timed = self._columns(paths[0], ("timestamp",)) if len(paths) > 1 else {}
            parts += [{"interactions": path} for path in (paths if timed else [self.interactions])]
        parts += [{field: path} for field in ("items", "users") if (path := getattr(self, field))]
        return [self.model_copy(update=nothing | part) for part in parts]

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield interactions, items and users."""
        if self.interactions:
            yield from self._interactions(people)
        if self.items:
            yield from self._items()
        if self.users:
            yield from self._users(people)

    def _interactions(self, people: People) -> Iterator[Batch]:
        before = 0
        for frame, has, bad in self._rows(
            self.interactions, ("user", "item"), ("rating", "timestamp", "review"), {}, {"rating", "timestamp"}
        ):
            rating = pl.col(has["rating"]).fill_nan(None) * (5 / self.rating_scale) if "rating" in has else pl.lit(None)
            time = pl.col(has["timestamp"]).floor().cast(pl.Int64, strict=False) if "timestamp" in has else None
            order = pl.int_range(before + 1, before + 1 + pl.len(), dtype=pl.Int64)
            chosen = frame.select(
                user_id=people.pseudonym(pl.col(has["user"])),
                item_id=pl.col(has["item"]),
                # Some data sets write -1 or 0 where somebody chose and did not rate.
                rating=pl.when(rating > 0).then(rating).cast(pl.Float32),
                timestamp=order if time is None else time,
                text=pl.col(has["review"]) if "review" in has else pl.lit(None, pl.String),
            )
            before += len(frame)
            dated = chosen.drop_nulls("timestamp")
            possible = dated.filter(pl.col("rating").is_null() | (pl.col("rating") <= 5))
            drops = {
                "interaction unparsable": len(bad),
                "interaction without a time": len(chosen) - len(dated),
                "rating better than rating_scale": len(dated) - len(possible),
            }
            yield Batch("interactions", possible, drops, bad)

    def _items(self) -> Iterator[Batch]:
        texts = ("title", "categories", "brand", "description")
        found = False
        for frame, has, bad in self._rows(self.items, ("item",), texts, self.item_facts, set()):
            years = [name for name in _YEARS if name in frame.columns]
            told = {"Year": pl.col(years[0]).str.extract(r"^(-?\d{1,4})(?:\.0+)?$")} if years else {}
            told |= {name: _text(column) for name, column in self.item_facts.items()}
            none = pl.lit(None, pl.String)
            items = frame.select(
                item_id=pl.col(has["item"]),
                title=_title(frame, has["title"]) if "title" in has else none,
                description=_text(has["description"]) if "description" in has else none,
                categories=self._list(has["categories"]) if "categories" in has else pl.lit([], pl.List(pl.String)),
                brand=_text(has["brand"]) if "brand" in has else none,
                domain=pl.lit(self.domain or self.label),
                facts=facts(told),
            )
            titled = items.filter(pl.col("title").is_not_null())
            found = found or not titled.is_empty()
            drops = {"item unparsable": len(bad), "item without a title": len(items) - len(titled)}
            yield Batch("items", titled, drops, bad)
        if not found:
            raise RecfoundError(
                f"{self.items}: no item has a title, and a task shows items by their titles; name the column that "
                "holds one: `title:`"
            )

    def _users(self, people: People) -> Iterator[Batch]:
        for frame, has, bad in self._rows(self.users, ("user",), (), self.user_facts, set()):
            told = {name: _text(column) for name, column in self.user_facts.items()}
            ways = {"gender": ("Gender", gender), "age": ("Age group", age_group)}
            usual = {
                name: way(pl.col(column)) for column, (name, way) in ways.items() if column in frame.columns
            }  # fmt: skip
            if "occupation" in frame.columns:
                # 1M's codes say nothing, and `other` and `none` no more.
                word = pl.col("occupation")
                usual["Occupation"] = pl.when(word.str.contains(r"\p{L}") & ~word.is_in(["other", "none"])).then(word)
            users = frame.select(user_id=people.pseudonym(pl.col(has["user"])), facts=facts(usual | told))
            yield Batch("users", users, {"user unparsable": len(bad)}, bad)

    def _list(self, column: str) -> pl.Expr:
        """Return a sequence as a list: split between quotes, else at commas, at bars, or at its separator."""
        text = _text(column)
        between = text.str.replace_all(r"""(['"])\s*,\s*(['"])""", "\x1f")
        parts = (
            pl.when(text.str.contains(r"""^[\[{(]?\s*['"]"""))
            .then(between.str.split("\x1f"))
            .when(text.str.contains(",", literal=True))
            .then(text.str.split(","))
            .when(text.str.contains("|", literal=True))
            .then(text.str.split("|"))
            .otherwise(text.str.split(self.seq_separator))
        )
        named = parts.list.eval(pl.element().str.strip_chars(" '\"[]"))
        return named.list.filter(~pl.element().is_in(["", "unknown"])).fill_null([])

    def _columns(self, path: str, roles: tuple[str, ...]) -> dict[str, str]:
        """Return the columns that play the roles in a file; those of absent columns are left out."""
        names = _header(path, next(line_blocks(path), None), self.field_separator)
        found = {}
        for role in roles:
            wanted = getattr(self, role)
            if wanted and wanted not in names:
                raise _lacks(path, wanted, names, "")
            column = wanted or next((name for name in _COMMON[role] if name in names), "")
            if column:
                found[role] = column
        return found

    def _rows(
        self, pattern: str, needed: tuple[str, ...], roles: tuple[str, ...], extra: Mapping[str, str], numbers: set[str]
    ) -> Iterator[tuple[pl.DataFrame, dict[str, str], list[Unparsable]]]:
        """Yield the rows of files, the columns that play each role, and what could not be parsed."""
        current, has, schema, names = "", dict[str, str](), dict[str, Any](), dict[str, str]()
        for block in line_blocks(pattern):
            if block.path != current:
                current, names = block.path, _header(block.path, block, self.field_separator)
                has = self._columns(block.path, (*needed, *roles))
                for role in needed:
                    if role not in has:
                        raise _lacks(current, _COMMON[role][0], names, f"; name the column that holds it: `{role}:`")
                for column in extra.values():
                    if column not in names:
                        raise _lacks(current, column, names, "")
                floats = {has[role] for role in numbers if role in has}
                schema = {name: pl.Float64 if name in floats else pl.String for name in names}
            lines = text_lines(block).filter(pl.col("number") > 1)
            required = {has[role] for role in needed}
            quoted = lines["line"].str.contains('"', literal=True).any()
            frame, bad = split_lines(
                lines,
                block.path,
                schema,
                self.field_separator,
                optional=[name for name in schema if name not in required],
            )
            yield (frame.with_columns(_unquoted(pl.col(pl.String))) if quoted else frame), has, bad


def _unquoted(text: pl.Expr) -> pl.Expr:
    """Return values without the quotes that csv writers put around one that holds a quote; null where none is left."""
    inner = text.str.slice(1, text.str.len_chars() - 2).str.replace_all('""', '"', literal=True)
    return pl.when(~text.str.contains(_QUOTED)).then(text).when(inner != "").then(inner)


def _text(column: str) -> pl.Expr:
    return pl.when(~pl.col(column).is_in(_NOTHING)).then(pl.col(column))


def _title(frame: pl.DataFrame, column: str) -> pl.Expr:
    """Return titles as people write them: letters for their escapes, and Python's `u"..."` off."""
    escapes = frame[column].str.extract_all(_ESCAPE).list.explode().drop_nulls().unique().to_list()
    text = _text(column)
    if escapes:
        text = text.str.replace_many(escapes, [chr(int(escape[2:], 16)) for escape in escapes])
    title = text.str.replace(r'^u"(.*)"$', "$1")
    return pl.when(~title.is_in(_NO_FILM)).then(natural_title(title)) if column in _FILMS else title


def _header(path: str, block: Block | None, separator: str) -> dict[str, str]:
    """Return the types of a file's columns by their names."""
    line = block.data.split(b"\n", 1)[0].decode("utf-8", "replace").strip("\ufeff\r") if block else ""
    fields = [field.strip().rpartition(":") for field in line.split(separator)]
    if not line or any(kind not in _TYPES or not name for name, _, kind in fields):
        raise RecfoundError(
            f"{path}: line 1: expected columns such as user_id:token, each with one of the types {', '.join(_TYPES)}, "
            f"between {separator!r}; found {line[:80]!r}"
        )
    return {name: kind for name, _, kind in fields}


def _lacks(path: str, wanted: str, names: Mapping[str, str], hint: str) -> RecfoundError:
    near = nearest(wanted, list(names)[:200])
    return RecfoundError(f"{path}: line 1: has no column {wanted!r}{near}; it has {listed(names)}{hint}")
