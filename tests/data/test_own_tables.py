"""Tables of one's own: every table in every form, mapped columns, times, and what is said of mistakes."""

import datetime
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from reading import USER_KEY, Read, pseudonym

from recfound_data.corpora import readers
from recfound_data.corpora.own_tables import OwnTables
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.recipe import DataRecipe

CLICKS = [
    {"customer": 7, "sku": "s1", "stars": 5, "time": "2023-01-05T10:00:00Z"},
    {"customer": 7, "sku": "s2", "stars": None, "time": "2023-01-05 11:00:00+01:00"},
    {"customer": 8, "sku": "s3", "stars": 3.5, "time": "2023-01-06"},
]
EXPECTED = [("7", "s1", 5.0, 1672912800), ("7", "s2", None, 1672912800), ("8", "s3", 3.5, 1672963200)]
MAPPED = {"user_id": "customer", "item_id": "sku", "rating": "stars", "timestamp": "time"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def file(name: str, rows: Any) -> str:
        path = tmp_path / name
        kind = name.removesuffix(".gz").rsplit(".", 1)[1]
        if isinstance(rows, str):
            data = rows.encode()
        elif kind == "jsonl":
            data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        elif kind == "parquet":
            pl.DataFrame(rows).write_parquet(path)
            return str(path)
        else:
            separator = {"csv": ",", "tsv": "\t", "txt": ";"}[kind]
            data = pl.DataFrame(rows).write_csv(separator=separator).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return file


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("clicks.csv", {}),
        ("clicks.csv.gz", {}),
        ("clicks.tsv", {}),
        ("clicks.txt", {"form": "csv", "separator": ";"}),
        ("clicks.jsonl", {}),
        ("clicks.parquet", {}),
    ],
)
def test_every_form_gives_the_same_rows(write: Callable[..., str], name: str, more: dict[str, str]) -> None:
    read = Read(OwnTables(interactions={"path": write(name, CLICKS), "columns": MAPPED, **more}))
    assert read.rows("interactions", "user_id", "item_id", "rating", "timestamp") == [
        (pseudonym(user), *rest) for user, *rest in EXPECTED
    ]
    assert not read.drops


@pytest.mark.parametrize(
    ("value", "unit", "seconds"),
    [
        ("1672912800", "", 1672912800),
        ("1672912800.75", "", 1672912800),
        ("1672912800123", "", 1672912800),
        ("1672912800123456", "", 1672912800),
        ("1672912800123456789", "", 1672912800),
        ("5000", "ms", 5),
        ("1672912800123", "s", 1672912800123),
        ("2023-01-05", "", 1672876800),
        ("2023-01-05T10:00", "", 1672912800),
        ("2023-01-05 10:00:00.123 UTC", "", 1672912800),
        ("2023-01-05T04:30:00-05:30", "", 1672912800),
        ("2023-01-05T15:30:00+0530", "", 1672912800),
    ],
)
def test_times(write: Callable[..., str], value: str, unit: str, seconds: int) -> None:
    path = write("a.csv", f"user_id,item_id,timestamp\n1,2,{value}\n")
    read = Read(OwnTables(interactions={"path": path, "timestamp_unit": unit}))
    assert read.rows("interactions", "timestamp") == [(seconds,)]


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_times_that_parquet_stores(write: Callable[..., str], zone: str | None) -> None:
    moment = pl.Series([datetime.datetime(2023, 1, 5, 10), None]).dt.replace_time_zone("UTC")
    stored = moment.dt.convert_time_zone(zone) if zone else moment.dt.replace_time_zone(None)
    path = write("a.parquet", {"user_id": [1.0, 2.0], "item_id": [1, 2], "timestamp": stored})
    read = Read(OwnTables(interactions={"path": path}))
    assert read.rows("interactions", "user_id", "item_id", "timestamp") == [(pseudonym("1"), "1", 1672912800)]
    assert read.drops == {"interaction without timestamp": 1}


def test_rows_without_a_time_are_in_their_order_over_all_files(write: Callable[..., str]) -> None:
    for number in (1, 2):
        path = write(f"part-{number}.csv", "user_id,item_id\n" + "".join(f"u,{number}{row}\n" for row in range(3)))
    read = Read(OwnTables(interactions={"path": path.replace("part-2", "part-*")}))
    assert read.rows("interactions", "item_id", "timestamp") == [
        (f"{number}{row}", 3 * (number - 1) + row + 1) for number in (1, 2) for row in range(3)
    ]


def test_ratings_are_scaled_and_impossible_ones_dropped(write: Callable[..., str]) -> None:
    path = write("a.csv", "user_id,item_id,rating\nu,a,100\nu,b,60\nu,c,101\nu,d,-1\nu,e,\n")
    read = Read(OwnTables(interactions={"path": path, "rating_scale": 100}))
    assert read.rows("interactions", "item_id", "rating") == [("a", 5.0), ("b", 3.0), ("e", None)]
    assert read.drops == {"rating above 100, the rating_scale": 1, "rating below 0": 1}


@pytest.mark.parametrize("scale", [3, 7, 10, 100])
def test_the_best_rating_is_five_to_the_bit(write: Callable[..., str], scale: int) -> None:
    path = write("a.csv", f"user_id,item_id,rating\nu,a,{scale}\n")
    assert Read(OwnTables(interactions={"path": path, "rating_scale": scale})).rows("interactions", "rating") == [(5,)]


def test_unreadable_values_are_named_with_their_lines(write: Callable[..., str]) -> None:
    rows = ["u,a,5,1", 'u,"b",many,1', "", "u,,3,1", ",c,3,1", "u,d,3,soon", "u,e,3,", "u,f,3,1,9", "u,g,1,2"]
    read = Read(
        OwnTables(interactions={"path": write("a.csv", "user_id,item_id,rating,timestamp\n" + "\n".join(rows))})
    )
    assert read.rows("interactions", "item_id") == [("a",), ("g",)]
    assert sorted((fault.line, fault.why.split(" is not")[0]) for fault in read.unparsable) == [
        (3, "rating: 'many'"),
        (7, "timestamp: 'soon'"),
        (9, "expected 4 values, found 5"),
    ]
    assert read.drops == {
        "interaction unparsable": 3,
        "interaction without item_id": 1,
        "interaction without user_id": 1,
        "interaction without timestamp": 1,
    }


@pytest.mark.parametrize("name", ["products.csv", "products.tsv", "products.jsonl", "products.parquet"])
def test_items(write: Callable[..., str], name: str) -> None:
    rows = [
        {
            "sku": "s1",
            "name": 'Lamp, "big"',
            "text": "Two\nlines",
            "path": "Home|Light | Desk",
            "maker": "A",
            "hue": "red",
        },
        {"sku": "s2", "name": "Chair", "text": None, "path": '["Home", "Seats | more"]', "maker": None, "hue": None},
        {"sku": "s3", "name": None, "text": "x", "path": None, "maker": None, "hue": None},
    ]
    columns = {"item_id": "sku", "title": "name", "description": "text", "categories": "path", "brand": "maker"}
    read = Read(
        OwnTables(name="shop", items={"path": write(name, rows), "columns": columns, "facts": {"Colour": "hue"}})
    )
    assert read.rows("items", "item_id", "title", "description", "categories", "brand", "domain") == [
        ("s1", 'Lamp, "big"', "Two\nlines", ["Home", "Light", "Desk"], "A", "shop"),
        ("s2", "Chair", None, ["Home", "Seats | more"], None, "shop"),
    ]
    assert read.facts("items") == [{"Colour": "red"}, {}]
    assert read.drops == {"item without title": 1}


NESTED: dict[str, list[dict[str, Any]]] = {
    "dialogues": [
        {"dialogue_id": "1", "turns": [
            {"speaker": "user", "text": 'say "é"', "rewrite": None},
            {"speaker": "system", "text": "é", "rewrite": "r"},
        ], "split": "dev"},
    ],
    "attributes": [
        {"product_id": "1", "texts": [{"source": "title", "text": "Red lamp"}],
         "attributes": [{"attribute": "Colour", "value": "red", "source": "title"},
                        {"attribute": "Size", "value": None, "source": None}], "split": "test"},
    ],
    "questions": [
        {"question_id": "q", "item_id": "3", "title": "Lamp", "question": "Is it red?", "evidence": ["yes", "it is"],
         "answers": ["Yes."], "answerable": True, "split": "train"},
    ],
    "users": [{"user_id": "u", "facts": [{"name": "Gender", "value": "female"}]}],
}  # fmt: skip


@pytest.mark.parametrize("table", NESTED)
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "text.jsonl", "text.parquet", "text.csv", "text.tsv"])
def test_nested_columns_are_native_or_json(write: Callable[..., str], table: str, name: str) -> None:
    rows = NESTED[table]
    if name.startswith("text"):
        rows = [
            {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows
        ]
    read = Read(OwnTables(**{table: {"path": write(name, rows)}}))
    found = read.tables[table].to_dicts()[0]
    expected = dict(NESTED[table][0])
    if "split" in expected:
        expected["split"] = {"dev": "validation"}.get(expected["split"], expected["split"])
    if table == "users":
        expected["user_id"] = pseudonym("u")
    else:
        assert found.pop("domain") == "tables"
    assert found == expected and not read.drops


def test_objects_of_pairs_are_lists_of_two_fields(write: Callable[..., str]) -> None:
    rows = [{"user_id": 1, "facts": {"Gender": "male", "City": "Rome", "Age group": None, "Visits": 3}}]
    for name in ("a.jsonl", "a.parquet"):
        assert Read(OwnTables(users={"path": write(name, rows)})).facts("users") == [{"Gender": "male", "Visits": "3"}]


def test_flat_tables_and_values(write: Callable[..., str]) -> None:
    read = Read(
        OwnTables(
            relations={
                "path": write("r.tsv", "a\tb\tkind\n1\t2\talso\n1\t3\tSimilar\n3\t4\tother\n"),
                "columns": {"item_id": "a", "other_id": "b", "relation": "kind"},
                "values": {"relation": {"also": "bought together"}},
            },
            judgements={
                "path": write("j.csv", "query,item_id,grade,split\nred lamp,1,E,train\nlamp,2,0,test\nx,3,9,\n")
            },
            offers={"path": write("o.csv", "offer_id,title,price\n1,Lamp,EUR 3\n2,,1\n")},
            matches={"path": write("m.parquet", {"left_id": [1, 2], "right_id": [3, 4]})},
        )
    )
    assert read.rows("relations", "item_id", "other_id", "relation") == [
        ("1", "2", "bought together"),
        ("1", "3", "similar"),
    ]
    assert read.rows("judgements", "query_id", "query", "item_id", "grade", "split") == [
        ("red lamp", "red lamp", "1", 3, "train"),
        ("lamp", "lamp", "2", 0, "test"),
    ]
    assert read.rows("offers", "offer_id", "title", "price", "domain") == [("1", "Lamp", "EUR 3", "tables")]
    assert read.rows("matches", "left_id", "right_id", "match") == [("1", "3", True), ("2", "4", True)]
    assert read.drops == {"relation unparsable": 1, "judgement unparsable": 1, "offer without title": 1}


def test_wrong_shapes_are_unparsable(write: Callable[..., str]) -> None:
    rows = [{"dialogue_id": "1", "turns": "hello"}, {"dialogue_id": "2", "turns": [{"words": "x"}]},
            {"dialogue_id": "3", "turns": {"speaker": "a"}}]  # fmt: skip
    read = Read(OwnTables(dialogues={"path": write("d.jsonl", rows)}))
    assert read.tables["dialogues"].is_empty() and read.at() == [1, 2, 3]
    assert "turns: 'hello' is not a list of objects with speaker, text, rewrite" in read.unparsable[0].why


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_a_wrong_column_is_named_with_the_nearest(write: Callable[..., str], name: str) -> None:
    path = write(name, CLICKS)
    reader = OwnTables(interactions={"path": path, "columns": MAPPED | {"user_id": "custmer"}})
    with pytest.raises(RecfoundError) as error:
        Read(reader)
    for said in (path, "no column 'custmer'", "did you mean 'customer'", "it has customer, sku, stars, time"):
        assert said in str(error.value)
    with pytest.raises(RecfoundError, match=r"has no column 'user_id'.*columns: \{user_id: \.\.\.\}"):
        Read(OwnTables(interactions={"path": path}))


def test_a_file_whose_form_is_unknown_is_refused(write: Callable[..., str]) -> None:
    path = write("a.csv", "user_id,item_id\n")
    Path(path).rename(path.replace(".csv", ".data"))
    with pytest.raises(RecfoundError, match="add `form:` csv, tsv, jsonl or parquet"):
        Read(OwnTables(interactions={"path": path.replace(".csv", ".data")}))


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("a.csv", b"user_id;item_id\nu;i\n", r"it has user_id;item_id; is it separated by ';'\? .*separator: "),
        ("a.csv", "user_id,item_id\nu,i\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.json", b'[{"user_id": 1, "item_id": 2}]', "is one JSON list; write an object a line"),
        ("a.json", b'[\n{"user_id": 1, "item_id": 2},\n{"user_id": 1, "item_id": 3}\n]', "is one JSON list"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, name: str, data: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecfoundError, match=error):
        Read(OwnTables(interactions={"path": str(tmp_path / name)}))


def test_many_rows_none_of_which_can_be_used_are_an_error(write: Callable[..., str]) -> None:
    def reader(good: str) -> OwnTables:
        rows = "".join(f"u,{row},{time}\n" for row in range(30) for time in ("soon", ""))
        return OwnTables(interactions={"path": write("a.csv", "user_id,item_id,timestamp\n" + good + rows)})

    with pytest.raises(RecfoundError) as error:
        Read(reader(""))
    assert str(error.value).endswith(
        "a.csv: none of its rows can be used as interactions: 30 times interaction without timestamp, 30 times "
        "interaction unparsable; line 2: timestamp: 'soon' is not a time: seconds, milliseconds or ISO 8601; check the "
        "mapping"
    )
    assert len(Read(reader("u,a,7\n")).tables["interactions"]) == 1, "one good row, and the others are counted"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_whole_numbers_written_as_floats_are_the_same_ids(write: Callable[..., str], name: str) -> None:
    rows = [{"user_id": "7.0", "item_id": 12.0, "text": "2.0"}, {"user_id": "v1.0", "item_id": 13.0, "text": "x"}]
    read = Read(OwnTables(interactions={"path": write(name, rows)}))
    assert read.rows("interactions", "user_id", "item_id", "text") == [
        (pseudonym("7"), "12", "2.0"),
        (pseudonym("v1.0"), "13", "x"),
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("['a', \"it's\"]", ["a", "it's"]),  # as pandas writes a list
        ("[]", []),
        ("[new] lamp", ["[new] lamp"]),
        ("['a' 'b']", None),  # as NumPy prints one
        ('["a", ', None),
        ("['a'", None),
        ("['a', b'b', {1}]", None),
    ],
)
def test_lists_as_text_are_json_or_python_and_broken_ones_are_no_texts(
    write: Callable[..., str], written: str, read: list[str] | None
) -> None:
    path = write("q.parquet", [{"question": "Is it?", "evidence": written}])
    found = Read(OwnTables(questions={"path": path}))
    assert found.rows("questions", "evidence") == ([] if read is None else [(read,)])
    assert len(found.unparsable) == (read is None)


def test_records_as_python_text_are_read(write: Callable[..., str]) -> None:
    turns = NESTED["dialogues"][0]["turns"]
    read = Read(OwnTables(dialogues={"path": write("d.csv", [{"dialogue_id": "1", "turns": str(turns)}])}))
    assert read.rows("dialogues", "turns") == [(turns,)]


def test_turns_and_labels_that_lack_a_part_take_their_row_along(write: Callable[..., str]) -> None:
    good = NESTED["dialogues"][0]
    dialogues = [good, *({**good, "turns": [*good["turns"], turn]} for turn in ({"text": "x"}, {"speaker": "user"}))]
    offer = NESTED["attributes"][0]
    labels = [{"attribute": "Colour", "value": "red"}, {"value": "red", "source": "title"}, {"attribute": "Size"}]
    offers = [{**offer, "attributes": [label]} for label in labels]
    read = Read(
        OwnTables(dialogues={"path": write("d.jsonl", dialogues)}, attributes={"path": write("a.jsonl", offers)})
    )
    assert len(read.tables["dialogues"]) == 1
    assert read.rows("attributes", "attributes") == [([{"attribute": "Size", "value": None, "source": None}],)]
    assert read.drops == {
        "dialogue with a turn without speaker or text": 2,
        "labelled offer with a label without its attribute or its source": 2,
    }


def recipe(**entry: Any) -> DataRecipe:
    return DataRecipe(corpora=[{"corpus": "tables", "name": "my_shop", **entry}], tasks=["user2item"])


def test_paths_are_relative_to_the_recipe_and_may_hold_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAW", "raw")
    entry = {"interactions": {"path": "${RAW}/clicks.csv"}, "items": {"path": "s3://bucket/items.parquet"}}
    (reader,) = readers(recipe(**entry), tmp_path, "recipe.yaml")
    assert reader.paths() == [str(tmp_path / "raw/clicks.csv"), "s3://bucket/items.parquet"]
    monkeypatch.delenv("RAW")
    with pytest.raises(UsageError, match=r"corpora\[0\].*RAW, which is not set"):
        readers(recipe(**entry), tmp_path, "recipe.yaml")


def test_terms_are_what_the_entry_says() -> None:
    (reader,) = readers(recipe(licence="our own", redistributable=True, items={"path": "i.csv"}), Path(), "recipe.yaml")
    assert (reader.terms.title, reader.terms.licence, reader.terms.redistributable) == ("my_shop", "our own", True)
    (reader,) = readers(recipe(items={"path": "i.csv"}), Path(), "recipe.yaml")
    assert not reader.terms.redistributable and OwnTables.terms.redistributable is False


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({}, "needs at least one of interactions, items"),
        ({"items": {"path": "i.csv", "columns": {"titel": "t"}}}, "items has no column 'titel', did you mean 'title'"),
        ({"items": {"path": "i.csv", "columns": {"name": "title"}}}, "'name'.*column stands first: `title: name`"),
        ({"items": {"path": "i.csv", "column": {}}}, "unknown key 'items.column'"),
        ({"items": {"path": "i.csv", "timestamp_unit": "s"}}, "unknown key 'items.timestamp_unit'"),
        ({"users": {"path": "u.csv", "facts": {"Town": "town"}}}, "tells who or where a person is"),
        ({"interactions": {"path": "i.csv", "rating_scale": 0}}, "greater than 0"),
        (
            {"interactions": {"path": "i.csv", "ratingscale": 9}},
            "'interactions.ratingscale', did you mean 'rating_scale'",
        ),
        ({"items": {"path": "i.csv", "fact": {}}}, "unknown key 'items.fact', did you mean 'facts'"),
        ({"offers": {"path": "o.csv"}}, "`offers` and `matches` need each other"),
        ({"matches": {"path": "m.csv"}}, "`offers` and `matches` need each other"),
        (
            {"judgements": {"path": "j.csv", "values": {"grade": {"good": "E", "bad": "none"}}}},
            "judgements: `values` read grade as 'none', which is not a grade: 3 to 0",
        ),
    ],
)
def test_mistakes_in_the_recipe(entry: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        readers(recipe(**entry), Path(), "recipe.yaml")


def test_parts_are_files_and_give_what_the_whole_gives(write: Callable[..., str]) -> None:
    for number in (1, 2):
        write(f"c{number}.csv", f"user_id,item_id,timestamp\nu,{number},{number}\n")
    items = write("i.csv", "item_id,title\n1,A\n")
    reader = OwnTables(interactions={"path": str(Path(items).parent / "c*.csv")}, items={"path": items})
    parts = reader.parts()
    assert [[Path(path).name for path in part.paths()] for part in parts] == [["c1.csv"], ["c2.csv"], ["i.csv"]]
    apart = [(batch.table, batch.frame.rows()) for part in parts for batch in part.batches(USER_KEY)]
    assert apart == [(batch.table, batch.frame.rows()) for batch in reader.batches(USER_KEY)]


@pytest.mark.corpora
def test_real_files_through_a_mapping(corpora: Path) -> None:
    small = corpora / "movielens/ml-latest-small"
    queries = corpora / "shopping_queries"
    films = {"item_id": "movieId", "categories": "genres"}
    judged = {"item_id": "product_id", "grade": "esci_label"}
    read = Read(
        OwnTables(
            interactions={"path": str(small / "ratings.csv"), "columns": {"user_id": "userId", "item_id": "movieId"}},
            items={"path": str(small / "movies.csv"), "columns": films},
            judgements={"path": str(queries / "shopping_queries_dataset_examples.parquet"), "columns": judged},
        )
    )
    assert len(read.tables["interactions"]) == 100_836 and len(read.tables["items"]) == 9_742 and not read.drops
    assert len(read.tables["judgements"]) == 5_423 and set(read.tables["judgements"]["grade"]) <= {0, 1, 2, 3}
