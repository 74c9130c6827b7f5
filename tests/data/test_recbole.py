"""RecBole's atomic files, whatever columns they have."""

from collections.abc import Callable
from pathlib import Path

import pytest
from reading import USER_KEY, Read, pseudonym

from recfound_data.corpora.recbole import RecBole
from recfound_data.errors import RecfoundError
from recfound_data.sources import line_blocks

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
USER = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return file


def test_the_three_files(write: Callable[..., str]) -> None:
    inter = (
        INTER + "1\t10\t4\t881250949\n1\t11\t3.5\t881250950.9\n2\t10\t\t881250951\n2\t10\tx\t1\n2\t\t1\t1\n2\t10\t4\t\n"
    )
    item = ITEM + '10\tA "Quoted" Film\t1995\tSci-Fi Drama\n11\tUntold\t\t\n12\t\t1990\tDrama\n13\tHalf\n'
    user = USER + "1\t24\tM\ttechnician\t85711\n2\t\tF\tother\t94043\n3\t30\t\t4\t1\n"
    read = Read(RecBole(interactions=write("a.inter", inter), items=write("a.item", item), users=write("a.user", user)))
    assert read.rows("interactions", "user_id", "item_id", "rating", "timestamp") == [
        (pseudonym("1"), "10", 4.0, 881250949),
        (pseudonym("1"), "11", 3.5, 881250950),
        (pseudonym("2"), "10", None, 881250951),
    ]
    assert read.rows("items", "item_id", "title", "categories") == [
        ("10", 'A "Quoted" Film', ["Sci-Fi", "Drama"]),
        ("11", "Untold", []),
    ]
    assert read.facts("items") == [{"Year": "1995"}, {}]
    assert read.facts("users") == [
        {"Gender": "male", "Age group": "18-24", "Occupation": "technician"},
        {"Gender": "female"},
        {"Age group": "25-34"},
    ]
    assert read.drops == {
        "interaction unparsable": 2,
        "interaction without a time": 1,
        "item without a title": 1,
        "item unparsable": 1,
    }
    assert read.at() == [5, 6, 5]


def test_without_rating_and_time_rows_are_choices_in_their_order(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{row % 3}\t{row}\n" for row in range(50))
    reader = RecBole(interactions=write("a.inter", "user_id:token\tartist_id:token\n" + rows))
    whole = Read(reader).rows("interactions", "item_id", "rating", "timestamp")
    assert whole == [(str(row), None, row + 1) for row in range(50)]
    monkeypatch.setattr(line_blocks, "__defaults__", (40,))
    assert len(list(line_blocks(reader.interactions))) > 5
    assert Read(reader).rows("interactions", "item_id", "rating", "timestamp") == whole


def test_ratings_are_scaled_so_that_the_best_is_five(write: Callable[..., str]) -> None:
    rows = "".join(f"1\t{row}\t{rating}\t1\n" for row, rating in enumerate((10, 6, -1, 0, 11)))
    read = Read(RecBole(interactions=write("a.inter", INTER + rows), rating_scale=10))
    assert read.rows("interactions", "item_id", "rating") == [("0", 5.0), ("1", 3.0), ("2", None), ("3", None)]
    assert read.drops == {"rating better than rating_scale": 1}


def test_columns_are_named_and_separators_chosen(write: Callable[..., str]) -> None:
    inter = "who:token;what:token;stars_given:float;at:float;words:token_seq\nu;i;4;9;so good\n"
    item = "what:token;label:token;kinds:token_seq;maker:token;price:float;pixels:float_seq\ni;A, B;x_y/z;M;3.5;1 2\n"
    user = "who:token;income:token\nu;high\n"
    read = Read(
        RecBole(
            interactions=write("a.inter", inter),
            items=write("a.item", item),
            users=write("a.user", user),
            user="who", item="what", rating="stars_given", timestamp="at", review="words", title="label",
            categories="kinds", brand="maker", field_separator=";", seq_separator="/",
            item_facts={"Price": "price"}, user_facts={"Income": "income"}, domain="Things",
        )
    )  # fmt: skip
    assert read.rows("interactions", "item_id", "rating", "timestamp", "text") == [("i", 4.0, 9, "so good")]
    assert read.rows("items", "title", "categories", "brand", "domain") == [("A, B", ["x_y", "z"], "M", "Things")]
    assert read.facts("items") == [{"Price": "3.5"}] and read.facts("users") == [{"Income": "high"}]


@pytest.mark.parametrize(
    ("text", "categories"),
    [
        ("Comedy Drama", ["Comedy", "Drama"]),
        ("School Life, Drama", ["School Life", "Drama"]),
        ("['Arts & Crafts', 'Sewing']", ["Arts & Crafts", "Sewing"]),
        ("'Lamps, Shades & Bulbs', 'Desk'", ["Lamps, Shades & Bulbs", "Desk"]),
        ('"\'Desk\', ""Reader\'s"""', ["Desk", "Reader's"]),
        ("[Casual, Indie (2D)]", ["Casual", "Indie (2D)"]),
        ("Comedy|Science Fiction", ["Comedy", "Science Fiction"]),
        ("unknown", []),
        ("None", []),
        ("", []),
    ],
)
def test_categories_are_split_as_the_data_sets_write_them(
    write: Callable[..., str], text: str, categories: list[str]
) -> None:
    read = Read(
        RecBole(
            interactions="", items=write("a.item", f"item_id:token\tname:token_seq\tgenre:token_seq\n1\tA\t{text}\n")
        )
    )
    assert read.tables["items"]["categories"].to_list() == [categories]


@pytest.mark.parametrize(
    ("column", "text", "title"),
    [
        ("title", 'Lamp "Ada"', 'Lamp "Ada"'),
        ("title", '"Lamp ""Ada"", large"', 'Lamp "Ada", large'),
        ("title", '"Half', '"Half'),
        ("title", "Guest, The", "Guest, The"),
        ("movie_title", "Guest, The", "The Guest"),
        ("movie_title", "Guest,The", "The Guest"),
        ("movie_title", "Guest, Thea", "Guest, Thea"),
        ("movie_title", "Guest, The (Ospite, L')", "The Guest (Ospite, L')"),
        ("app_name", r"Lamp\u2122 \u2013 B\xfcro \ud83d", r"Lamp™ – Büro \ud83d"),
        ("app_name", 'u"Ada Lamp"', "Ada Lamp"),
        ("app_name", '"u""Ada Lamp"""', "Ada Lamp"),
    ],
)
def test_titles_are_as_people_write_them(write: Callable[..., str], column: str, text: str, title: str) -> None:
    items = write("a.item", f"{column}:token\tid:token\n{text}\t7\n")
    assert Read(RecBole(interactions="", items=items)).rows("items", "item_id", "title") == [("7", title)]


def test_what_programs_write_for_nothing_is_nothing(write: Callable[..., str]) -> None:
    inter = INTER + "1\t10\tnan\t5\n1\t11\t4\tnan\n1\t12\t4\tinf\n"
    item = "item_id:token\tmovie_title:token_seq\tprice:float\tbook_author:token\n1\tA\tnan\tNone\n"
    item += '2\tunkonwn\t1\tB\n3\tnan\t1\tB\n4\tD\t2.5\t""\n'
    facts = {"Price": "price"}
    read = Read(RecBole(interactions=write("a.inter", inter), items=write("a.item", item), item_facts=facts))
    assert read.rows("interactions", "item_id", "rating", "timestamp") == [("10", None, 5)]
    assert read.rows("items", "item_id", "title", "brand") == [("1", "A", None), ("4", "D", None)]
    assert read.facts("items") == [{}, {"Price": "2.5"}]
    assert read.drops == {"interaction without a time": 2, "item without a title": 2}


@pytest.mark.parametrize(
    ("field", "text", "settings", "error"),
    [
        ("interactions", "user_id\titem_id\n1\t2\n", {}, "line 1: expected columns such as user_id:token"),
        ("interactions", "", {}, "expected columns such as user_id:token|no interaction"),
        ("interactions", "user_id:token\tthing:token\n1\t2\n", {}, "has no column 'item_id'.*name the column.*`item:`"),
        ("interactions", INTER + "1\t2\n3\t4\n", {}, "a.atomic: line 2: expected 4 values .* is it the right file"),
        ("interactions", INTER, {"rating": "ratng"}, "has no column 'ratng', did you mean 'rating'"),
        ("items", ITEM + "1\t\t\t\n2\t\t\t\n", {}, "no item has a title.*`title:`"),
        ("items", "item_id:token\tprice:float\n1\t2\n", {}, "no item has a title"),
        ("items", ITEM, {"item_facts": {"Price": "prize"}}, "has no column 'prize'"),
    ],
)
def test_what_is_wrong_is_said(
    write: Callable[..., str], field: str, text: str, settings: dict[str, object], error: str
) -> None:
    path = write("a.atomic", text)
    reader = RecBole(**{"interactions": "", **settings, field: path})  # type: ignore[arg-type]
    if not text:
        assert [batch for batch in reader.batches(USER_KEY) if len(batch.frame)] == []
        return
    with pytest.raises(RecfoundError, match=error):
        Read(reader)


@pytest.mark.parametrize("column", ["zip_code", "city", "location", "user_name", "reviewerName", "e-mail"])
def test_who_a_person_is_cannot_be_asked_for(column: str) -> None:
    with pytest.raises(ValueError, match="tells who or where a person is"):
        RecBole(interactions="a.inter", user_facts={"Fact": column})
