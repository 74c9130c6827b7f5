"""Shopping Queries in the forms in which it is published and passed on: Parquet, joined CSV, JSON lines."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from test_corpora import Read

from recfound_data.corpora import ShoppingQueries


def example(**changes: Any) -> dict[str, Any]:
    return {
        "example_id": 0, "query": "quiet desk fan", "query_id": 0, "product_id": "B0FAN00001", "product_locale": "us",
        "esci_label": "E", "small_version": 0, "large_version": 1, "split": "train",
    } | changes  # fmt: skip


def offer(**changes: Any) -> dict[str, Any]:
    return {
        "product_id": "B0FAN00001", "product_title": "Zephyro Fan", "product_description": None,
        "product_bullet_point": "Quiet\nEfficient", "product_brand": "Zephyro", "product_color": "White",
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
    offer(product_title="The same again"),
]


def test_all_locales(searches: Callable[..., ShoppingQueries]) -> None:
    read = Read(searches(EXAMPLES, PRODUCTS))
    assert read.rows("judgements") == [
        ("us-0", "quiet desk fan", "us-B0FAN00001", 3, "train", "Shopping us"),
        ("us-1", "#10 envelopes", "us-B0FAN00001", 2, "test", "Shopping us"),
        ("es-2", "abanico", "es-B2", 1, "train", "Shopping es"),
        ("jp-3", "扇風機", "jp-B2", 0, "train", "Shopping jp"),
    ]
    assert read.drops == {
        "judgement with an unknown label": 1,
        "judgement incomplete": 2,
        "judgement of another locale or version": 1,
        "item without id": 1,
        "item repeated": 1,
    }
    items = read.items()
    assert {item: (row["title"], row["description"], row["brand"], row["domain"]) for item, row in items.items()} == {
        "us-B0FAN00001": ("Zephyro Fan", "Colour: White. Quiet\nEfficient ", "Zephyro", "Shopping us"),
        "es-B2": ("Zephyro Fan", "  ", None, "Shopping es"),
        "jp-B2": ("Zephyro Fan", " Quiet\nEfficient <p>静か</p>", "Zephyro", "Shopping jp"),
    }
    assert [row["facts"] for row in items.values()] == [{"Colour": "White"}, {}, {}]


def test_some_locales_or_the_small_version(searches: Callable[..., ShoppingQueries]) -> None:
    small = Read(searches(EXAMPLES, PRODUCTS, version="small"))
    assert [row[0] for row in small.rows("judgements")] == ["us-1", "es-2"]
    assert small.drops["judgement of another locale or version"] == 3
    some = Read(searches(EXAMPLES, PRODUCTS, locales=("es", "jp"), domain="Shop"))
    assert [row[0] for row in some.rows("judgements")] == ["es-2", "jp-3"]
    assert some.rows("items", "item_id", "domain") == [("es-B2", "Shop es"), ("jp-B2", "Shop jp")]
    assert some.drops["item of another locale"] == 2


def test_descriptions_that_are_all_null(searches: Callable[..., ShoppingQueries]) -> None:
    read = Read(searches(EXAMPLES[:1], [offer(product_color=None)]))  # the column has the type null
    assert read.rows("items", "item_id", "description") == [("us-B0FAN00001", " Quiet\nEfficient ")]


def test_a_reader_for_each_file_gives_the_same(searches: Callable[..., ShoppingQueries]) -> None:
    reader = searches(EXAMPLES, PRODUCTS)
    whole, parts = Read(reader), [Read(part) for part in reader.parts()]
    assert [list(part.tables) for part in parts] == [["judgements"], ["items"]]
    for part in parts:
        for table, frame in part.tables.items():
            assert frame.equals(whole.tables[table])
    assert sum((part.drops for part in parts), Counter()) == whole.drops


JOINED = (
    "example_id,query,query_id,product_id,product_locale,esci_label,small_version,large_version,product_title,"
    "product_description,product_bullet_point,product_brand,product_color\n"
    '7,"lamp, 5"" base",70,B0LAMP0001,us,Exact,0,1,Lamp,"<b>Bright</b>, they\nsaid","One\n\nTwo",Lumo,Red\n'
    "8,lamp,71,B0LAMP0001,us,Substitute,1,1,Lamp,,,Lumo,Red\n"
    "9,lámpara,72,B0LAMP0002,es,Complement,0,1,Lámpara,,,,\n"
    "10,lamp,71,B0LAMP0003,us,Irrelevant,0,1,Shade,,,,\n"
    "11,lamp,71,B0LAMP0004,us,Perhaps,0,1,Shade,,,,\n"
    "12,lamp,71,B0LAMP0005,us,Exact,0,1,Shade,,,,,a value too many\n"
)


def test_products_joined_as_csv_with_labels_as_words(tmp_path: Path) -> None:
    path = tmp_path / "joined.csv"
    path.write_text(JOINED, encoding="utf-8")
    read = Read(ShoppingQueries(examples=str(path), products=str(path)))
    assert read.rows("judgements") == [
        ("us-70", 'lamp, 5" base', "us-B0LAMP0001", 3, None, "Shopping us"),
        ("us-71", "lamp", "us-B0LAMP0001", 2, None, "Shopping us"),
        ("es-72", "lámpara", "es-B0LAMP0002", 1, None, "Shopping es"),
        ("us-71", "lamp", "us-B0LAMP0003", 0, None, "Shopping us"),
    ]
    items = read.items()
    assert items["us-B0LAMP0001"]["description"] == "Colour: Red. One\n\nTwo <b>Bright</b>, they\nsaid"
    assert len(items) == 4 and items["us-B0LAMP0001"]["brand"] == "Lumo"
    assert read.drops == {
        "judgement with an unknown label": 1,
        "judgement unparsable": 1,
        "item unparsable": 1,
        "item repeated": 1,
    }
    assert [(bad.line, bad.why) for bad in read.unparsable] == [(10, "expected 13 values, found 14")] * 2


def test_products_as_a_search_engine_is_fed_with_them(tmp_path: Path) -> None:
    feed = [
        {"put": "id:shop:product::B1", "fields": {"id": "B1", "title": "Radio", "description": None, "bullets": "Loud",
                                                 "brand": "Wavo", "color": "Black", "locale": "us"}},
        {"product_id": "B2", "product_locale": "us", "product_title": "Official names"},
        {"put": "id:shop:product::B3"},
    ]  # fmt: skip
    with pa.CompressedOutputStream(pa.OSFile(str(tmp_path / "products.jsonl.zstd"), "wb"), "zstd") as packed:
        packed.write("\n".join(map(json.dumps, feed)).encode())
    (tmp_path / "examples.jsonl").write_text(json.dumps(example(product_id="B1")) + "\n")
    reader = ShoppingQueries(examples=str(tmp_path / "examples.jsonl"), products=str(tmp_path / "products.jsonl.zstd"))
    read = Read(reader)
    assert read.rows("judgements", "item_id", "grade") == [("us-B1", 3)]
    assert read.rows("items", "item_id", "title", "description", "brand") == [
        ("us-B1", "Radio", "Colour: Black. Loud ", "Wavo"),
        ("us-B2", "Official names", "  ", None),
    ]
    assert read.drops == {"item without id": 1}


@pytest.mark.corpora
def test_the_real_slices_in_all_three_forms(corpora: Path) -> None:
    folder = corpora / "shopping_queries"
    official = Read(
        ShoppingQueries(
            examples=str(folder / "shopping_queries_dataset_examples.parquet"),
            products=str(folder / "shopping_queries_dataset_products.parquet"),
        )
    )
    assert len(official.rows("judgements")) == 5_423 and len(official.rows("items")) == 6_764 and not official.drops
    assert set(official.tables["judgements"]["split"]) == {"train", "test"}
    samples = folder / "official_samples"
    fed = Read(
        ShoppingQueries(
            examples=str(samples / "test-sample.parquet"), products=str(samples / "sample-products.jsonl.zstd")
        )
    )
    assert set(fed.tables["judgements"]["item_id"]) == set(fed.tables["items"]["item_id"]) and not fed.drops
    joined = str(samples / "joined_sample_200.csv")
    words = Read(ShoppingQueries(examples=joined, products=joined))
    assert Counter(words.tables["judgements"]["grade"]) == {3: 138, 2: 49, 1: 1, 0: 12} and not words.drops
    assert words.tables["items"]["title"].null_count() == 0
