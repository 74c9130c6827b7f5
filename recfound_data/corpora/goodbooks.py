"""goodbooks-10k: ratings in the order of time, ten thousand books, readers' shelves and wishes, all csv."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import model_validator

from recfound_data.records import Values, in_batches, table_records
from recfound_data.sources import Unparsable, csv_frame, line_blocks
from recfound_data.tables import Batch, People, Source, Terms

_RATING = {"user_id": pl.String, "book_id": pl.String, "rating": pl.Float32}
_WISH = {"user_id": pl.String, "book_id": pl.String}
_SHELF = {"goodreads_book_id": pl.String, "tag_id": pl.String, "count": pl.Int64}
_SHELF_NAME = {"tag_id": pl.String, "tag_name": pl.String}
_BOOK = (
    "book_id", "goodreads_book_id", "authors", "original_publication_year", "title", "language_code", "average_rating",
)  # fmt: skip
_RATINGS_BEGIN = 10_000_000
"""The time of the first rating; wishes have their own row numbers, which are smaller."""

GENRES = {
    "Adventure": ("adventure",),
    "Art": ("art", "art-history"),
    "Biography": ("biography", "biographies", "autobiography", "memoir", "memoirs", "biography-memoir"),
    "Business": ("business", "economics", "finance", "entrepreneurship", "management"),
    "Chick lit": ("chick-lit", "chicklit"),
    "Children's": ("children", "childrens", "children-s", "childrens-books", "kids", "picture-books", "middle-grade"),
    "Christian": ("christian", "christian-fiction", "christianity"),
    "Classics": ("classics", "classic", "classic-literature", "modern-classics"),
    "Comics": ("comics", "comic", "comic-books", "graphic-novel", "graphic-novels"),
    "Contemporary": ("contemporary", "contemporary-fiction"),
    "Cookery": ("cooking", "cookbook", "cookbooks", "food"),
    "Crime": ("crime", "crime-fiction", "true-crime"),
    "Dystopia": ("dystopia", "dystopian", "post-apocalyptic"),
    "Erotica": ("erotica", "erotic"),
    "Essays": ("essays",),
    "Fantasy": ("fantasy", "epic-fantasy", "high-fantasy", "fantasy-fiction"),
    "Historical fiction": ("historical-fiction", "historical"),
    "History": ("history", "world-history", "american-history"),
    "Horror": ("horror",),
    "Humour": ("humor", "humour", "funny", "comedy"),
    "LGBT": ("lgbt", "lgbtq", "glbt", "queer"),
    "Manga": ("manga",),
    "Mystery": ("mystery", "mysteries", "detective", "cozy-mystery"),
    "Mythology": ("mythology", "myths"),
    "Nature": ("nature", "environment", "animals"),
    "Non-fiction": ("non-fiction", "nonfiction"),
    "Paranormal": ("paranormal", "paranormal-romance", "supernatural", "vampires", "vampire", "werewolves"),
    "Parenting": ("parenting",),
    "Philosophy": ("philosophy",),
    "Plays": ("plays", "play", "theatre"),
    "Poetry": ("poetry", "poems"),
    "Politics": ("politics", "political"),
    "Psychology": ("psychology",),
    "Religion": ("religion", "spirituality", "theology"),
    "Romance": ("romance", "contemporary-romance", "historical-romance", "love-story"),
    "Science": ("science", "popular-science", "physics", "biology"),
    "Science fiction": ("science-fiction", "sci-fi", "scifi", "sf", "sciencefiction"),
    "Self-help": ("self-help", "selfhelp", "personal-development", "self-improvement"),
    "Short stories": ("short-stories", "short-story"),
    "Sport": ("sports", "sport"),
    "Steampunk": ("steampunk",),
    "Thriller": ("thriller", "thrillers", "suspense", "mystery-thriller"),
    "Travel": ("travel",),
    "Urban fantasy": ("urban-fantasy",),
    "War": ("war", "world-war-ii", "wwii", "military"),
    "Western": ("western", "westerns"),
    "Young adult": ("young-adult", "ya", "ya-fiction", "teen"),
}
"""The genres a book may have, and the shelves that mean them; every other shelf (to-read, favourites, owned, years,
authors, formats) says nothing of a book's kind."""
MOST_GENRES = 4
_LEAST_SHARE = 0.1  # of the books' copies on its leading genre's shelves: fewer are slips of single readers

_LANGUAGES = {
    "eng": "English", "en": "English", "fre": "French", "fra": "French", "spa": "Spanish", "ger": "German",
    "deu": "German", "ita": "Italian", "por": "Portuguese", "pol": "Polish", "rus": "Russian", "jpn": "Japanese",
    "ara": "Arabic", "ind": "Indonesian", "per": "Persian", "fas": "Persian", "nor": "Norwegian", "dan": "Danish",
    "swe": "Swedish", "fin": "Finnish", "nl": "Dutch", "dut": "Dutch", "nld": "Dutch", "fil": "Filipino",
    "vie": "Vietnamese", "tur": "Turkish", "rum": "Romanian", "ron": "Romanian", "cze": "Czech", "gre": "Greek",
    "chi": "Chinese", "kor": "Korean", "heb": "Hebrew", "hun": "Hungarian",
}  # fmt: skip


class Goodbooks(Source):
    """goodbooks-10k.

    Attributes:
        ratings: path, glob or URL of `ratings.csv`.
        books: path, glob or URL of `books.csv`.
        book_tags: path, glob or URL of `book_tags.csv`, readers' shelves, which give the genres.
        tags: path, glob or URL of `tags.csv`, the shelves' names; needed with `book_tags`.
        to_read: path, glob or URL of `to_read.csv`; its books become choices without a rating, before all rated ones.
    """

    corpus: Literal["goodbooks"] = "goodbooks"
    ratings: str
    books: str
    book_tags: str = ""
    tags: str = ""
    to_read: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("ratings", "books", "book_tags", "tags", "to_read")
    terms: ClassVar[Terms] = Terms(
        title="goodbooks-10k",
        address="https://github.com/zygmuntz/goodbooks-10k",
        licence="CC BY-SA 4.0",
        citation="Zygmunt Zając. Goodbooks-10k: a new dataset for book recommendations. FastML, 2017.",
        redistributable=True,
    )

    @model_validator(mode="after")
    def _shelves_have_names(self) -> Self:
        if bool(self.book_tags) != bool(self.tags):
            raise ValueError("book_tags and tags belong together: one counts the shelves that the other names")
        return self

    def parts(self) -> list[Self]:
        """Return a reader for the ratings and wishes, whose order is their time, and one for the books."""
        interactions = self.model_copy(update={"books": "", "book_tags": "", "tags": ""})
        books = self.model_copy(update={"ratings": "", "to_read": ""})
        return [part for part in (interactions, books) if part.ratings or part.to_read or part.books]

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield interactions from the ratings and wishes, then items from the books."""
        if self.ratings or self.to_read:
            yield from self._interactions(people)
        if self.books:
            yield from self._items()

    def _interactions(self, people: People) -> Iterator[Batch]:
        wishes = [pl.DataFrame(schema=_WISH | {"row": pl.Int64})]
        bad_wishes: list[Unparsable] = []
        for frame, bad, first in _csv(self.to_read, _WISH):
            wishes.append(frame.with_columns(row=pl.int_range(first, first + pl.len(), dtype=pl.Int64)))
            bad_wishes += bad
        wished = pl.concat(wishes)
        # A book that was rated is no wish any more, and the rating says more.
        open_wishes = wished
        for frame, bad, first in _csv(self.ratings, _RATING):
            rated = frame.with_row_index("row", offset=first).filter(pl.col("rating").is_between(1, 5))
            open_wishes = open_wishes.join(frame, on=["user_id", "book_id"], how="anti", maintain_order="left")
            interactions = rated.select(
                user_id=people.pseudonym(pl.col("user_id")),
                item_id=pl.col("book_id"),
                rating=pl.col("rating"),
                timestamp=pl.col("row").cast(pl.Int64) + _RATINGS_BEGIN,
            )
            drops = {"rating unparsable": len(bad), "impossible rating": len(frame) - len(rated)}
            yield Batch("interactions", interactions, drops, bad)
        interactions = open_wishes.select(
            user_id=people.pseudonym(pl.col("user_id")),
            item_id=pl.col("book_id"),
            rating=pl.lit(None, pl.Float32),
            timestamp=pl.col("row"),
        )
        drops = {"wish unparsable": len(bad_wishes), "wish for a book rated later": len(wished) - len(open_wishes)}
        yield Batch("interactions", interactions, drops, bad_wishes)

    def _items(self) -> Iterator[Batch]:
        genres, drops, bad = _genres(self.book_tags, self.tags)
        if drops or bad:
            yield Batch("items", pl.DataFrame(schema={"item_id": pl.String}), drops, bad)

        def book(values: Values) -> list[Values] | str:
            if not values["book_id"].strip():
                return "book without id"
            authors = " ".join(values["authors"].split())
            told = {
                "Authors" if "," in authors else "Author": authors,
                "Year": _year(values["original_publication_year"]),
                "Language": _language(values["language_code"]),
                "Average rating": f"{values['average_rating']} of 5" if values["average_rating"] else "",
            }
            return [
                {
                    "item_id": values["book_id"].strip(),
                    "title": values["title"],
                    "description": "",
                    "categories": genres.get(values["goodreads_book_id"].strip(), []),
                    "brand": authors.split(",")[0].strip(),  # the others are mostly illustrators and translators
                    "domain": self.domain or "Books",
                    "facts": [{"name": name, "value": value} for name, value in told.items() if value],
                }
            ]

        yield from in_batches("items", table_records(self.books, _BOOK), book)


def _csv(pattern: str, schema: dict[str, Any]) -> Iterator[tuple[pl.DataFrame, list[Unparsable], int]]:
    """Yield the rows of csv files, what could not be parsed, and the number of the first row among all, from 1."""
    header, current, rows = b"", "", 1
    for block in line_blocks(pattern) if pattern else ():
        if block.path != current:
            header, current = block.data[: block.data.find(b"\n") + 1] or block.data, block.path
        frame, bad = csv_frame(block, header, schema)
        yield frame, bad, rows
        rows += len(frame)


def _genres(book_tags: str, tags: str) -> tuple[dict[str, list[str]], dict[str, int], list[Unparsable]]:
    """Return the genres of each book by its goodreads id, the most used first, and what was left out."""
    meant = {shelf: genre for genre, shelves in GENRES.items() for shelf in shelves}
    names, shelves = list(_csv(tags, _SHELF_NAME)), list(_csv(book_tags, _SHELF))
    bad = [fault for _, faults, _ in [*names, *shelves] for fault in faults]
    if not names or not shelves:
        return {}, {}, bad
    named = pl.concat(frame for frame, _, _ in names).unique("tag_id", keep="first", maintain_order=True)
    genre = pl.col("tag_name").replace_strict(meant, default=None, return_dtype=pl.String)
    known = named.select("tag_id", genre=genre).drop_nulls()
    all_rows = pl.concat(frame for frame, _, _ in shelves)
    counted = all_rows.filter(pl.col("count") > 0).join(known, on="tag_id")
    copies = counted.group_by("goodreads_book_id", "genre").agg(pl.col("count").sum())
    common = copies.filter(pl.col("count") >= _LEAST_SHARE * pl.col("count").max().over("goodreads_book_id"))
    best = (
        common.sort(["goodreads_book_id", "count", "genre"], descending=[False, True, False])
        .group_by("goodreads_book_id", maintain_order=True)
        .agg(pl.col("genre").head(MOST_GENRES))
    )
    drops = {"shelf unparsable": len(bad), "shelf that names no genre": len(all_rows) - len(counted)}
    return dict(best.iter_rows()), {why: count for why, count in drops.items() if count}, bad


def _year(text: str) -> str:
    try:
        year = int(float(text))
    except (ValueError, OverflowError):
        return ""
    return f"{-year} BC" if year < 0 else str(year or "")


def _language(code: str) -> str:
    code = code.strip()
    return "English" if code.startswith("en-") else _LANGUAGES.get(code, "")
