"""BookCrossing: the published dump (`;`, quoted, Latin-1), tables made of it, and its cleaned edition (tabs).

None has times. The order of a user's books is drawn, so that what is held out is a fair share of them; the files'
own order is the ISBN's, which sorts by country and publisher.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import polars as pl

from recfound_data.countries import country
from recfound_data.delimited import split_lines
from recfound_data.facts import age_group, facts
from recfound_data.identity import draw
from recfound_data.sources import Block, Unparsable, csv_frame, header_line, line_blocks, require, text_lines
from recfound_data.tables import Batch, People, Source, Terms

_RATING = {"user": pl.String, "item": pl.String, "rating": pl.Float32}
_BOOK = {
    **dict.fromkeys(("isbn", "title", "author"), pl.String),
    "year": pl.Int32,
    **dict.fromkeys(("publisher", "small", "medium", "large"), pl.String),
}
_NUMBERED_BOOK = {"id": pl.String} | _BOOK
_USER = {"user": pl.String, "location": pl.String, "age": pl.String}
_TABLE_BOOK = dict.fromkeys(("isbn", "title", "author", "year", "publisher"), pl.String)
_COLUMNS = {
    "user": "User-ID", "isbn": "ISBN", "rating": "Book-Rating", "title": "Book-Title", "author": "Book-Author",
    "year": "Year-Of-Publication", "publisher": "Publisher", "location": "Location", "age": "Age",
}  # fmt: skip
"""The dump's names of columns; tables write them in many ways, with the same letters."""
_CRAWLED = 2005  # a book of a later year than the crawl's next has an impossible one
_DRAW_BITS = 24  # what a draw loses: the order of a user's books needs no 64 bits

_BROKEN_LETTERS = {
    start + bytes([code - 0x40]).decode(encoding): chr(code)
    for code in range(0xC0, 0x100)
    for start in ("Ã", "Ã?", "Ã?Â", "Ã\x83Â")
    for encoding in ("latin-1", "cp1252")
    if encoding == "latin-1" or code - 0x40 not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)  # no characters of Windows-1252
}
"""Letters as they look when their UTF-8 was taken for Latin-1 or Windows-1252, once or twice, as often in the dump."""


class BookCrossing(Source):
    """BookCrossing; each file's edition is told by its look.

    Attributes:
        ratings: path, glob or URL of `BX-Book-Ratings.csv` or `book_ratings.dat`.
        books: path, glob or URL of `BX-Books.csv` or `items_info.dat`.
        users: path, glob or URL of `BX-Users.csv` or `users_info.dat`. Instead of the dump's three files, tables of
            their columns do too, with commas or semicolons and quotes only where needed.
        history: path, glob or URL of `book_history.dat`: books that a user had in hand, rated or not.
    """

    corpus: Literal["book_crossing"] = "book_crossing"
    ratings: str
    books: str
    users: str = ""
    history: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("ratings", "books", "users", "history")
    terms: ClassVar[Terms] = Terms(
        title="BookCrossing",
        address="http://www2.informatik.uni-freiburg.de/~cziegler/BX/",
        licence="no licence text; freely available for research when its paper is cited",
        citation="Cai-Nicolas Ziegler, Sean M. McNee, Joseph A. Konstan, Georg Lausen. Improving Recommendation Lists "
        "Through Topic Diversification. WWW 2005.",
        redistributable=False,
    )

    def parts(self) -> list[Self]:
        """Return a reader for ratings and history, one for the books, one for the users."""
        nothing = {"ratings": "", "books": "", "users": "", "history": ""}
        groups = ({"ratings": self.ratings, "history": self.history}, {"books": self.books}, {"users": self.users})
        return [self.model_copy(update=nothing | group) for group in groups if any(group.values())]

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield interactions from the ratings and the history, items from the books, users."""
        yield from self._interactions(people)
        for rows, bad in _rows(self.books, _books):
            # A quote that a table lost moved a few books' values on by one.
            frame = rows.filter(~pl.col("publisher").str.starts_with("http").fill_null(value=False))
            known = pl.when(pl.col("year").is_between(1400, _CRAWLED)).then("year")
            items = frame.select(
                item_id=pl.col("id"),
                title=_letters(pl.col("title")),
                description=pl.lit(""),
                categories=pl.lit([], pl.List(pl.String)),
                brand=_letters(pl.col("author")),
                domain=pl.lit(self.domain or "Books"),
                facts=facts({"Year": known, "Publisher": _letters(pl.col("publisher"))}),
            )
            drops = {"book unparsable": len(bad), "book with an address for its publisher": len(rows) - len(frame)}
            yield Batch("items", items, drops, bad)
        for frame, bad in _rows(self.users, _users):
            told = {"Age group": age_group(pl.col("age")), "Country": country(pl.col("location"))}
            users = frame.select(user_id=people.pseudonym(pl.col("user")), facts=facts(told))
            yield Batch("users", users, {"user unparsable": len(bad)}, bad)

    def _interactions(self, people: People) -> Iterator[Batch]:
        had = [pl.DataFrame(schema=_RATING)]
        bad_had: list[Unparsable] = []
        for frame, bad in _rows(self.history, _ratings):
            had.append(frame)
            bad_had += bad
        history = pl.concat(had)
        unrated = history
        for frame, bad in _rows(self.ratings, _ratings):
            rated = frame.filter(pl.col("rating").is_between(0, 10))
            # The history names rated books too; the rating says more.
            unrated = unrated.join(frame, on=["user", "item"], how="anti", maintain_order="left")
            drops = {"rating unparsable": len(bad), "impossible rating": len(frame) - len(rated)}
            # 0 says that the user had the book and gave no rating; 1 to 10 become 0.5 to 5.
            rating = pl.when(pl.col("rating") > 0).then(pl.col("rating") / 2)
            yield Batch("interactions", _chosen(rated, rating, people), drops, bad)
        if self.history:
            drops = {"history unparsable": len(bad_had), "history of a rated book": len(history) - len(unrated)}
            yield Batch("interactions", _chosen(unrated, pl.lit(None, pl.Float32), people), drops, bad_had)


def _chosen(frame: pl.DataFrame, rating: pl.Expr, people: People) -> pl.DataFrame:
    named = frame.select(user_id=people.pseudonym(pl.col("user")), item_id="item", rating=rating.cast(pl.Float32))
    order = (draw(0, "book_crossing", pl.col("user_id"), pl.col("item_id")) // (1 << _DRAW_BITS)).cast(pl.Int64)
    return named.with_columns(timestamp=order)


@dataclass(frozen=True)
class _Form:
    """How a file is written: the edition, and the first line."""

    edition: Literal["dump", "table", "cleaned"]
    header: bytes


_Rows = tuple[pl.DataFrame, list[Unparsable]]


def _rows(pattern: str, parse: Callable[[Block, _Form], _Rows]) -> Iterator[_Rows]:
    """Yield the parsed lines of files, their headers left out."""
    current, form = "", _Form("dump", b"")
    for block in line_blocks(pattern) if pattern else ():
        if block.path != current:
            current, header = block.path, header_line(block)
            form = _Form("cleaned" if b"\t" in header else "dump" if b'";"' in header else "table", header)
        yield parse(block, form)


def _lines(block: Block) -> pl.DataFrame:
    return text_lines(block).filter(pl.col("number") > 1)


def _ratings(block: Block, form: _Form) -> _Rows:
    if form.edition == "table":
        frame, bad = _table(block, form, {"user": pl.String, "isbn": pl.String, "rating": pl.Float32})
        frame = frame.rename({"isbn": "item"})
    elif form.edition == "dump":
        frame, bad = _quoted(_lines(block), block.path, _RATING)
    else:
        frame, bad = split_lines(_lines(block), block.path, _RATING, "\t")
    return frame.with_columns(item=_isbn(pl.col("item"), number=form.edition == "cleaned")), bad


def _books(block: Block, form: _Form) -> _Rows:
    """Return books with their `id`: the ISBN in the dump, a number in the cleaned edition."""
    rest = ("author", "year", "publisher", "small", "medium", "large")
    if form.edition == "table":
        frame, bad = _table(block, form, _TABLE_BOOK, optional=rest)
        year = pl.col("year").cast(pl.Float64, strict=False).cast(pl.Int32, strict=False)
        return frame.with_columns(year=year, id=_isbn(pl.col("isbn"))), bad
    lines = _lines(block)
    if form.edition == "dump":
        # In some lines a backslash stands before the quote that ends a title.
        whole = pl.col("line").str.count_matches('";"', literal=True) >= len(_BOOK) - 1
        ended = pl.when(whole).then("line").otherwise(pl.col("line").str.replace(r'\\";([^"])', '";"$1'))
        frame, bad = _quoted(lines.with_columns(line=ended), block.path, _BOOK, optional=rest)
        return frame.with_columns(id=_isbn(pl.col("isbn"))), bad
    # Every `;` of the dump became a tab here, also those of `&amp;` and within titles.
    line = pl.col("line").str.replace_all("&amp\t", "&amp;", literal=True).str.replace_all("\t ", "; ", literal=True)
    # A quote that the dump escaped has lost itself and kept its backslash.
    line = line.str.strip_suffix("\t").str.replace_all("\\", '"', literal=True)
    lines = lines.with_columns(line=line)
    return split_lines(lines, block.path, _NUMBERED_BOOK, "\t", wide="title", optional=("isbn", *rest))


def _users(block: Block, form: _Form) -> _Rows:
    if form.edition == "table":
        return _table(block, form, _USER, optional=("location", "age"))
    if form.edition == "dump":
        null = pl.col("line").str.replace(r";NULL$", ';""')
        return _quoted(_lines(block).with_columns(line=null), block.path, _USER, optional=("location", "age"))
    line = pl.col("line").str.strip_suffix("\t")
    return split_lines(_lines(block).with_columns(line=line), block.path, _USER, "\t", optional=("location", "age"))


def _table(block: Block, form: _Form, schema: Mapping[str, Any], optional: tuple[str, ...] = ()) -> _Rows:
    """Return the rows of a table with the dump's columns, in any order and among others."""
    separator = ";" if b";" in form.header else ","
    names = [name.strip(' "\r\n\ufeff') for name in form.header.decode("utf-8", "replace").split(separator)]
    by_letters = {_letters_of(name): name for name in names}
    columns = {column: by_letters.get(_letters_of(_COLUMNS[column]), _COLUMNS[column]) for column in schema}
    require(columns.values(), names, f"{block.path}: line 1")
    frame, bad = csv_frame(
        block,
        form.header,
        {columns[column]: dtype for column, dtype in schema.items()},
        needed=[columns[column] for column in schema if column not in optional],
        separator=separator,
    )
    return frame.rename({columns[column]: column for column in schema}), bad


def _letters_of(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _quoted(
    lines: pl.DataFrame, path: str, schema: Mapping[str, Any], optional: tuple[str, ...] = ()
) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return lines of `"a";"b"`, quotes within values escaped by a backslash."""
    inner = pl.col("line").str.strip_chars().str.strip_prefix('"').str.strip_suffix('"')
    frame, bad = split_lines(lines.with_columns(line=inner), path, schema, '";"', optional=optional)
    return frame.with_columns(pl.col(pl.String).str.replace_all(r"\\(.)", "$1")), bad


def _isbn(text: pl.Expr, *, number: bool = False) -> pl.Expr:
    """Return an ISBN as letters and digits alone: all files write some with hyphens, quotes or a small x.

    Spreadsheets leave out the zeros that an ISBN begins with; they come back, but not for a `number`.
    """
    plain = text.str.to_uppercase().str.replace_all(r"[^0-9A-Z]", "")
    return (
        plain if number else pl.when(plain.str.contains(r"^\d{6,8}[0-9X]$")).then(plain.str.zfill(10)).otherwise(plain)
    )


def _letters(text: pl.Expr) -> pl.Expr:
    return text.str.replace_many(list(_BROKEN_LETTERS), list(_BROKEN_LETTERS.values()))
