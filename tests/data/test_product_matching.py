"""Amazon-Google in its published forms, and the product_matching samples made of them."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recfound_data.cleaning import title_key
from recfound_data.corpora.amazon_google import AmazonGoogle
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.people import UserKey
from recfound_data.recipe import DataRecipe, parse
from recfound_data.samples import Built, Corpus
from recfound_data.tables import TABLES, Batch
from recfound_data.tasks import product_matching

PEOPLE = UserKey("a key of the tests", secret=True)
RECIPE = DataRecipe(corpora=[{"corpus": "any"}], tasks=["item2item"])
Rows = list[list[str]]

LEFT: Rows = [
    ["a1", "fern's garden planner, 2nd edition", "plan a bed, a pond or both", "fern soft", "19.99"],
    ["a2", "kelp tax helper 2031", "", "kelp", "0"],
    ["a3", "moss chess tutor", "the tutors', parents' and kids' choice", "", "5"],
]
RIGHT: Rows = [
    ["http://shop.example/1", "garden planner by fern", "", "fern soft", "18.5 gbp"],
    ["http://shop.example/2", "kelp tax helper", "for 2031", "", "0.00"],
    ["http://shop.example/3", "dill poker", "", "dill", "7"],
]
PAIRS = [("a1", "http://shop.example/1", "1"), ("a2", "http://shop.example/2", "1"), ("a3", RIGHT[2][0], "0")]
MATCHED = [(f"left/{left}", f"right/{right}") for left, right, label in PAIRS if label == "1"]


def read(reader: AmazonGoogle) -> tuple[dict[str, pl.DataFrame], list[Batch]]:
    batches = list(reader.batches(PEOPLE))
    return {
        table: pl.concat([batch.frame.select(list(TABLES[table])) for batch in batches if batch.table == table])
        for table in ("offers", "matches")
    }, batches


def write(path: Path, header: list[str], rows: Rows, **style: Any) -> str:
    with path.open("w", newline="", encoding=style.pop("encoding", "utf-8")) as file:
        csv.writer(file, **style).writerows([header, *rows])
    return str(path)


def inline(folder: Path) -> AmazonGoogle:
    """Each pair with both its offers, a split a file."""
    columns = ["id", "title", "description", "manufacturer", "price"]
    header = ["id", "label", *(f"left_{name}" for name in columns), *(f"right_{name}" for name in columns)]
    by_id = {row[0]: row for row in LEFT + RIGHT}
    rows = [[str(number), label, *by_id[left], *by_id[right]] for number, (left, right, label) in enumerate(PAIRS)]
    return AmazonGoogle(
        train=write(folder / "train.csv", header, rows[:1]),
        validation=write(folder / "validation.csv", header, rows[1:2]),
        test=write(folder / "test.csv", header, rows[2:]),
    )


def tables(folder: Path) -> AmazonGoogle:
    """Tables A and B, and pairs of their ids, a split a file."""
    header = ["id", "title", "description", "manufacturer", "price"]
    pairs = ["ltable_id", "rtable_id", "label"]
    return AmazonGoogle(
        left=write(folder / "tableA.csv", header, LEFT),
        right=write(folder / "tableB.csv", header, RIGHT),
        train=write(folder / "train.csv", pairs, [list(PAIRS[0])]),
        validation=write(folder / "valid.csv", pairs, [list(PAIRS[1])]),
        test=write(folder / "test.csv", pairs, [list(PAIRS[2])]),
    )


def hashes(folder: Path) -> AmazonGoogle:
    """Tables and matches separated by `#`, lines that end as on Windows."""
    header = ["id", "title", "description", "manufacturer", "price"]
    matches = [[left, right] for left, right, label in PAIRS if label == "1"]
    return AmazonGoogle(
        left=write(folder / "amazon.csv", header, LEFT, delimiter="#"),
        right=write(folder / "gp.csv", header, RIGHT, delimiter="#"),
        matches=write(folder / "gt.csv", ["D1", "D2"], matches, delimiter="#"),
    )


def leipzig(folder: Path) -> AmazonGoogle:
    """The original release: Latin-1, double quotes, `name` for the title in one file."""
    style: dict[str, Any] = {"encoding": "latin-1", "quoting": csv.QUOTE_ALL}
    matches = [[left, right] for left, right, label in PAIRS if label == "1"]
    return AmazonGoogle(
        left=write(folder / "Amazon.csv", ["id", "title", "description", "manufacturer", "price"], LEFT, **style),
        right=write(folder / "Google.csv", ["id", "name", "description", "manufacturer", "price"], RIGHT, **style),
        matches=write(folder / "Mapping.csv", ["idAmazon", "idGoogleBase"], matches, **style),
    )


def single_quotes(folder: Path) -> AmazonGoogle:
    """The same with single quotes, which the apostrophes of the texts do not escape; empty values unquoted."""

    def quoted(name: str, header: list[str], rows: Rows) -> str:
        lines = [",".join(f"'{value}'" if value else "" for value in row) for row in [header, *rows]]
        (folder / name).write_text("\n".join(lines), encoding="latin-1")
        return str(folder / name)

    matches = [[left, right] for left, right, label in PAIRS if label == "1"]
    return AmazonGoogle(
        left=quoted("Amazon.csv", ["id", "title", "description", "manufacturer", "price"], LEFT),
        right=quoted("Google.csv", ["id", "name", "description", "manufacturer", "price"], RIGHT),
        matches=quoted("Mapping.csv", ["idAmazon", "idGoogleBase"], matches),
    )


FORMS = [inline, tables, hashes, leipzig, single_quotes]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_offers_and_matches(form: Callable[[Path], AmazonGoogle], tmp_path: Path) -> None:
    found, batches = read(form(tmp_path))
    assert not [bad for batch in batches for bad in batch.unparsable]
    offers = {row["offer_id"]: row for row in found["offers"].iter_rows(named=True)}
    assert set(offers) == {f"left/{row[0]}" for row in LEFT} | {f"right/{row[0]}" for row in RIGHT}
    for side, rows in (("left", LEFT), ("right", RIGHT)):
        for name, title, description, maker, price in rows:
            offer = offers[f"{side}/{name}"]
            assert (offer["title"], offer["description"], offer["brand"]) == (title, description, maker)
            assert offer["price"] == (None if price in ("0", "0.00") else price)
    assert found["matches"].filter("match").select("left_id", "right_id").rows() == MATCHED


@pytest.mark.parametrize("form", [inline, tables])
def test_labelled_forms_keep_splits_and_non_matches(form: Callable[[Path], AmazonGoogle], tmp_path: Path) -> None:
    found, _ = read(form(tmp_path))
    assert found["matches"].select("match", "split").rows() == [
        (True, "train"),
        (True, "validation"),
        (False, "test"),
    ]


def test_inline_offers_without_ids_are_known_by_what_they_say(tmp_path: Path) -> None:
    header = ["label", "left_title", "left_price", "right_title", "right_price"]
    rows = [["1", "fern", "1", "fern!", "2"], ["0", "fern", "1", "kelp", "2"]]
    found, _ = read(AmazonGoogle(train=write(tmp_path / "train.csv", header, rows)))
    assert found["offers"]["title"].sort().to_list() == ["fern", "fern!", "kelp"]
    assert set(found["matches"]["left_id"]) == set(found["offers"].filter(pl.col("title") == "fern")["offer_id"])


def test_apostrophes_before_commas_and_escaped_quotes_are_text(tmp_path: Path) -> None:
    (tmp_path / "left.csv").write_text(
        "'id','title','description','manufacturer','price'\n"
        "'1','the kids', and 'n' friends','end \\',','moss',3\n"
        "'2','a','b',4\n"
    )
    right = write(tmp_path / "right.csv", ["id", "name"], [["1", "kids"]])
    matches = write(tmp_path / "matches.csv", ["l", "r"], [["1", "1"]])
    found, batches = read(AmazonGoogle(left=str(tmp_path / "left.csv"), right=right, matches=matches))
    offer = found["offers"].row(0, named=True)
    assert (offer["title"], offer["description"], offer["brand"], offer["price"]) == (
        "the kids', and 'n' friends",
        "end ',",
        "moss",
        "3",
    )
    (bad,) = batches[0].unparsable
    assert (bad.line, bad.why) == (3, "expected 5 values, found 4")


def test_offers_without_titles_and_pairs_without_labels_are_counted(tmp_path: Path) -> None:
    left = write(
        tmp_path / "a.csv", ["id", "title", "brand", "modelno"], [["1", "fern", "nan", "F-7"], ["2", "", "x", ""]]
    )
    right = write(tmp_path / "b.csv", ["id", "title"], [["1", "kelp"]])
    train = write(tmp_path / "t.csv", ["ltable_id", "rtable_id", "label"], [["1", "1", "0"], ["2", "1", "?"]])
    found, batches = read(AmazonGoogle(left=left, right=right, train=train))
    drops = {reason: count for batch in batches for reason, count in batch.drops.items() if count}
    assert drops == {"offer without a title": 1, "pair without a label": 1}
    offer = found["offers"].row(0, named=True)
    assert (offer["brand"], offer["description"]) == ("", "Model number: F-7")


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({}, "needs labelled pairs"),
        ({"left": "a", "right": "b"}, "needs labelled pairs"),
        ({"matches": "m"}, "needs both `left` and `right`"),
        ({"train": "t", "left": "a"}, "needs both `left` and `right`"),
    ],
)
def test_recipe_that_names_half_a_form_is_refused(entry: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(AmazonGoogle, entry, "recipe.yaml: corpora[0]")


def test_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("label\n1\n")
    with pytest.raises(RecfoundError, match=r"train\.csv: line 1: has one column"):
        read(AmazonGoogle(train=str(tmp_path / "train.csv")))
    with pytest.raises(RecfoundError, match="has no column 'label'"):
        read(AmazonGoogle(train=write(tmp_path / "other.csv", ["ltable_id", "rtable_id"], [["1", "1"]])))


def offers(**titles: str) -> pl.DataFrame:
    """Offers by id (`left_1` is `left/1`) and title."""
    return pl.DataFrame(
        [{"offer_id": name.replace("_", "/"), "title": title, "domain": "Garden"} for name, title in titles.items()],
        schema=TABLES["offers"],
    )


def matches(*pairs: tuple[str, str, bool, str | None]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema=TABLES["matches"], orient="row")


def built(offers: pl.DataFrame, matches: pl.DataFrame) -> Built:
    official = {"matches": frozenset(matches["split"].drop_nulls())}
    return product_matching.build(Corpus("shops", RECIPE, {"offers": offers, "matches": matches}, official))


def titles(sample: dict[str, Any]) -> list[str]:
    lines = sample["prompt"][0]["content"].split("\n")
    return [line.removeprefix("Title: ") for line in lines if line.startswith("Title: ")]


def test_offer_is_shown_as_the_lines_that_it_has() -> None:
    frame = offers(left_1="Fern <b>planner</b>", right_1="Kelp").with_columns(
        price=pl.when(pl.col("offer_id") == "left/1").then(pl.lit("5")), brand=pl.lit("")
    )
    sample = built(frame, matches(("left/1", "right/1", False, "train"))).samples.row(0, named=True)
    shown = sample["prompt"][0]["content"].split("\n\n", 1)[1]
    assert sorted(shown.split("\n\n")) in (
        ["Offer 1:\nTitle: Fern planner\nPrice: 5", "Offer 2:\nTitle: Kelp"],
        ["Offer 1:\nTitle: Kelp", "Offer 2:\nTitle: Fern planner\nPrice: 5"],
    )
    assert (sample["label"], sample["completion"][0]["content"], sample["options"]) == ("no", "no", ["yes", "no"])


def test_what_cannot_be_told_is_dropped_and_counted() -> None:
    frame = offers(left_1="fern", left_2="fern", left_3="dill!", right_1="kelp", right_3="dill", right_4="moss")
    made = built(
        frame,
        matches(
            ("left/1", "right/1", True, "train"),
            ("left/2", "right/1", False, "test"),  # reads as the one above, labelled otherwise
            ("left/3", "right/3", False, "train"),  # the same title
            ("left/1", "right/4", False, "train"),
            ("left/2", "right/4", False, "test"),  # reads as the one above
            ("left/1", "right/9", True, "train"),
            ("left/1", "left/1", True, "train"),
        ),
    )
    assert made.drops == {
        "pair without a label": 0,
        "pair of an offer with itself": 1,
        "pair of an offer that is unknown or has no title": 1,
        "pair labelled as match and as non-match": 2,
        "non-match of two offers with the same title": 1,
        "pair stated again": 1,
    }
    (sample,) = made.samples.iter_rows(named=True)
    assert sorted(titles(sample)) == ["fern", "moss"]
    assert sample["split"] == "test"


def test_offer_that_is_listed_twice_makes_no_pair_twice() -> None:
    frame = offers(left_1="fern", right_1="kelp")
    made = built(pl.concat([frame, frame]), matches(("left/1", "right/1", True, "train")))
    assert len(made.samples) == 1
    assert not any(made.drops.values())


def test_official_splits_are_kept() -> None:
    stated = [(f"left/{n}", f"right/{n}", n % 2 == 0, ("train", "validation", "test")[n % 3]) for n in range(30)]
    named = {f"{side}_{n}": f"{side} plant {n}" for n in range(30) for side in ("left", "right")}
    made = built(offers(**named), matches(*stated)).samples
    assert len(made) == 30
    for sample in made.iter_rows(named=True):
        number = int(titles(sample)[0].split()[-1])
        assert sample["split"] == ("train", "validation", "test")[number % 3]
        assert sample["label"] == ("yes" if number % 2 == 0 else "no")


KINDS = ["rake", "spade", "hose", "trowel", "barrow", "shears"]
MAKERS = ["fern", "kelp", "moss", "dill"]


@pytest.fixture(scope="module")
def listed() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two shops with 240 products each, most in both; the second has some of them twice. Only matches are listed."""
    rows, pairs = [], []
    for number in range(240):
        maker, kind = MAKERS[number % 4], KINDS[number % 6]
        rows.append((f"left/{number}", f"{maker} {kind} model {number} steel"))
        rows.append((f"right/{number}", f"{kind} by {maker} no. {number} garden"))
        if number % 5:
            pairs.append((f"left/{number}", f"right/{number}", True, None))
        if number % 10 == 1:
            rows.append((f"right/{number}b", f"new {kind} by {maker} no. {number} garden"))
            pairs.append((f"left/{number}", f"right/{number}b", True, None))
    frame = pl.DataFrame(rows, schema=["offer_id", "title"], orient="row")
    return frame.with_columns(
        pl.lit(None, pl.String).alias(name) for name in ("description", "brand", "price", "domain")
    ), matches(*pairs)


@pytest.fixture(scope="module")
def found(listed: tuple[pl.DataFrame, pl.DataFrame]) -> Built:
    return built(*listed)


def test_listed_matches_get_non_matches_that_are_near_and_none_of_them_connected(
    listed: tuple[pl.DataFrame, pl.DataFrame], found: Built
) -> None:
    counts = dict(found.samples["label"].value_counts().rows())
    assert counts["yes"] == len(listed[1])
    assert 4 * counts["yes"] < counts["no"] <= product_matching.NON_MATCHES * counts["yes"]
    for sample in found.samples.filter(pl.col("label") == "no").iter_rows(named=True):
        first, second = (set(title.replace(".", "").split()) for title in titles(sample))
        number = [next(word for word in words if word.isdigit()) for words in (first, second)]
        assert number[0] != number[1], "two offers of one product"
        assert ("model" in first) != ("model" in second), "two offers of one shop"
        assert first & second


def test_no_offer_is_in_two_splits(found: Built) -> None:
    assert set(found.samples["split"]) == {"train", "validation", "test"}
    splits: dict[str, set[str]] = {}
    for sample in found.samples.iter_rows(named=True):
        for title in titles(sample):
            splits.setdefault(title, set()).add(sample["split"])
    assert max(map(len, splits.values())) == 1


def test_which_offer_comes_first_says_nothing(found: Built) -> None:
    for label in ("yes", "no"):
        samples = found.samples.filter(pl.col("label") == label)
        left_first = sum("model" in titles(sample)[0] for sample in samples.iter_rows(named=True))
        assert 0.35 < left_first / len(samples) < 0.65


def test_samples_do_not_depend_on_the_order_of_the_tables(
    listed: tuple[pl.DataFrame, pl.DataFrame], found: Built
) -> None:
    again = built(listed[0].sample(fraction=1, shuffle=True, seed=3), listed[1].reverse())
    assert again.samples.sort("id").equals(found.samples.sort("id"))


def test_matches_of_matches_and_equal_titles_are_connected() -> None:
    named = {f"{side}_{n}": f"fern rake {side} {n}" for n in range(40) for side in ("left", "right")}
    chain = [(f"left/{n}", f"right/{n}", True, None) for n in range(40)]
    chain += [(f"left/{n + 1}", f"right/{n}", True, None) for n in range(39)]
    made = built(offers(**named), matches(*chain))
    assert set(made.samples["label"]) == {"yes"}, "all of a chain are one product"
    assert made.samples["split"].n_unique() == 1
    twins = offers(left_1="fern rake", right_1="fern rake of steel", left_2="kelp rake", right_2="Fern Rake!")
    made = built(twins, matches(("left/1", "right/1", True, None), ("left/2", "right/2", True, None)))
    assert set(made.samples["label"]) == {"yes"}


def test_title_that_says_nothing_of_its_own_makes_no_non_match() -> None:
    frame = offers(
        left_1="fern rake by kelp", right_1="kelp rake fern long", right_2="fern rake", left_2="dill fern rake"
    )
    made = built(frame, matches(("left/1", "right/1", True, None), ("left/2", "right/2", True, None)))
    pairs = [set(titles(sample)) for sample in made.samples.filter(pl.col("label") == "no").iter_rows(named=True)]
    assert {"fern rake by kelp", "fern rake"} not in pairs


def test_stated_pairs_without_splits_between_two_splits_are_dropped() -> None:
    named = {f"{side}_{n}": f"{side} plant {n}" for n in range(60) for side in ("left", "right")}
    stated = [(f"left/{n}", f"right/{n}", True, None) for n in range(60)]
    stated += [(f"left/{n}", f"right/{(n + 7) % 60}", False, None) for n in range(60)]
    made = built(offers(**named), matches(*stated))
    counts = dict(made.samples["label"].value_counts().rows())
    assert counts["yes"] == 60
    assert counts["no"] + made.drops["non-match between two splits"] == 60
    assert counts["no"] > 0 < made.drops["non-match between two splits"]


@pytest.mark.corpora
def test_real_slices_in_three_forms(corpora: Path) -> None:
    folder = corpora / "product_matching"
    path = {name: str(folder / name) for name in ("deepmatcher", "pyjedai/D3", "leipzig")}
    readers = {
        (6654, 11460): AmazonGoogle(
            **{split: f"{path['deepmatcher']}/amz_goog_{split}.csv" for split in ("train", "validation", "test")}
        ),
        (4393, 1103): AmazonGoogle(
            left=f"{path['pyjedai/D3']}/amazon.csv",
            right=f"{path['pyjedai/D3']}/gp.csv",
            matches=f"{path['pyjedai/D3']}/gt.csv",
        ),
        (4589, 1300): AmazonGoogle(
            left=f"{path['leipzig']}/AmazonProducts.csv",
            right=f"{path['leipzig']}/GoogleProducts.csv",
            matches=f"{path['leipzig']}/Amazon-Goodle-Products-PerfectMapping.csv",
        ),
    }
    for (offer_count, pair_count), reader in readers.items():
        found, batches = read(reader)
        assert not [bad for batch in batches for bad in batch.unparsable]
        assert (len(found["offers"]), len(found["matches"])) == (offer_count, pair_count)
        made = built(found["offers"], found["matches"])
        assert made.drops["pair of an offer that is unknown or has no title"] == 0
        labels = dict(made.samples["label"].value_counts().rows())
        assert 0.9 * found["matches"]["match"].sum() < labels["yes"] < labels["no"] / 4
        apart = made.samples.filter(pl.col("label") == "no")
        for sample in apart.head(500).iter_rows(named=True):
            first, second = pl.Series(titles(sample)).to_frame("title").select(title_key(pl.col("title")))["title"]
            assert first != second


def test_pairs_of_ids_without_the_tables_of_offers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ["ltable_id", "rtable_id", "label"], [["0", "7", "1"]])
    with pytest.raises(RecfoundError, match="no title of the left offer, only ltable_id, rtable_id, label; name"):
        read(AmazonGoogle(train=path))


def test_inline_offers_without_ids_are_told_apart_by_what_they_say(tmp_path: Path) -> None:
    """As in merged files of DeepMatcher's data sets: `id` is the pair's, prices of 0.0 and nulls are unknown."""
    columns = [f"{side}table_{name}" for side in "lr" for name in ("title", "category", "brand", "modelno", "price")]
    spade = ["fern spade", "garden", "fern", "fs-2", "0.0"]
    rows = [
        ["1", *spade, "null , spade by fern", "", "fern", "", "9.5", "71"],
        ["0", *spade, "rake", "", "", "", "", "72"],
    ]
    found, _ = read(AmazonGoogle(validation=write(tmp_path / "valid.csv", ["label", *columns, "id"], rows)))
    assert found["offers"].select("title", "brand", "price", "description").rows() == [
        ("fern spade", "fern", None, "Model number: fs-2"),
        ("spade by fern", "fern", "9.5", ""),
        ("rake", "", None, ""),
    ]
    assert found["matches"]["left_id"].n_unique() == 1 and found["matches"]["right_id"].n_unique() == 2
    assert found["matches"].select("match", "split").rows() == [(True, "validation"), (False, "validation")]


def test_matches_whose_offers_all_lack_titles_give_no_sample() -> None:
    """A table without a row is no table."""
    tables = {"matches": matches(("left/1", "right/1", True, None))}
    made = product_matching.build(Corpus("shops", RECIPE, tables, {}))
    assert made.samples.is_empty()
    assert made.drops["pair of an offer that is unknown or has no title"] == 1
