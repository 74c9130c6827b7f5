"""BookCrossing: the published dump (`;`, quoted, Latin-1) and its cleaned edition (tabs, with a history beside).

Neither has times. The order of a user's books is drawn, so that what is held out is a fair share of them; the files'
own order is the ISBN's, which sorts by country and publisher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import polars as pl

from recfound_data.countries import country
from recfound_data.delimited import split_lines
from recfound_data.facts import age_group, facts
from recfound_data.identity import draw
from recfound_data.sources import Block, Unparsable, line_blocks, text_lines
from recfound_data.tables import Batch, People, Source, Terms

_RATING = {"user": pl.String, "item": pl.String, "rating": pl.Float32}
_BOOK = {
    **dict.fromkeys(("isbn", "title", "author"), pl.String),
    "year": pl.Int32,
    **dict.fromkeys(("publisher", "small", "medium", "large"), pl.String),
}
_NUMBERED_BOOK = {"id": pl.String} | _BOOK
_USER = {"user": pl.String, "location": pl.String, "age": pl.String}
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
        users: path, glob or URL of `BX-Users.csv` or `users_info.dat`.
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
        for frame, bad in _rows(self.books, _books):
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
            yield Batch("items", items, {"book unparsable": len(bad)}, bad)
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


_Parse = Callable[[pl.DataFrame, str, bool], tuple[pl.DataFrame, list[Unparsable]]]


def _rows(pattern: str, parse: _Parse) -> Iterator[tuple[pl.DataFrame, list[Unparsable]]]:
    """Yield the parsed lines of files, their headers left out; `parse` is told whether they are of the dump."""
    current, dump = "", False
    for block in line_blocks(pattern) if pattern else ():
        if block.path != current:
            current, dump = block.path, _is_dump(block)
        lines = text_lines(block)
        yield parse(lines.filter(pl.col("number") > 1), block.path, dump)


def _is_dump(block: Block) -> bool:
    header = block.data.split(b"\n", 1)[0]
    return b";" in header and b"\t" not in header


def _ratings(lines: pl.DataFrame, path: str, dump: bool) -> tuple[pl.DataFrame, list[Unparsable]]:
    frame, bad = _quoted(lines, path, _RATING) if dump else split_lines(lines, path, _RATING, "\t")
    return frame.with_columns(item=_isbn(pl.col("item"))), bad


def _books(lines: pl.DataFrame, path: str, dump: bool) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return books with their `id`: the ISBN in the dump, a number in the cleaned edition."""
    rest = ("author", "year", "publisher", "small", "medium", "large")
    if dump:
        # In some lines a backslash stands before the quote that ends a title.
        whole = pl.col("line").str.count_matches('";"', literal=True) >= len(_BOOK) - 1
        ended = pl.when(whole).then("line").otherwise(pl.col("line").str.replace(r'\\";([^"])', '";"$1'))
        frame, bad = _quoted(lines.with_columns(line=ended), path, _BOOK, optional=rest)
        return frame.with_columns(id=_isbn(pl.col("isbn"))), bad
    # Every `;` of the dump became a tab here, also those of `&amp;` and within titles.
    line = pl.col("line").str.replace_all("&amp\t", "&amp;", literal=True).str.replace_all("\t ", "; ", literal=True)
    # A quote that the dump escaped has lost itself and kept its backslash.
    line = line.str.strip_suffix("\t").str.replace_all("\\", '"', literal=True)
    lines = lines.with_columns(line=line)
    return split_lines(lines, path, _NUMBERED_BOOK, "\t", wide="title", optional=("isbn", *rest))


def _users(lines: pl.DataFrame, path: str, dump: bool) -> tuple[pl.DataFrame, list[Unparsable]]:
    if dump:
        null = pl.col("line").str.replace(r";NULL$", ';""')
        return _quoted(lines.with_columns(line=null), path, _USER, optional=("location", "age"))
    line = pl.col("line").str.strip_suffix("\t")
    return split_lines(lines.with_columns(line=line), path, _USER, "\t", optional=("location", "age"))


def _quoted(
    lines: pl.DataFrame, path: str, schema: Mapping[str, Any], optional: tuple[str, ...] = ()
) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return lines of `"a";"b"`, quotes within values escaped by a backslash."""
    inner = pl.col("line").str.strip_chars().str.strip_prefix('"').str.strip_suffix('"')
    frame, bad = split_lines(lines.with_columns(line=inner), path, schema, '";"', optional=optional)
    return frame.with_columns(pl.col(pl.String).str.replace_all(r"\\(.)", "$1")), bad


def _isbn(text: pl.Expr) -> pl.Expr:
    """Return an ISBN as letters and digits alone: both files write some with hyphens, quotes or a small x."""
    return text.str.to_uppercase().str.replace_all(r"[^0-9A-Z]", "")


def _letters(text: pl.Expr) -> pl.Expr:
    return text.str.replace_many(list(_BROKEN_LETTERS), list(_BROKEN_LETTERS.values()))
