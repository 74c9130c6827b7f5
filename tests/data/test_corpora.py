"""Readers on files in the exact published formats, with their quirks: what is read, and what is dropped for what."""

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from raw_shop import KEY

from recfound_data.corpora import MovieLens
from recfound_data.people import UserKey
from recfound_data.sources import Unparsable, line_blocks
from recfound_data.tables import TABLES, Source


class Read:
    """All that a reader gives: rows by table, drops by reason, and unparsable lines."""

    def __init__(self, reader: Source) -> None:
        self.reader = reader
        self.drops: Counter[str] = Counter()
        self.unparsable: list[Unparsable] = []
        frames = defaultdict(list)
        for batch in reader.batches(UserKey(KEY, secret=True)):
            assert not set(batch.frame.schema.items()) - set(TABLES[batch.table].items())
            frames[batch.table].append(batch.frame)
            self.drops.update({why: count for why, count in batch.drops.items() if count})
            self.unparsable += batch.unparsable
        self.tables = {table: pl.concat(parts) for table, parts in frames.items()}

    def rows(self, table: str, *columns: str) -> list[tuple]:
        frame = self.tables[table]
        return frame.select(*columns or frame.columns).rows()

    def items(self) -> dict[str, dict[str, Any]]:
        """The items by id, their facts as a dictionary."""
        rows = {row["item_id"]: row for row in self.tables["items"].to_dicts()}
        for row in rows.values():
            row["facts"] = {fact["name"]: fact["value"] for fact in row.get("facts") or []}
        return rows


def pseudonym(user: str) -> str:
    return hmac.new(KEY.encode(), f"\x1f{user}".encode(), hashlib.sha256).hexdigest()[:16]


# MovieLens

MOVIES_CSV = '''movieId,title,genres
1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy
11,"American President, The (1995)",Comedy|Drama|Romance
29,"City of Lost Children, The (Cité des enfants perdus, La) (1995)",Adventure|Drama
40,"Cry, the Beloved Country (1995)",Drama
73,"Misérables, Les (1995)",Drama|War
201,"Three Wishes, A (1995)",Drama
114335,La cravate (1957),(no genres listed)
140956,"""Great Performances"" Cats (1998)",Musical
171495,Cosmos,(no genres listed)
200000,,Drama
'''
RATINGS_CSV = """userId,movieId,rating,timestamp
1,1,4.0,964982703
1,11,0.5,964981247
2,29,5.0,1445714835
2,40,5.5,1445714836
2,40,0.0,1445714836
2,73,nan,1445714837
3,1,3.5,0
3,1,3.5,1445714837000
3,11,3.5,964981247.5
3,,3.5,964981247
"""


@pytest.fixture
def films(tmp_path: Path) -> Callable[..., MovieLens]:
    """Writes the two files of a release and returns their reader."""

    def write(ratings: bytes, movies: bytes, suffix: str = "csv") -> MovieLens:
        for name, content in (("ratings", ratings), ("movies", movies)):
            (tmp_path / f"{name}.{suffix}").write_bytes(content)
        return MovieLens(ratings=str(tmp_path / f"ratings.{suffix}"), movies=str(tmp_path / f"movies.{suffix}"))

    return write


def test_movielens_csv_titles_and_genres(films: Callable[..., MovieLens]) -> None:
    read = Read(films(RATINGS_CSV.encode(), MOVIES_CSV.encode()))
    items = read.items()
    assert {item: row["title"] for item, row in items.items()} == {
        "1": "Toy Story (1995)",
        "11": "The American President (1995)",
        "29": "The City of Lost Children (Cité des enfants perdus, La) (1995)",
        "40": "Cry, the Beloved Country (1995)",
        "73": "Les Misérables (1995)",
        "201": "A Three Wishes (1995)",
        "114335": "La cravate (1957)",
        "140956": '"Great Performances" Cats (1998)',
        "171495": "Cosmos",
    }
    assert items["11"]["categories"] == ["Comedy", "Drama", "Romance"]
    assert items["114335"]["categories"] == items["171495"]["categories"] == []
    assert items["1"]["facts"] == {"Year": "1995"} and items["171495"]["facts"] == {}
    assert {row["domain"] for row in items.values()} == {"Films"}
    assert read.drops["film unparsable"] == 1  # the one without a title


def test_movielens_csv_ratings_are_dropped_by_reason(films: Callable[..., MovieLens]) -> None:
    read = Read(films(RATINGS_CSV.encode(), MOVIES_CSV.encode()))
    assert read.rows("interactions") == [
        (pseudonym("1"), "1", 4.0, 964982703),
        (pseudonym("1"), "11", 0.5, 964981247),
        (pseudonym("2"), "29", 5.0, 1445714835),
    ]
    assert read.drops == {"impossible rating": 3, "impossible date": 2, "rating unparsable": 2, "film unparsable": 1}
    assert [bad.line for bad in read.unparsable] == [10, 11, 11]


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text, str.rstrip])
def test_movielens_csv_line_ends_and_byte_order_mark(
    films: Callable[..., MovieLens], change: Callable[[str], str]
) -> None:
    plain = Read(films(RATINGS_CSV.encode(), MOVIES_CSV.encode()))
    changed = Read(films(change(RATINGS_CSV).encode(), change(MOVIES_CSV).encode()))
    assert changed.tables["interactions"].equals(plain.tables["interactions"])
    assert changed.tables["items"].equals(plain.tables["items"])
    assert changed.drops == plain.drops


def test_movielens_csv_columns_stand_in_any_order_among_others(films: Callable[..., MovieLens]) -> None:
    ratings = b"rating,tag,timestamp,movieId,userId\n4.0,x,964982703,1,7\n"
    movies = b"genres,movieId,title\nDrama,1,Film (1990)\n"
    read = Read(films(ratings, movies))
    assert read.rows("interactions") == [(pseudonym("7"), "1", 4.0, 964982703)]
    assert read.tables["items"]["title"].to_list() == ["Film (1990)"]


def test_movielens_files_of_headers_alone_hold_nothing(films: Callable[..., MovieLens]) -> None:
    read = Read(films(b"userId,movieId,rating,timestamp\n", b"movieId,title,genres"))
    assert all(frame.is_empty() for frame in read.tables.values()) and not read.drops


COLON_MOVIES = """1::Toy Story (1995)::Animation|Children's|Comedy
73::Misérables, Les (1995)::Drama|Musical
592::Cité :: La Suite :: 2 (1996)::Thriller
600::Film::
700::Half a film
800
"""
COLON_RATINGS = """1::1::5::978300760
6040::592::3.5::956704056
1::73::6::978302109
1::73::4::100
1::73::x::978302109
1::73::4
1::73::4::978302109::9
"""


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movielens_colons_keep_accents_and_colons_in_titles(films: Callable[..., MovieLens], encoding: str) -> None:
    read = Read(films(COLON_RATINGS.encode(encoding), COLON_MOVIES.encode(encoding), "dat"))
    items = read.items()
    assert {item: row["title"] for item, row in items.items()} == {
        "1": "Toy Story (1995)",
        "73": "Les Misérables (1995)",
        "592": "Cité :: La Suite :: 2 (1996)",
    }
    assert items["1"]["categories"] == ["Animation", "Children's", "Comedy"]
    assert read.rows("interactions") == [
        (pseudonym("1"), "1", 5.0, 978300760),
        (pseudonym("6040"), "592", 3.5, 956704056),
    ]
    assert read.drops == {
        "rating unparsable": 3,
        "impossible rating": 1,
        "impossible date": 1,
        "film unparsable": 3,
    }
    assert [(Path(bad.path).name, bad.line) for bad in read.unparsable] == [
        *(("ratings.dat", line) for line in (5, 6, 7)),
        *(("movies.dat", line) for line in (4, 5, 6)),
    ]


def test_movielens_blocks_do_not_depend_on_where_they_are_cut(
    films: Callable[..., MovieLens], monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = films(RATINGS_CSV.encode(), MOVIES_CSV.encode())
    dat = films(COLON_RATINGS.encode("latin-1"), COLON_MOVIES.encode("latin-1"), "dat")
    whole = [Read(csv), Read(dat)]
    monkeypatch.setattr(line_blocks, "__defaults__", (23,))
    for reader, expected in zip((csv, dat), whole, strict=True):
        cut = Read(reader)
        assert len(list(line_blocks(reader.ratings))) > 5
        assert cut.rows("interactions") == expected.rows("interactions")
        assert cut.rows("items") == expected.rows("items")
        assert (cut.drops, cut.unparsable) == (expected.drops, expected.unparsable)
