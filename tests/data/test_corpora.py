"""Readers on files in the exact published formats, with their quirks: what is read, and what is dropped for what."""

import gzip
import hashlib
import hmac
import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pyarrow as pa
import pytest
from raw_shop import KEY

from recfound_data.catalogue import make_catalogue
from recfound_data.corpora import AmazonReviews2018, MovieLens, Reader, ShoppingQueries
from recfound_data.people import UserKey
from recfound_data.recipe import DataRecipe
from recfound_data.sources import Block, Unparsable, json_lines, line_blocks
from recfound_data.tables import TABLES, CorpusTables


class Read:
    """All that a reader gives: rows by table, drops by reason, and unparsable lines."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.drops: Counter[str] = Counter()
        self.unparsable: list[Unparsable] = []
        frames = defaultdict(list)
        for batch in reader.batches(UserKey(KEY, secret=True)):
            assert dict(batch.frame.schema) == TABLES[batch.table]
            frames[batch.table].append(batch.frame)
            self.drops.update({why: count for why, count in batch.drops.items() if count})
            self.unparsable += batch.unparsable
        self.tables = {table: pl.concat(parts) for table, parts in frames.items()}

    def rows(self, table: str) -> list[tuple]:
        return self.tables[table].rows()

    def catalogue(self, folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
        """The cleaned items by the corpus's own id, and the items left out by reason."""
        (folder / "items").mkdir(parents=True)
        self.tables["items"].write_parquet(folder / "items/0.parquet")
        recipe = DataRecipe(corpora=[{}], tasks=["item2item"])
        frame, drops = make_catalogue(CorpusTables(folder, self.reader.label, recipe))
        items = {row["item_id"].removeprefix(f"{self.reader.label}/"): row for row in frame.to_dicts()}
        return items, {why: count for why, count in drops.items() if count}


def pseudonym(user: str) -> str:
    return hmac.new(KEY.encode(), user.encode(), hashlib.sha256).hexdigest()[:16]


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


def test_movielens_csv_titles_and_genres(films: Callable[..., MovieLens], tmp_path: Path) -> None:
    read = Read(films(RATINGS_CSV.encode(), MOVIES_CSV.encode()))
    items, drops = read.catalogue(tmp_path / "tables")
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
    assert items["1"]["text"] == "Toy Story (1995)\nCategories: Adventure, Animation, Children, Comedy, Fantasy"
    assert items["171495"]["text"] == "Cosmos"
    assert {row["domain"] for row in items.values()} == {"Films"} and drops == {}
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
def test_movielens_colons_keep_accents_and_colons_in_titles(
    films: Callable[..., MovieLens], tmp_path: Path, encoding: str
) -> None:
    read = Read(films(COLON_RATINGS.encode(encoding), COLON_MOVIES.encode(encoding), "dat"))
    items, _ = read.catalogue(tmp_path / "tables")
    assert {item: row["title"] for item, row in items.items()} == {
        "1": "Toy Story (1995)",
        "73": "Les Misérables (1995)",
        "592": "Cité :: La Suite :: 2 (1996)",
        "600": "Film",
    }
    assert items["1"]["categories"] == ["Animation", "Children's", "Comedy"] and items["600"]["categories"] == []
    assert read.rows("interactions") == [
        (pseudonym("1"), "1", 5.0, 978300760),
        (pseudonym("6040"), "592", 3.5, 956704056),
    ]
    assert read.drops == {
        "rating unparsable": 3,
        "impossible rating": 1,
        "impossible date": 1,
        "film unparsable": 2,
    }
    assert [(Path(bad.path).name, bad.line) for bad in read.unparsable] == [
        *(("ratings.dat", line) for line in (5, 6, 7)),
        *(("movies.dat", line) for line in (5, 6)),
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


# Amazon Reviews 2018


def review(**changes: Any) -> dict[str, Any]:
    row = {
        "overall": 5.0, "vote": "1,234", "verified": True, "reviewTime": "06 17, 2018", "reviewerID": "A31UBHTUUIFJUT",
        "asin": "B004LLIKVU", "style": {"Gift Amount:": " 50", "Color:": " Blue"}, "reviewerName": "john stoiber",
        "reviewText": "Another great gift.", "summary": "Five Stars", "unixReviewTime": 1529193600,
        "image": ["https://images-na.ssl-images-amazon.com/images/I/71.jpg"],
    } | changes  # fmt: skip
    return {key: value for key, value in row.items() if value is not None}


def product(**changes: Any) -> dict[str, Any]:
    return {
        "category": ["Gift Cards", "Gift Cards"], "tech1": "", "description": ["A card.", "For everybody."], "fit": "",
        "title": "Gift Card", "also_buy": [], "tech2": "", "brand": "Amazon", "feature": [], "also_view": [],
        "rank": "1,786 in Gift Cards (", "details": {"\n    Product Dimensions: \n    ": "3.4 inches"},
        "main_cat": "Gift Cards", "similar_item": "", "date": "", "price": "", "asin": "B004LLIKVU", "imageURL": [],
        "imageURLHighRes": [],
    } | changes  # fmt: skip


def lines(*rows: dict[str, Any] | bytes) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


@pytest.fixture
def amazon(tmp_path: Path) -> Callable[..., AmazonReviews2018]:
    """Writes the two files of a category and returns their reader."""

    def write(reviews: bytes, metadata: bytes) -> AmazonReviews2018:
        (tmp_path / "Gift_Cards_5.json.gz").write_bytes(gzip.compress(reviews))
        (tmp_path / "meta_Gift_Cards.json.gz").write_bytes(gzip.compress(metadata))
        return AmazonReviews2018(
            name="cards",
            reviews=str(tmp_path / "Gift_Cards_5.json.gz"),
            metadata=str(tmp_path / "meta_Gift_Cards.json.gz"),
        )

    return write


def test_amazon_reviews_are_read_whatever_their_optional_fields_are(amazon: Callable[..., AmazonReviews2018]) -> None:
    rows = [
        review(),
        review(reviewerID="A2", vote=None, style=None, image=None, reviewText=None, summary=None),
        review(reviewerID="A3", style={}, vote="2", overall=1.0),
        review(reviewerID="A4", overall=3),
        review(),  # an exact duplicate is an interaction here; events count it
    ]
    read = Read(amazon(lines(*rows), lines(product())))
    assert read.rows("interactions") == [
        (pseudonym(user), "B004LLIKVU", rating, 1529193600)
        for user, rating in (("A31UBHTUUIFJUT", 5.0), ("A2", 5.0), ("A3", 1.0), ("A4", 3.0), ("A31UBHTUUIFJUT", 5.0))
    ]
    assert not read.drops and not read.unparsable


def test_amazon_reviews_are_dropped_by_reason(amazon: Callable[..., AmazonReviews2018]) -> None:
    rows = [
        review(overall=0.0), review(overall=6.0), review(unixReviewTime=0), review(unixReviewTime=4102444800),
        review(reviewerID=None), review(asin=None), review(overall=None), review(unixReviewTime=None),
        b"{'overall': 5.0}", b'{"overall": 5.0, ', b'"text"', review(reviewerID="A9"),
    ]  # fmt: skip
    read = Read(amazon(lines(*rows), lines(product())))
    assert read.rows("interactions") == [(pseudonym("A9"), "B004LLIKVU", 5.0, 1529193600)]
    assert read.drops == {
        "impossible rating": 2,
        "impossible date": 2,
        "review without user, item, rating or time": 4,
        "review unparsable": 3,
    }
    assert [bad.line for bad in read.unparsable] == [9, 10, 11]


SCRIPT = "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();"


def test_amazon_items_are_cleaned_and_dropped_by_reason(
    amazon: Callable[..., AmazonReviews2018], tmp_path: Path
) -> None:
    rows = [
        product(asin="1", title="Tom &amp; Jerry&#39;s <b>Card</b> &amp;quot;10&amp;quot;", price="$1,250.00"),
        product(asin="2", title=SCRIPT),
        product(asin="3", title=""),
        product(asin="4", title="<span></span>"),
        product(asin="5", brand="", description=[], feature=["One &eacute;", "Two"], category=[]),
        product(asin="6", description=['<div class="aplus"> <br>Send it<br/></div>', "<script>var x = 1;</script>"]),
        product(asin="7", category=["Gift Cards", "No expiration, no fees.", "x" * 41, "Restaurants"]),
        product(asin="1", title="Second entry of one item"),
        product(asin=None),
        {"asin": "8", "title": "Only these"},
        b"not json",
    ]
    read = Read(amazon(lines(review()), lines(*rows)))
    items, drops = read.catalogue(tmp_path / "tables")
    assert {item: row["title"] for item, row in items.items()} == {
        "1": 'Tom & Jerry\'s Card "10"',
        "5": "Gift Card",
        "6": "Gift Card",
        "7": "Gift Card",
        "8": "Only these",
    }
    assert items["5"]["text"] == "Gift Card\nOne é Two"
    assert items["6"]["text"] == "Gift Card\nBrand: Amazon\nCategories: Gift Cards\nSend it"
    assert items["7"]["categories"] == ["Gift Cards", "Restaurants"]
    assert items["8"]["text"] == "Only these" and {row["domain"] for row in items.values()} == {"cards"}
    assert drops == {"item repeated": 1, "item without a title": 2, "item whose title is script": 1}
    assert read.drops == {"item without id": 1, "item unparsable": 1}


def test_amazon_relations_are_read_with_those_to_unknown_items(amazon: Callable[..., AmazonReviews2018]) -> None:
    rows = [
        product(asin="1", also_buy=["2", "UNKNOWN"], also_view=["3"]),
        product(asin="2", also_buy=[], also_view=["1"]),
        product(asin="3", also_buy="", also_view=None),
    ]
    read = Read(amazon(lines(review()), lines(*rows)))
    assert sorted(read.rows("relations")) == [
        ("1", "2", "also_buy"),
        ("1", "3", "also_view"),
        ("1", "UNKNOWN", "also_buy"),
        ("2", "1", "also_view"),
    ]
    assert len(read.rows("items")) == 3


REVIEW = {"reviewerID": pl.String, "overall": pl.Float32, "unixReviewTime": pl.Int64, "also_buy": pl.List(pl.String)}
ODD = [
    b'{"reviewerID": "x\\ud800"}',
    b'{"unixReviewTime": 99999999999999999999}',
    b'{"overall": "4.0", "unixReviewTime": "12"}',
    b'{"overall": true, "unixReviewTime": 12.5}',
    b'{"reviewerID": ["a"], "also_buy": ""}',
    b'{"reviewerID": {"a": 1}, "also_buy": [1, null, "b"]}',
    b'{"reviewerID": "A", "reviewerID": "B"}',
    b"{}",
    b" \t ",
]


def test_a_broken_line_changes_nothing_about_how_the_others_are_read() -> None:
    good = [json.dumps({"reviewerID": f"A{number}", "overall": 5.0}).encode() for number in range(50)]
    good[20:20] = ODD
    expected, none = json_lines(Block("file", 1, b"\n".join(good)), REVIEW)
    assert none == [] and len(expected) == 58
    for places in ([0], [58], [20, 21, 22], [7, 30, 59], range(0, 60, 2)):
        mixed, broken = list(good), []
        for place in places:
            mixed.insert(place, b'{"reviewerID": "A1"')
            broken.append(place)
        frame, bad = json_lines(Block("file", 101, b"\n".join(mixed) + b"\n"), REVIEW)
        assert frame.equals(expected)
        assert [(line.path, line.line) for line in bad] == [("file", 101 + place) for place in broken]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[1, 2]", "expected an object, found list"),
        (b'"text"', "expected an object, found str"),
        (b"null", "expected an object, found NoneType"),
        (b"12", "expected an object, found int"),
        (b"{'reviewerID': 'A'}", "Expecting property name enclosed in double quotes"),
        (b'{"reviewerID": "A"', "Expecting ',' delimiter"),
        (b'{"reviewerID": "\xe9"}', "'utf-8' codec can't decode byte 0xe9"),
        (b'{"overall": NaN}', "no readable JSON"),
        (b"{} {}", "Extra data"),
    ],
)
def test_why_a_line_is_no_object_is_said(line: bytes, why: str) -> None:
    frame, bad = json_lines(Block("file", 1, b'{"reviewerID": "A"}\n' + line + b"\n"), REVIEW)
    assert frame["reviewerID"].to_list() == ["A"]
    assert [(found.line, found.why[: len(why)]) for found in bad] == [(2, why)]


# Shopping Queries


def example(**changes: Any) -> dict[str, Any]:
    return {
        "example_id": 0, "query": "revent 80 cfm", "query_id": 0, "product_id": "B000MOO21W", "product_locale": "us",
        "esci_label": "E", "small_version": 0, "large_version": 1, "split": "train",
    } | changes  # fmt: skip


def offer(**changes: Any) -> dict[str, Any]:
    return {
        "product_id": "B000MOO21W", "product_title": "Panasonic Fan", "product_description": None,
        "product_bullet_point": "Quiet\nEfficient", "product_brand": "Panasonic", "product_color": "White",
        "product_locale": "us",
    } | changes  # fmt: skip


@pytest.fixture
def searches(tmp_path: Path) -> Callable[..., ShoppingQueries]:
    """Writes the two Parquet files and returns their reader."""

    def write(examples: list[dict], products: list[dict], **options: Any) -> ShoppingQueries:
        for name, rows in (("examples", examples), ("products", products)):
            frame = pl.DataFrame(rows, infer_schema_length=None)
            # pandas leaves the index of a filtered frame behind, as in the official files
            frame.with_row_index("__index_level_0__").write_parquet(tmp_path / f"{name}.parquet")
        paths = {name: str(tmp_path / f"{name}.parquet") for name in ("examples", "products")}
        return ShoppingQueries(**paths, **options)

    return write


EXAMPLES = [
    example(),
    example(query_id=1, query="#10 envelopes", esci_label="S", small_version=1, split="test"),
    example(query_id=2, query="abanico", product_id="B2", product_locale="es", esci_label="C", small_version=1),
    example(query_id=3, query="扇風機", product_id="B2", product_locale="jp", esci_label="I"),
    example(query_id=4, esci_label="X"),
    example(query_id=5, query=None),
    example(query_id=6, esci_label=None),
    example(query_id=7, large_version=0),
]
PRODUCTS = [
    offer(),
    offer(product_id="B2", product_locale="es", product_color=None, product_bullet_point=None, product_brand=None),
    offer(product_id="B2", product_locale="jp", product_description="<p>静か</p>", product_color=""),
    offer(product_id=None),
]


def test_shopping_queries_of_all_locales(searches: Callable[..., ShoppingQueries], tmp_path: Path) -> None:
    read = Read(searches(EXAMPLES, PRODUCTS))
    assert read.rows("judgements") == [
        ("us-0", "revent 80 cfm", "us-B000MOO21W", 3, "train", "Shopping us"),
        ("us-1", "#10 envelopes", "us-B000MOO21W", 2, "test", "Shopping us"),
        ("es-2", "abanico", "es-B2", 1, "train", "Shopping es"),
        ("jp-3", "扇風機", "jp-B2", 0, "train", "Shopping jp"),
    ]
    assert read.drops == {
        "judgement with an unknown label": 1,
        "judgement incomplete": 2,
        "judgement of another locale or version": 1,
        "item without id": 1,
    }
    items, _ = read.catalogue(tmp_path / "tables")
    assert {item: (row["text"], row["domain"]) for item, row in items.items()} == {
        "us-B000MOO21W": ("Panasonic Fan\nBrand: Panasonic\nColour: White. Quiet Efficient", "Shopping us"),
        "es-B2": ("Panasonic Fan", "Shopping es"),
        "jp-B2": ("Panasonic Fan\nBrand: Panasonic\nQuiet Efficient 静か", "Shopping jp"),
    }


def test_shopping_queries_of_some_locales_or_the_small_version(searches: Callable[..., ShoppingQueries]) -> None:
    small = Read(searches(EXAMPLES, PRODUCTS, version="small"))
    assert [row[0] for row in small.rows("judgements")] == ["us-1", "es-2"]
    assert small.drops["judgement of another locale or version"] == 3
    some = Read(searches(EXAMPLES, PRODUCTS, locales=("es", "jp"), domain="Shop"))
    assert [row[0] for row in some.rows("judgements")] == ["es-2", "jp-3"]
    assert [(row[0], row[5]) for row in some.rows("items")] == [("es-B2", "Shop es"), ("jp-B2", "Shop jp")]
    assert some.drops["item of another locale"] == 1


def test_shopping_queries_with_descriptions_that_are_all_null(searches: Callable[..., ShoppingQueries]) -> None:
    read = Read(searches(EXAMPLES[:1], [offer(product_color=None)]))  # the column has the type null
    assert [row[:3] for row in read.rows("items")] == [("us-B000MOO21W", "Panasonic Fan", " Quiet\nEfficient ")]


# Where files are


def test_plain_gzip_and_zstd_files_give_the_same(films: Callable[..., MovieLens], tmp_path: Path) -> None:
    reader = films(RATINGS_CSV.encode(), MOVIES_CSV.encode())
    expected = Read(reader).rows("interactions")

    def zstd(text: str) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as packer:
            packer.write(text.encode())
        return sink.getvalue().to_pybytes()

    half = RATINGS_CSV.index("2,29")
    packed = {
        "gz": gzip.compress(RATINGS_CSV.encode()),
        "zst": zstd(RATINGS_CSV),
        "zstd": b"".join(zstd(part) for part in (RATINGS_CSV[:half], RATINGS_CSV[half:])),
    }
    for suffix, data in packed.items():
        (tmp_path / f"r.csv.{suffix}").write_bytes(data)
        assert Read(MovieLens(ratings=str(tmp_path / f"r.csv.{suffix}"), movies=reader.movies)).rows(
            "interactions"
        ) == (expected)


def test_a_glob_is_all_its_files_in_the_order_of_their_names(films: Callable[..., MovieLens], tmp_path: Path) -> None:
    reader = films(RATINGS_CSV.encode(), MOVIES_CSV.encode())
    header = RATINGS_CSV.splitlines()[0]
    for number in (2, 10, 1):
        (tmp_path / f"part-{number:02d}.csv").write_text(f"{header}\n{number},1,4.0,964982703")
    (tmp_path / "part-99.csv").mkdir()
    read = Read(MovieLens(ratings=str(tmp_path / "part-*.csv"), movies=reader.movies))
    assert [row[0] for row in read.rows("interactions")] == [pseudonym(user) for user in ("1", "2", "10")]


def test_a_folder_with_brackets_in_its_name_is_no_glob(films: Callable[..., MovieLens], tmp_path: Path) -> None:
    reader = films(RATINGS_CSV.encode(), MOVIES_CSV.encode())
    (tmp_path / "ml [latest]").mkdir()
    path = Path(reader.ratings).rename(tmp_path / "ml [latest]" / "ratings?.csv")
    assert len(Read(MovieLens(ratings=str(path), movies=reader.movies)).rows("interactions")) == 3


def test_any_fsspec_url_is_read(films: Callable[..., MovieLens], tmp_path: Path) -> None:
    reader = films(RATINGS_CSV.encode(), MOVIES_CSV.encode())
    expected = Read(reader).rows("interactions")
    with zipfile.ZipFile(tmp_path / "ml-latest.zip", "w") as archive:
        archive.write(reader.ratings, "ml-latest/ratings.csv")
    memory = fsspec.filesystem("memory")
    memory.pipe("/recfound-test/ratings.csv", RATINGS_CSV.encode())
    urls = [
        f"file://{reader.ratings}",
        f"file://{tmp_path}/rat*.csv",
        "memory://recfound-test/ratings.csv",
        "memory://recfound-test/*.csv",
        f"zip://ml-latest/ratings.csv::{tmp_path}/ml-latest.zip",
        f"zip://*/rat*.csv::file://{tmp_path}/ml-latest.zip",
        f"simplecache::file://{reader.ratings}",
    ]
    try:
        for url in urls:
            assert Read(MovieLens(ratings=url, movies=reader.movies)).rows("interactions") == expected, url
    finally:
        memory.rm("/recfound-test", recursive=True)
