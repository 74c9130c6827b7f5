"""The three releases of Amazon Reviews in their published forms, dirt included: what is read, and what is dropped."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_corpora import Read, pseudonym

from recfound_data.corpora.amazon import AmazonReviews
from recfound_data.corpora.amazon_reviews_2014 import AmazonReviews2014
from recfound_data.corpora.amazon_reviews_2018 import AmazonReviews2018
from recfound_data.corpora.amazon_reviews_2023 import AmazonReviews2023
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.recipe import parse
from recfound_data.tables import RELATIONS

Write = Callable[..., AmazonReviews]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Writes the two files of a category, gzipped, and returns their reader."""

    def write(reader: type[AmazonReviews], reviews: bytes, metadata: bytes, suffix: str = "json.gz") -> AmazonReviews:
        paths = {"reviews": tmp_path / f"Lamps_5.{suffix}", "metadata": tmp_path / f"meta_Lamps.{suffix}"}
        for field, content in (("reviews", reviews), ("metadata", metadata)):
            paths[field].write_bytes(gzip.compress(content))
        return reader(name="lamps", **{field: str(path) for field, path in paths.items()})

    return write


def lines(*rows: dict[str, Any] | bytes) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def literals(*rows: dict[str, Any] | bytes) -> bytes:
    return b"".join((row if isinstance(row, bytes) else repr(row).encode()) + b"\n" for row in rows)


# 2018


def review(**changes: Any) -> dict[str, Any]:
    row = {
        "overall": 5.0, "vote": "1,234", "verified": True, "reviewTime": "06 17, 2018", "reviewerID": "A1LAMPLOVER",
        "asin": "B0LAMP0001", "style": {"Size:": " 50", "Color:": " Blue"}, "reviewerName": "Wilhelmina Brightwell",
        "reviewText": "A fine\n<b>lamp</b>.", "summary": "Five Stars", "unixReviewTime": 1529193600,
        "image": ["https://images.example.com/71.jpg"],
    } | changes  # fmt: skip
    return {key: value for key, value in row.items() if value is not None}


def product(**changes: Any) -> dict[str, Any]:
    return {
        "category": ["Lamps", "Lamps"], "tech1": "", "description": ["A lamp.", "For everybody."], "fit": "",
        "title": "Lamp", "also_buy": [], "tech2": "", "brand": "Lumo", "feature": [], "also_view": [],
        "rank": "1,786 in Lamps (", "details": {"\n    Product Dimensions: \n    ": "3.4 inches"},
        "main_cat": "Lamps", "similar_item": "", "date": "", "price": "", "asin": "B0LAMP0001", "imageURL": [],
        "imageURLHighRes": [],
    } | changes  # fmt: skip


def test_reviews_are_read_whatever_their_optional_fields_are(written: Write) -> None:
    rows = [
        review(),
        review(reviewerID="A2", vote=None, style=None, image=None, reviewText=None, summary=None),
        review(reviewerID="A3", style={}, vote="2", overall=1.0),
        review(reviewerID="A4", overall=3),
        review(),  # an exact duplicate is an interaction here; events count it
    ]
    read = Read(written(AmazonReviews2018, lines(*rows), lines(product())))
    text = "A fine\n<b>lamp</b>."
    assert read.rows("interactions", "user_id", "item_id", "rating", "timestamp", "text") == [
        (pseudonym(user), "B0LAMP0001", rating, 1529193600, said)
        for user, rating, said in (
            ("A1LAMPLOVER", 5.0, text), ("A2", 5.0, None), ("A3", 1.0, text), ("A4", 3.0, text),
            ("A1LAMPLOVER", 5.0, text),
        )
    ]  # fmt: skip
    assert not read.drops and not read.unparsable


def test_reviews_are_dropped_by_reason(written: Write) -> None:
    rows = [
        review(overall=0.0), review(overall=6.0), review(unixReviewTime=0), review(unixReviewTime=4102444800),
        review(reviewerID=None), review(asin=None), review(overall=None), review(unixReviewTime=None),
        b"{'overall': 5.0}", b'{"overall": 5.0, ', b'"text"', review(reviewerID="A9"), review(reviewerID=""),
    ]  # fmt: skip
    read = Read(written(AmazonReviews2018, lines(*rows), lines(product())))
    assert read.rows("interactions", "user_id") == [(pseudonym("A9"),)]
    assert read.drops == {
        "impossible rating": 2,
        "impossible date": 2,
        "review without user, item, rating or time": 5,
        "review unparsable": 3,
    }
    assert [bad.line for bad in read.unparsable] == [9, 10, 11]


def test_items_are_read_and_dropped_by_reason(written: Write) -> None:
    rows = [
        product(asin="1", title="Tom &amp; Jerry&#39;s <b>Lamp</b>"),
        product(asin="5", brand="Visit Amazon's Ada Quill Page", description=[], feature=["One", "Two"], category=[]),
        product(asin="7", category=["Lamps", "No expiration, no fees.", "x" * 41, "Desk"]),
        product(asin=None),
        {"asin": "8", "title": "Only these"},
        b"not json",
        product(asin="9", similar_item=None, details=None, price=None, category=None, also_buy=""),
    ]
    read = Read(written(AmazonReviews2018, lines(review()), lines(*rows)))
    items = read.items()
    assert items["1"] == {
        "item_id": "1", "title": "Tom &amp; Jerry&#39;s <b>Lamp</b>", "description": "A lamp. For everybody.",
        "categories": ["Lamps"], "brand": "Lumo", "domain": "lamps",
        "facts": {"Main category": "Lamps", "Dimensions": "3.4 inches"},
    }  # fmt: skip
    assert items["5"]["description"] == "One Two" and items["5"]["brand"] == "Ada Quill"
    assert items["7"]["categories"] == ["Lamps", "Desk"] and items["5"]["categories"] == []
    assert items["8"]["facts"] == {} and items["8"]["categories"] == [] and items["8"]["description"] == ""
    assert set(items) == {"1", "5", "7", "8", "9"}
    assert read.drops == {"item without id": 1, "item unparsable": 1}


def test_facts_are_few_short_and_tell_no_contact(written: Write) -> None:
    rows = [
        product(asin="1", price="$1,250.00", date="May 15, 2009", details={"Publisher:": "Quill \\& \"Sons\"",
            "Language:": "English", "Format: ": "Hardcover", "Studio": "Lumo", "Label:": "L", "Run Time:": "9 minutes",
            "\n Item Weight: \n": "\n2 ounces\n", "Product Dimensions:": "3 x 2", "Seller phone:": "555-0100"}),
        product(asin="2", price="$3.99 - $9.99", details={}, main_cat='<img src="https://x/y" alt="LAMP FASHION"/>'),
        product(asin="3", price=".a-box-inner{background:#fff}", date='<div class="a-fixed-left-grid ', main_cat="",
                details={"Publisher:": "x" * 61, "Label:": "see www.example.com", "Studio:": "mail a@example.com"}),
        product(asin="4", price="$0.00", main_cat=None, details={}),
    ]  # fmt: skip
    items = Read(written(AmazonReviews2018, lines(review()), lines(*rows))).items()
    assert items["1"]["facts"] == {
        "Main category": "Lamps", "Price": "$1,250.00", "First available": "May 15, 2009", "Studio": "Lumo",
        "Label": "L", "Format": "Hardcover", "Language": "English", "Run time": "9 minutes",
    }  # fmt: skip
    assert items["2"]["facts"] == {"Main category": "LAMP FASHION", "Price": "$3.99 - $9.99"}
    assert items["3"]["facts"] == {} and items["4"]["facts"] == {}


COMPARISON = (
    ' class="a-bordered comparison_table">\n\n<tr class="comparison_table_image_row">\n'
    '<th><a class="a-link-normal" href="/dp/B0LAMP0001"><img alt="This one" src="https://x/LAMPPICTUR.jpg"></a></th>'
    '<th><a class="a-link-normal" href="/dp/B0LAMP0002?ref=x"></a></th><a href="/gp/product/0123456789/ref=y"></a>'
    '<a href="/dp/B0LAMP0002"></a></tr>'
)


def test_relations_are_read_with_those_to_unknown_items(written: Write) -> None:
    rows = [
        product(asin="B0LAMP0001", also_buy=["2", "UNKNOWN", "B0LAMP0001"], also_view=["3", "3", None, ""],
                similar_item=COMPARISON),
        product(asin="2", also_view=["1"], similar_item=["B0LAMP0003", "B0LAMP0004"]),
        product(asin="3", also_buy="", also_view=None),
    ]  # fmt: skip
    read = Read(written(AmazonReviews2018, lines(review()), lines(*rows)))
    assert sorted(read.rows("relations", "item_id", "other_id", "relation")) == [
        ("2", "1", "viewed together"),
        ("2", "B0LAMP0003", "similar"),
        ("2", "B0LAMP0004", "similar"),
        ("B0LAMP0001", "0123456789", "similar"),
        ("B0LAMP0001", "2", "bought together"),
        ("B0LAMP0001", "3", "viewed together"),
        ("B0LAMP0001", "B0LAMP0002", "similar"),
        ("B0LAMP0001", "UNKNOWN", "bought together"),
    ]
    assert read.drops == {"relation of an item to itself": 2, "relation repeated": 2}


def test_ratings_alone_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("A1,B1,5.0,1372550400\nA2,B1,9.0,1372550400\n")
    (tmp_path / "new.csv").write_text("B1,A1,5.0,1529193600\nB1,A2,x,1529193600\nB1\n")
    old, new = (
        Read(reader(reviews=str(tmp_path / name), metadata=""))
        for reader, name in ((AmazonReviews2014, "old.csv"), (AmazonReviews2018, "new.csv"))
    )
    assert old.rows("interactions", "user_id", "item_id", "text") == [(pseudonym("A1"), "B1", None)]
    assert new.rows("interactions", "user_id", "item_id", "text") == [(pseudonym("A1"), "B1", None)]
    assert old.drops == {"impossible rating": 1} and new.drops == {"review without user, item, rating or time": 2}


def test_a_table_with_a_header_of_its_own_is_read_by_it(tmp_path: Path) -> None:
    head = "reviewerID,asin,reviewerName,helpful,reviewText,overall,summary,unixReviewTime,reviewTime\n"
    row = 'A1,B1,"Wil ""W"" Bright","[0, 0]","Fine, bright",5.0,good,1372550400.0,"06 30, 2013"\n'
    (tmp_path / "table.csv").write_text(head + row)
    for reader in (AmazonReviews2014, AmazonReviews2018):
        read = Read(reader(reviews=str(tmp_path / "table.csv"), metadata=""))
        assert read.rows("interactions", "user_id", "item_id", "rating", "timestamp", "text") == [
            (pseudonym("A1"), "B1", 5.0, 1372550400, "Fine, bright")
        ]
        assert not read.drops


@pytest.mark.parametrize("reader", [AmazonReviews2014, AmazonReviews2018, AmazonReviews2023])
def test_reviews_and_metadata_that_changed_places_are_refused(written: Write, reader: type[AmazonReviews]) -> None:
    one, other = (opinion, goods) if reader is AmazonReviews2023 else (review, product)
    reviews, metadata = lines(one(), one()), lines(other(), other())
    with pytest.raises(RecfoundError, match=r"Lamps_5\.json\.gz: no review names who wrote it; is it the metadata\?"):
        Read(written(reader, metadata, b""))
    with pytest.raises(RecfoundError, match=r"meta_Lamps\.json\.gz: no item has .*; are they the reviews\?"):
        Read(written(reader, b"", reviews))


# 2014


def test_metadata_of_2014_is_read_from_python_literals(written: Write) -> None:
    related = {
        "also_bought": ["2", "3"],
        "bought_together": ["2"],
        "also_viewed": ["4"],
        "buy_after_viewing": ["4", "5"],
    }
    rows = [
        {"asin": "1", "title": "Ada's \"Lamp\" \\d é", "price": 1250.5, "imUrl": "http://x/1.jpg", "related": related,
         "salesRank": {"Lamps": 211836}, "brand": "Lumo", "categories": [["Lamps", "Desk"], ["Office"]],
         "description": "It's bright."},
        {"asin": "2", "categories": [["Lamps"]]},
        {"asin": "3", "title": "No lists", "related": {"also_viewed": ["1"]}, "categories": []},
        b"{'asin': '4', 'title': 'cut",
        b"{'asin': '5', 'title': open('x')}",
        b"['asin', '6']",
        b"{'asin': '7', 'title': 'Caf\\xe9 \\ud83d\\ude00 \\ud83d'}",
        b'{"asin": "8", "title": "double quotes are Python too"}',
        b"{'title': 'no id'}",
    ]  # fmt: skip
    read = Read(written(AmazonReviews2014, lines(review(unixReviewTime=1372550400)), literals(*rows)))
    items = read.items()
    assert items["1"] == {
        "item_id": "1", "title": 'Ada\'s "Lamp" \\d é', "description": "It's bright.", "categories": ["Lamps", "Desk"],
        "brand": "Lumo", "domain": "lamps", "facts": {"Main category": "Lamps", "Price": "$1,250.50"},
    }  # fmt: skip
    assert items["2"]["title"] is None and items["3"]["categories"] == []
    assert items["7"]["title"] == "Café 😀 �" and items["8"]["title"] == "double quotes are Python too"
    assert [bad.line for bad in read.unparsable] == [4, 5, 6]
    assert sorted(read.rows("relations", "item_id", "other_id", "relation")) == [
        ("1", "2", "bought together"), ("1", "3", "bought together"), ("1", "4", "viewed together"),
        ("1", "5", "viewed together"), ("3", "1", "viewed together"),
    ]  # fmt: skip
    assert read.drops == {"item unparsable": 3, "item without id": 1, "relation repeated": 2}


def test_reviews_of_2014_are_the_same_as_json_and_as_python_literals(written: Write) -> None:
    old = {"helpful": [2, 3], "unixReviewTime": 1372550400, "reviewText": 'It\'s a "lamp".\nBright', "style": None}
    rows = [review(**old), review(**old, reviewerID="A2"), review(**old | {"unixReviewTime": 1529193600})]
    as_json = Read(written(AmazonReviews2014, lines(*rows), b""))
    as_literals = Read(written(AmazonReviews2014, literals(*rows), b""))
    assert len(as_json.rows("interactions")) == 2 and as_json.drops == {"impossible date": 1}
    assert as_literals.tables["interactions"].equals(as_json.tables["interactions"])
    assert as_literals.drops == as_json.drops


# 2023


def opinion(**changes: Any) -> dict[str, Any]:
    return {
        "rating": 4.0, "title": "Bright", "text": "Bright enough.<br />Quite.", "images": [], "asin": "B0LAMPBLUE",
        "parent_asin": "B0LAMP0001", "user_id": "AE_LAMPLOVER", "timestamp": 1588687728923, "helpful_vote": 0,
        "verified_purchase": True,
    } | changes  # fmt: skip


def goods(**changes: Any) -> dict[str, Any]:
    return {
        "main_category": "Lamps", "title": "Lamp", "average_rating": 4.8, "rating_number": 10, "features": ["Dims."],
        "description": ["A lamp.", "Blue."], "price": 14.5, "images": [{"thumb": "https://x/y.jpg", "hi_res": None}],
        "videos": [], "store": "Lumo", "categories": [], "details": {"Color": "Blue", "UPC": "644287689178"},
        "parent_asin": "B0LAMP0001", "bought_together": None,
    } | changes  # fmt: skip


def test_reviews_of_2023_have_milliseconds_and_the_parent_of_variants(written: Write) -> None:
    rows = [opinion(), opinion(user_id="AE2", parent_asin=None), opinion(timestamp=1588687728), opinion(rating=0.0)]
    rows.append(opinion(user_id="AE3", timestamp=1.5e12))
    read = Read(written(AmazonReviews2023, lines(*rows), b"", "jsonl.gz"))
    assert read.rows("interactions", "user_id", "item_id", "rating", "timestamp", "text") == [
        (pseudonym("AE_LAMPLOVER"), "B0LAMP0001", 4.0, 1588687728, "Bright enough.<br />Quite."),
        (pseudonym("AE2"), "B0LAMPBLUE", 4.0, 1588687728, "Bright enough.<br />Quite."),
        (pseudonym("AE3"), "B0LAMP0001", 4.0, 1500000000, "Bright enough.<br />Quite."),
    ]
    assert read.drops == {"impossible date": 1, "impossible rating": 1}


def test_metadata_of_2023_is_read_whatever_form_its_fields_have(written: Write) -> None:
    details = {"Brand": "Lumo Works", "Publication date": "May 1, 2003", "Material": "Brass", "Is Discontinued": "No"}
    rows = [
        goods(),
        goods(parent_asin="2", price="from 3.99", details=json.dumps(details), bought_together=["B0LAMP0001", "3"]),
        goods(parent_asin="3", price="12", categories=["Home", "Lamps", "Home"], store=None, details={}, title=None),
        goods(parent_asin="4", price=None, main_category=None, details="no { json", features=None, description=None),
        goods(parent_asin="5", price="None", store="Ada Quill (Author)  Format: Kindle Edition", bought_together=[]),
    ]
    read = Read(written(AmazonReviews2023, lines(opinion()), lines(*rows), "jsonl.gz"))
    items = read.items()
    assert items["B0LAMP0001"] == {
        "item_id": "B0LAMP0001", "title": "Lamp", "description": "Dims. A lamp. Blue.", "categories": ["Lamps"],
        "brand": "Lumo", "domain": "lamps", "facts": {"Main category": "Lamps", "Price": "$14.50", "Colour": "Blue"},
    }  # fmt: skip
    assert items["2"]["brand"] == "Lumo Works"
    assert items["2"]["facts"] == {"Main category": "Lamps", "Published": "May 1, 2003", "Material": "Brass"}
    assert items["3"]["categories"] == ["Home", "Lamps"] and items["3"]["brand"] is None
    assert items["3"]["facts"] == {"Main category": "Lamps", "Price": "$12.00"}
    assert items["4"]["facts"] == {} and items["4"]["categories"] == [] and items["4"]["description"] == ""
    assert items["5"]["brand"] == "Ada Quill (Author)"
    assert read.rows("relations", "item_id", "other_id", "relation") == [
        ("2", "B0LAMP0001", "bought together"), ("2", "3", "bought together"),
    ]  # fmt: skip
    assert not read.drops


def test_the_csv_and_parquet_forms_of_2023_give_the_same_interactions(tmp_path: Path) -> None:
    rows = [opinion(text=None), opinion(text=None, user_id="AE2", timestamp=1588687729000)]
    names = ["user_id", "parent_asin", "rating", "timestamp"]
    frame = pl.DataFrame(rows).select(names)
    frame.write_csv(tmp_path / "Lamps.csv")
    frame.with_columns(history=pl.Series(["", "B1 B2"])).write_csv(tmp_path / "Lamps.train.csv")
    frame.with_columns(asin=pl.lit("B0LAMPBLUE"), title=pl.lit("Bright")).write_parquet(tmp_path / "full.parquet")
    (tmp_path / "Lamps.jsonl").write_bytes(lines(*rows))
    files = ("Lamps.jsonl", "Lamps.csv", "Lamps.train.csv", "full.parquet")
    found = [Read(AmazonReviews2023(reviews=str(tmp_path / name), metadata="")) for name in files]
    assert len(found[0].rows("interactions")) == 2
    for other in found[1:]:
        assert other.tables["interactions"].equals(found[0].tables["interactions"]) and not other.drops


def test_metadata_of_2023_as_parquet(tmp_path: Path, written: Write) -> None:
    texts = {"price": "12.99", "details": '{"Color": "Blue"}', "bought_together": None}
    expected = Read(written(AmazonReviews2023, lines(opinion()), lines(goods(**texts)), "jsonl.gz"))
    frame = pl.DataFrame([goods(**texts)], schema_overrides={"categories": pl.List(pl.String)})
    frame.drop("videos").write_parquet(tmp_path / "full-00000-of-00001.parquet")
    read = Read(AmazonReviews2023(name="lamps", reviews="", metadata=str(tmp_path / "full-*.parquet")))
    assert read.items() == expected.items() and read.items()["B0LAMP0001"]["facts"]["Colour"] == "Blue"


# All three


CASES = (
    (AmazonReviews2014, review(unixReviewTime=1372550400), {"asin": "1", "related": {"also_bought": ["2"]}}),
    (AmazonReviews2018, review(), product(also_buy=["2"])),
    (AmazonReviews2023, opinion(), goods(bought_together=["2"])),
)  # fmt: skip


@pytest.mark.parametrize(("reader", "said", "item"), CASES)
def test_nothing_of_a_reviewer_but_a_hash_is_kept(
    written: Write, reader: type[AmazonReviews], said: dict[str, Any], item: dict[str, Any]
) -> None:
    read = Read(written(reader, lines(said | {"reviewerName": "Wilhelmina Brightwell"}), lines(item)))
    kept = json.dumps([frame.to_dicts() for frame in read.tables.values()])
    assert "Wilhelmina" not in kept and "LAMPLOVER" not in kept and "Five Stars" not in kept
    assert len(read.rows("interactions")) == 1
    assert {relation for (relation,) in read.rows("relations", "relation")} <= set(RELATIONS)


@pytest.mark.parametrize(("reader", "said", "item"), CASES)
def test_a_reader_for_each_file_gives_the_same(
    tmp_path: Path, reader: type[AmazonReviews], said: dict[str, Any], item: dict[str, Any]
) -> None:
    for name in ("reviews_b", "reviews_a", "meta_a"):
        content = lines(item) if name.startswith("meta") else lines(*[said] * 3, b"broken")
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(content))
    whole = reader(reviews=str(tmp_path / "reviews_*.json.gz"), metadata=str(tmp_path / "meta_*.json.gz"))
    parts = whole.parts()
    assert [Path(part.reviews or part.metadata).name[:9] for part in parts] == ["reviews_a", "reviews_b", "meta_a.js"]
    assert all(bool(part.reviews) != bool(part.metadata) for part in parts)
    expected, found = Read(whole), [Read(part) for part in parts]
    for table, frame in expected.tables.items():
        assert frame.equals(pl.concat(part.tables[table] for part in found if table in part.tables))
    assert sum((part.drops for part in found), Counter()) == expected.drops
    assert len(expected.unparsable) == 2


@pytest.mark.parametrize("reader", [AmazonReviews2014, AmazonReviews2018, AmazonReviews2023])
def test_one_of_the_two_files_is_enough_but_none_is_not(tmp_path: Path, reader: type[AmazonReviews]) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(lines(review(unixReviewTime=1372550400)))
    assert set(Read(reader(reviews=str(path), metadata="")).tables) == {"interactions"}
    assert set(Read(reader(reviews="", metadata=str(path))).tables) == {"items", "relations"}
    with pytest.raises(UsageError, match="name the files of `reviews`, of `metadata`, or of both"):
        parse(reader, {"reviews": "", "metadata": ""}, "recipe.yaml: corpora[0]")
    with pytest.raises(RecfoundError, match=r"none\.json: no such file"):
        Read(reader(reviews=str(tmp_path / "none.json"), metadata=""))


@pytest.mark.corpora
def test_the_real_slices_of_2018(corpora: Path) -> None:
    folder = corpora / "amazon_reviews_2018"
    read = Read(
        AmazonReviews2018(
            reviews=str(folder / "Gift_Cards_5.json.gz"), metadata=str(folder / "meta_Gift_Cards.json.gz")
        )
    )
    assert len(read.rows("interactions")) == 2_972 and len(read.rows("items")) == 1_547 and not read.unparsable
    assert read.tables["interactions"]["user_id"].n_unique() == 458
    facts = [fact for row in read.tables["items"]["facts"].to_list() for fact in row]
    assert len(facts) > 1_500 and all(0 < len(fact["value"]) <= 60 for fact in facts)
    beauty = Read(AmazonReviews2018(reviews=str(folder / "All_Beauty_5.json.gz"), metadata=""))
    assert len(beauty.rows("interactions")) == 5_269 and set(beauty.tables) == {"interactions"}
    assert beauty.tables["interactions"]["text"].null_count() < 30
