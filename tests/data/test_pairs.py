"""Pairs of items against slow, obvious versions: liked together, stated, judged; and how they are brought together."""

import itertools
import math
import random
from collections import Counter, defaultdict
from typing import Any

import polars as pl
import pytest

from recfound_data.catalogue import make_catalogue
from recfound_data.identity import stable_id
from recfound_data.pairs import co_liked, judged, make_pairs, nearest, stated, summed_pairs
from recfound_data.recipe import DataRecipe
from recfound_data.tables import TABLES

SEEDS = range(6)
RELATIONS = ("bought together", "viewed together", "similar", "liked together", "judged similar")


def catalogue(items: int, domains: int = 1, twins: int = 0) -> pl.DataFrame:
    """Items in turn of each domain; the last `twins` have titles of others in other letters."""
    titles = [f"Title {number}" for number in range(items - twins)] + [f"TITLE {number}!" for number in range(twins)]
    ids = [f"i{number:03d}" for number in range(items)]
    raw = pl.DataFrame({"item_id": ids, "title": titles, "domain": [f"d{number % domains}" for number in range(items)]})
    columns = [
        raw[name].cast(dtype) if name in raw.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in TABLES["items"].items()
    ]
    return make_catalogue([raw.select(columns)], "corpus", DataRecipe(corpora=[{}], tasks=["user2item"]))[0]


def events(seed: int, users: int, longest: int) -> list[dict[str, Any]]:
    """What users chose, in time order, each item once."""
    draw = random.Random(seed)
    rows = []
    for user in range(users):
        for item in draw.sample(range(25), draw.randrange(longest)):
            period = draw.choices(("train", "test", "outside"), (8, 1, 1))[0]
            rows.append({"user": user, "item": item, "liked": draw.random() < 0.8, "period": period})
    return rows


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    kinds = {"user": pl.UInt32, "item": pl.UInt32, "liked": pl.Boolean, "period": pl.String}
    return pl.DataFrame(rows, schema=kinds)


def choices(rows: list[dict[str, Any]], recent: int) -> dict[int, list[int]]:
    """By user, the latest liked items of the training period."""
    found = defaultdict(list)
    for row in rows:
        if row["liked"] and row["period"] == "train":
            found[row["user"]].append(row["item"])
    return {user: items[-recent:] for user, items in found.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_liked_together_are_nearest_by_cosine_of_their_training_likers(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfound_data.pairs._RECENT", 8)
    rows = events(seed, users=60, longest=16)
    chosen = choices(rows, recent=8)
    likers = {item: {user for user, items in chosen.items() if item in items} for item in range(25)}
    expected = []
    for item, mine in likers.items():
        near = []
        for other, theirs in likers.items():
            both = len(mine & theirs)
            if other != item and both >= 3:
                near.append((-both / math.sqrt(len(mine) * len(theirs)), other))
        expected += [(item, other) for _, other in sorted(near)[:5]]
    together = Counter(pair for items in chosen.values() for pair in itertools.combinations(sorted(items), 2))
    for shards in (1, 4):
        parts = [co_liked(frame([row for row in rows if row["user"] % shards == part])) for part in range(shards)]
        for pairs, sizes in parts:
            assert pairs["pair"].is_sorted() and sizes["item"].is_sorted()
        pairs = summed_pairs(pairs for pairs, _ in parts)
        assert [(pair >> 32, pair % 2**32, users) for pair, users in pairs.iter_rows()] == [
            (*pair, users) for pair, users in sorted(together.items()) if users >= 3
        ]
        sizes = pl.concat(sizes for _, sizes in parts).group_by("item").agg(pl.col("users").sum())
        assert list(nearest(pairs, sizes).iter_rows()) == expected
    assert len(expected) > 60 and max(len(items) for items in chosen.values()) == 8


def test_nobody_who_liked_anything_gives_no_pair() -> None:
    pairs, sizes = co_liked(frame([]))
    assert pairs.is_empty() and sizes.is_empty() and nearest(summed_pairs([pairs]), sizes).is_empty()


def test_stated_relations_are_those_between_known_items() -> None:
    rows = [("i001", "i002", "similar"), ("i002", "i001", "bought together"), ("i001", "gone", "similar"),
            ("gone", "i001", "similar"), ("i003", "i003", "similar")]  # fmt: skip
    items = catalogue(5)
    known, unknown = stated(pl.DataFrame(rows, TABLES["relations"], orient="row"), items, "corpus")
    names = items["item_id"].to_list()
    found = [(names[item], names[other], relation) for item, other, relation in known.iter_rows()]
    expected = [(f"corpus/{item}", f"corpus/{other}", why) for item, other, why in rows if "gone" not in (item, other)]
    assert unknown == 2 and sorted(found) == sorted(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_query_relates_its_exact_answer_to_substitutes_and_complements(seed: int) -> None:
    draw = random.Random(seed)
    rows = []
    for query in range(8):
        for item in draw.choices(range(34), k=draw.randrange(1, 30)):  # four are unknown; some are judged twice
            rows.append((f"{query:016x}", f"i{item:03d}", draw.randrange(4)))
    judgements = pl.DataFrame(rows, {"group": pl.String, "item_id": pl.String, "grade": pl.Int8}, orient="row")
    found = judged(judgements, catalogue(30), "corpus", seed)
    best: dict[str, dict[int, int]] = defaultdict(dict)
    for query, name, grade in rows:
        if int(name[1:]) < 30:
            best[query][int(name[1:])] = max(grade, best[query].get(int(name[1:]), 0))
    possible: Counter[tuple[int, int, str]] = Counter()
    wanted: Counter[str] = Counter()
    for grades in best.values():
        for relation, other_grade in (("judged similar", 2), ("judged together", 1)):
            pairs = [
                (item, other, relation)
                for item, other in itertools.product(grades, grades)
                if grades[item] == 3 and grades[other] == other_grade
            ]
            possible.update(pairs)
            wanted[relation] += min(10, len(pairs))
    drawn = Counter(found.iter_rows())
    assert Counter(found["relation"]) == wanted and max(wanted.values()) > 10
    assert all(drawn[pair] <= possible[pair] for pair in drawn)
    other = judged(judgements, catalogue(30), "corpus", seed + 1)
    assert Counter(other["relation"]) == wanted and Counter(other.iter_rows()) != drawn
    mixed = judged(judgements.sample(fraction=1, shuffle=True, seed=seed), catalogue(30), "corpus", seed)
    assert Counter(mixed.iter_rows()) == drawn


def related(seed: int, items: int) -> list[tuple[int, int, str]]:
    """Relations in any direction, some of an item to itself, some repeated."""
    draw = random.Random(seed)
    rows = [(draw.randrange(items), draw.randrange(items), draw.choice(RELATIONS)) for _ in range(220)]
    return rows + draw.sample(rows, 20)


def as_frame(rows: list[tuple[int, int, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, {"item": pl.UInt32, "other": pl.UInt32, "relation": pl.String}, orient="row")


@pytest.mark.parametrize("per_item", [1, 2, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_pair_is_of_two_products_of_one_domain_once_with_all_its_relations(seed: int, per_item: int) -> None:
    items, rows = catalogue(40, domains=2, twins=8), related(seed, 40)
    facts = items.to_dicts()
    expected: dict[frozenset[str], set[str]] = defaultdict(set)
    usable = []
    for item, other, relation in rows:
        one, two = facts[item], facts[other]
        if one["title_key"] != two["title_key"] and one["domain"] == two["domain"]:
            expected[frozenset((one["title_key"], two["title_key"], one["domain"]))].add(relation)
            usable.append((item, other, relation))
    made, drops = make_pairs(as_frame(rows), items, per_item, seed)
    assert drops == {
        "relation of an item to itself, its duplicate or another domain": len(rows) - len(usable),
        "relation stated again": len(usable) - len(set(usable)),
    }
    found = {}
    for pair in made.to_dicts():
        left, right = facts[pair["left"]], facts[pair["right"]]
        assert left["domain"] == right["domain"] and left["title_key"] < right["title_key"]
        found[frozenset((left["title_key"], right["title_key"], left["domain"]))] = pair["relations"]
    assert found == {ends: sorted(relations) for ends, relations in expected.items()} and len(found) == len(made)
    named = made.select(left=items["title_key"].gather(made["left"]), right=items["title_key"].gather(made["right"]),
                        domain=items["domain"].gather(made["left"]))  # fmt: skip
    groups = named.select(stable_id("pair", pl.col("domain"), pl.col("left"), pl.col("right"))).to_series()
    assert made["group"].to_list() == groups.to_list() == sorted(set(groups))


@pytest.mark.parametrize("per_item", [1, 2, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_so_many_pairs_are_drawn_for_each_item(seed: int, per_item: int) -> None:
    items = catalogue(40)
    made, _ = make_pairs(as_frame(related(seed, 40)), items, per_item, seed)
    has: Counter[int] = Counter()
    drawn: Counter[int] = Counter()
    for pair in made.to_dicts():
        for end in ("left", "right"):
            has[pair[end]] += 1
            drawn[pair[end]] += pair[f"from_{end}"]
    assert drawn == {item: min(per_item, count) for item, count in has.items()}
    assert max(has.values()) > per_item


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_depend_on_no_order_and_no_direction_of_what_is_stated(seed: int) -> None:
    items, rows = catalogue(40, domains=2, twins=8), related(seed, 40)
    other = [(two, one, relation) for one, two, relation in rows]
    random.Random(seed).shuffle(other)
    made, drops = make_pairs(as_frame(rows), items, 2, seed)
    again, drops_again = make_pairs(as_frame(other), items, 2, seed)
    assert again.equals(made) and drops_again == drops
    another, _ = make_pairs(as_frame(rows), items, 2, seed + 1)
    assert another.drop("from_left", "from_right").equals(made.drop("from_left", "from_right"))
    assert not another.equals(made)
