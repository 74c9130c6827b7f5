"""Tasks of histories, queries and pairs on small tables made by hand: what is asked, what answers, what does not."""

from collections import Counter, defaultdict
from typing import Any

import polars as pl
import pytest

from recfound_data.catalogue import make_catalogue
from recfound_data.events import PERIOD
from recfound_data.negatives import rank_items
from recfound_data.pairs import make_pairs
from recfound_data.recipe import DataRecipe
from recfound_data.samples import EMBEDDING, GENERATIVE, LETTERS, Built, Corpus
from recfound_data.tables import TABLES
from recfound_data.tasks import (
    item2item,
    product_relation_prediction,
    query2item,
    sequential_recommendation,
    user2item,
)

ITEMS = 60
USER, OTHER = "a" * 16, "b" * 16


def catalogue(items: int = ITEMS, domains: int = 1) -> pl.DataFrame:
    ids = [f"i{number:03d}" for number in range(items)]
    raw = pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"Thing {number}" for number in range(items)],
            "description": [f"About thing {number}." for number in range(items)],
            "domain": [f"d{number % domains}" for number in range(items)],
        }
    )
    columns = [
        raw[name].cast(dtype) if name in raw.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in TABLES["items"].items()
    ]
    return make_catalogue([raw.select(columns)], "c", DataRecipe(corpora=[{}], tasks=["user2item"]))[0]


def corpus(tables: dict[str, pl.DataFrame], items: pl.DataFrame, splits: Any = None, **recipe: Any) -> Corpus:
    settings = DataRecipe(corpora=[{}], tasks=["user2item"], **recipe)
    mapped = {"catalogue": items, "item_stats": rank_items(items, None)}
    return Corpus("c", settings, mapped | tables, splits or {})


def rendered(module: Any, built: Built, given: Corpus) -> list[dict[str, Any]]:
    found = module.render(built.samples, given)
    assert found["id"].n_unique() == len(found) == len(built.samples)
    return found.with_columns(split=built.samples["split"]).to_dicts()


# Histories


def events(items: pl.DataFrame, users: dict[str, list[tuple[int, float, str]]]) -> pl.DataFrame:
    """Users' choices in time order: item, rating, period; what is rated under 3 is not liked."""
    rows = []
    for user, (group, chosen) in enumerate(sorted(users.items())):
        position = 0
        count = sum(rating >= 3 for _, rating, _ in chosen)
        for item, rating, period in chosen:
            liked = rating >= 3
            product = items["product"][item]
            rows.append((user, group, item, product, rating, liked, position if liked else None, count, period))
            position += liked
    columns = {
        "user": pl.UInt32,
        "group": pl.String,
        "item": pl.UInt32,
        "product": pl.UInt32,
        "rating": pl.Float32,
        "liked": pl.Boolean,
        "position": pl.Int32,
        "count": pl.Int32,
        "period": pl.String,
    }
    return pl.DataFrame(rows, columns, orient="row").with_columns(pl.col("period").cast(PERIOD))


HISTORIES = {
    USER: [(item, 5.0, "train") for item in (7, 3, 11, 20)]
    + [(5, 1.0, "train"), (30, 4.0, "validation"), (8, 2.0, "validation"), (41, 3.0, "test")],
    OTHER: [(item, 4.0, "train") for item in (1, 2, 3)],
}


@pytest.fixture(scope="module")
def histories() -> Corpus:
    items = catalogue()
    return corpus({"events": events(items, HISTORIES)}, items)


def test_user2item_asks_for_the_next_choice_and_shows_those_before_latest_first(histories: Corpus) -> None:
    built = user2item.build(histories)
    found = {row["split"]: row for row in rendered(user2item, built, histories)}
    assert {split: (row["anchor"].split("\n"), row["positive_id"]) for split, row in found.items()} == {
        "train": (["Thing 11", "Thing 3", "Thing 7"], "c/i020"),
        "validation": (["Thing 20", "Thing 11", "Thing 3", "Thing 7"], "c/i030"),
        "test": (["Thing 30", "Thing 20", "Thing 11", "Thing 3", "Thing 7"], "c/i041"),
    }
    touched = {f"c/i{item:03d}" for item, *_ in HISTORIES[USER]}
    for row in found.values():
        assert list(row) == [*EMBEDDING, "split"]
        assert (row["task"], row["corpus"], row["domain"], row["anchor_id"]) == ("user2item", "c", "d0", USER)
        assert row["positive"] == f"Thing {int(row['positive_id'][-3:])}\nAbout {row['positive'].split('About ')[1]}"
        assert len(row["negative_ids"]) == len(set(row["negative_ids"])) == 5 and not touched & set(row["negative_ids"])
        assert [row["negative"], *row["more_negatives"]] == [
            f"Thing {int(item[-3:])}\nAbout thing {int(item[-3:])}." for item in row["negative_ids"]
        ]
        assert row["id"].startswith(f"{USER}-") and row["instruction"] in user2item.PHRASINGS


def test_user2item_judges_all_that_its_users_liked_by_period(histories: Corpus) -> None:
    qrels = user2item.build(histories).qrels
    assert qrels is not None
    assert sorted(qrels.select("query", "item", "split", "grade").iter_rows()) == sorted(
        (USER, item, period, 1) for item, rating, period in HISTORIES[USER] if rating >= 3
    )


def test_sequential_recommendation_has_the_answer_under_its_letter(histories: Corpus) -> None:
    built = sequential_recommendation.build(histories)
    rows = rendered(sequential_recommendation, built, histories)
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    touched = {f"Thing {item}" for item, *_ in HISTORIES[USER]}
    answers = {"train": "Thing 20", "validation": "Thing 30", "test": "Thing 41"}
    for row in rows:
        assert list(row) == [*GENERATIVE, "split"] and len(set(row["options"])) == 20
        assert row["options"][LETTERS.index(row["label"])] == answers[row["split"]]
        assert touched & set(row["options"]) == {answers[row["split"]]}
        (asked,), (said,) = row["prompt"], row["completion"]
        assert (asked["role"], said) == ("user", {"role": "assistant", "content": row["label"]})
        instruction, shown, options = asked["content"].split("\n\n")
        assert instruction in sequential_recommendation.PHRASINGS and shown.startswith("Chosen so far, latest first:\n")
        lettered = [f"{letter}. {option}" for letter, option in zip(LETTERS, row["options"], strict=True)]
        assert options.split("\n") == ["Options:", *lettered]


def test_every_letter_answers_about_as_often(histories: Corpus) -> None:
    users = {f"{number:016x}": [(item, 5.0, "train") for item in range(number % 40, number % 40 + 5)]
             for number in range(800)}  # fmt: skip
    given = corpus({"events": events(histories.tables["catalogue"], users)}, histories.tables["catalogue"])
    rows = rendered(sequential_recommendation, sequential_recommendation.build(given), given)
    often = Counter(row["label"] for row in rows)
    assert len(rows) == 800 and set(often) == set(LETTERS) and min(often.values()) > 15 and max(often.values()) < 70
    assert len({row["prompt"][0]["content"].split("\n")[0] for row in rows}) == len(sequential_recommendation.PHRASINGS)


def test_histories_of_other_orders_and_targets_are_other_samples_and_the_same_ones_are_twins() -> None:
    items = catalogue()
    chosen = [(7, 5.0, "train"), (3, 5.0, "train"), (11, 5.0, "train"), (20, 5.0, "train")]
    swapped = [chosen[1], chosen[0], *chosen[2:]]
    other = [*chosen[:3], (21, 5.0, "train")]
    users = {f"{number}" * 16: given for number, given in enumerate((chosen, chosen, swapped, other))}
    built = user2item.build(corpus({"events": events(items, users)}, items))
    twins = dict(built.samples.select(pl.col("id").str.slice(0, 1), "twin").iter_rows())
    assert twins["0"] == twins["1"] and len(set(twins.values())) == 3
    assert built.samples["id"].n_unique() == 4
    again = user2item.build(corpus({"events": events(items, users)}, items))
    assert again.samples.equals(built.samples)


def test_targets_without_enough_negatives_are_counted() -> None:
    items = catalogue(8)
    given = corpus({"events": events(items, {USER: [(item, 5.0, "train") for item in range(4)]})}, items)
    built = user2item.build(given)
    assert built.samples.is_empty() and built.drops == {"target without enough negatives": 1}
    assert len(user2item.build(corpus(dict(given.tables), items, negatives=4)).samples) == 1


# Queries


def judgements(rows: list[tuple[str, str, int, int, str | None]]) -> pl.DataFrame:
    columns = {"group": pl.String, "query": pl.String, "item": pl.Int64, "grade": pl.Int8, "split": pl.String}
    frame = pl.DataFrame(rows, columns, orient="row")
    return frame.with_columns(item_id=pl.format("i{}", pl.col("item").cast(pl.String).str.zfill(3)))


JUDGED = [
    (USER, "red <b>lamp</b>", 1, 3, "test"), (USER, "red lamp", 2, 3, "test"), (USER, "Red lamp!", 3, 2, "train"),
    (USER, "red lamp", 4, 0, "test"), (USER, "red lamp", 5, 1, "test"), (USER, "red lamp", 6, 0, "test"),
    (USER, "red lamp", 2, 0, "test"), (USER, "red lamp", 99, 3, "test"), (OTHER, "blue lamp", 9, 3, "train"),
    ("c" * 16, " <br> ", 9, 3, "train"),
]  # fmt: skip
"""Item 2 is judged twice, 99 is not in the catalogue, the last query has no words."""


def test_query2item_takes_what_was_judged_wrong_before_what_was_not_judged() -> None:
    given = corpus({"judgements": judgements(JUDGED)}, catalogue(), splits={"judgements": frozenset({"test"})})
    built = query2item.build(given)
    rows = rendered(query2item, built, given)
    assert {(row["anchor"], row["positive_id"], row["split"]) for row in rows} == {
        ("red lamp", "c/i001", "test"),
        ("red lamp", "c/i002", "test"),
        ("blue lamp", "c/i009", built.samples.filter(query=OTHER)["split"].item()),
    }
    assert built.samples.filter(query=OTHER)["split"].item() != "test"  # what is published is not added to
    for row in rows:
        if row["anchor"] == "red lamp":
            assert set(row["negative_ids"][:3]) == {"c/i004", "c/i005", "c/i006"} and row["negative_ids"][2] == "c/i005"
            assert not {"c/i001", "c/i002", "c/i003"} & set(row["negative_ids"])
        assert len(set(row["negative_ids"])) == 5 and "c/i009" not in row["negative_ids"][:3]
    assert built.qrels is not None
    assert sorted(built.qrels.filter(query=USER).select("item", "grade", "split").iter_rows()) == [
        (1, 3, "test"), (2, 3, "test"), (3, 2, "test"), (4, 0, "test"), (5, 1, "test"), (6, 0, "test"),
    ]  # fmt: skip
    assert built.drops["judgement of a query without words"] == 1
    assert built.drops["judgement of an item that has no metadata"] == 1


def test_queries_of_the_same_words_are_one_query_in_one_wording() -> None:
    given = corpus({"judgements": judgements(JUDGED)}, catalogue())
    built = query2item.build(given)
    assert set(built.samples.filter(query=USER)["words"]) == {"red lamp"}
    assert built.samples.filter(query=USER)["split"].n_unique() == 1


# Pairs


def pairs(items: pl.DataFrame, related: list[tuple[int, int, str]], per_item: int = 2) -> dict[str, pl.DataFrame]:
    frame = pl.DataFrame(related, {"item": pl.UInt32, "other": pl.UInt32, "relation": pl.String}, orient="row")
    made, _ = make_pairs(frame, items, per_item, 0)
    both = pl.concat([made.select(item="left", other="right"), made.select(item="right", other="left")])
    return {"pairs": made, "related": both}


def test_item2item_asks_in_both_directions_and_never_offers_a_relative_as_wrong() -> None:
    items = catalogue(30)
    related = [(0, number, "bought together") for number in range(1, 9)] + [
        (10, 11, "similar"),
        (12, 13, "liked together"),
    ]
    given = corpus(pairs(items, related, per_item=9), items)
    built = item2item.build(given)
    rows = rendered(item2item, built, given)
    expected = {(0, number) for number in range(1, 9)} | {(12, 13)}
    expected |= {(two, one) for one, two in expected}  # what is only similar is not chosen together
    assert {(int(row["anchor_id"][-3:]), int(row["positive_id"][-3:])) for row in rows} == expected
    relatives = defaultdict(set)
    for one, two, _ in related:
        relatives[f"c/i{one:03d}"].add(f"c/i{two:03d}")
        relatives[f"c/i{two:03d}"].add(f"c/i{one:03d}")
    split_of: dict[frozenset[str], set[str]] = defaultdict(set)
    for row in rows:
        assert not ({row["anchor_id"]} | relatives[row["anchor_id"]]) & set(row["negative_ids"])
        assert row["anchor"].startswith(f"Thing {int(row['anchor_id'][-3:])}\n")
        split_of[frozenset((row["anchor_id"], row["positive_id"]))].add(row["split"])
    assert all(len(splits) == 1 for splits in split_of.values())
    assert built.qrels is not None
    assert {(int(query[-3:]), item) for query, item in built.qrels.select("query", "item").iter_rows()} == expected
    twins = {row["id"]: row["twin"] for row in built.samples.to_dicts()}
    assert len(set(twins.values())) == len(twins)


def test_item2item_asks_only_what_is_drawn_and_judges_all() -> None:
    items = catalogue(30)
    given = corpus(pairs(items, [(0, number, "viewed together") for number in range(1, 9)], per_item=2), items)
    built = item2item.build(given)
    assert Counter(built.samples["anchor"]) == Counter({0: 2} | dict.fromkeys(range(1, 9), 1))
    assert built.qrels is not None and len(built.qrels) == 16


def test_a_relation_is_asked_for_where_one_alone_is_stated() -> None:
    items = catalogue(30)
    related = [
        (0, 1, "bought together"), (2, 3, "viewed together"), (4, 5, "similar"), (6, 7, "judged similar"),
        (8, 9, "judged together"), (10, 11, "liked together"), (12, 13, "similar"), (12, 13, "liked together"),
        (14, 15, "similar"), (14, 15, "bought together"), (16, 17, "judged similar"), (16, 17, "similar"),
    ]  # fmt: skip
    given = corpus(pairs(items, related), items)
    built = product_relation_prediction.build(given)
    rows = rendered(product_relation_prediction, built, given)
    found = {}
    for row in rows:
        instruction, shown = row["prompt"][0]["content"].split("\n\n")
        ends = [
            line.removeprefix(f"{place} product: ")
            for place, line in zip(("First", "Second"), shown.split("\n"), strict=True)
        ]
        found[frozenset(int(title.removeprefix("Thing ")) for title in ends)] = row["label"]
        assert instruction in product_relation_prediction.PHRASINGS
        assert row["options"] == ["bought together", "viewed together", "similar"]
        assert row["completion"] == [{"role": "assistant", "content": row["label"]}]
    assert found == {
        frozenset((0, 1)): "bought together",
        frozenset((2, 3)): "viewed together",
        frozenset((4, 5)): "similar",
        frozenset((6, 7)): "similar",
        frozenset((8, 9)): "bought together",
        frozenset((12, 13)): "similar",
        frozenset((16, 17)): "similar",
    }
    assert built.drops == {"pair with two relations": 1}


def test_either_product_of_a_pair_comes_first_and_a_pair_is_in_the_split_of_its_item2item_samples() -> None:
    items = catalogue(200)
    given = corpus(pairs(items, [(number, number + 1, "bought together") for number in range(0, 200, 2)]), items)
    asked, found = item2item.build(given).samples, product_relation_prediction.build(given).samples
    first_is_left = found.select((pl.col("first") < pl.col("second")).sum()).item()
    assert len(found) == 100 and 30 < first_is_left < 70
    split_of = dict(asked.select(pl.col("id").str.slice(0, 16), "split").iter_rows())
    assert dict(found.select(pl.col("id").str.slice(0, 16), "split").iter_rows()) == split_of
    assert set(split_of.values()) == {"train", "validation", "test"}
