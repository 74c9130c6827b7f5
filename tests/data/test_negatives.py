"""Negatives: as many as asked, distinct, of the positive's domain, near it in popularity, and none of them known."""

import random
from collections import Counter

import polars as pl
import pytest

from recfound_data.cleaning import product_key
from recfound_data.negatives import draw_negatives, ranked

SEEDS = range(5)


def catalogue(items: int, domains: int = 1, twins: int = 0) -> pl.DataFrame:
    """Items in turn of each domain; the last `twins` have titles of others."""
    titles = [f"Title {number % (items - twins)}" for number in range(items)]
    rows = {"item_id": [f"i{number}" for number in range(items)], "title": titles}
    rows["domain"] = [f"d{number % domains}" for number in range(items)]
    return pl.DataFrame(rows).with_columns(title_key=product_key(pl.col("title")))


def counts(items: pl.DataFrame, seed: int) -> pl.DataFrame:
    draw = random.Random(seed)
    chosen = [item for item in items["item_id"] if draw.random() < 0.9]
    return pl.DataFrame({"item_id": chosen, "popularity": [int(draw.paretovariate(0.8)) for _ in chosen]}).cast(
        {"popularity": pl.UInt32}
    )


def samples(items: pl.DataFrame, seed: int, owners: int, known_each: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two samples an owner, whose positives are among its known items."""
    draw = random.Random(seed)
    wanted, known = [], []
    for owner in range(owners):
        chosen = draw.sample(items["item_id"].to_list(), known_each)
        known += [(f"o{owner}", item) for item in chosen]
        wanted += [(f"s{owner}-{place}", chosen[place], f"o{owner}") for place in range(2)]
    return (
        pl.DataFrame(wanted, ["id", "positive_id", "owner"], orient="row"),
        pl.DataFrame(known, ["owner", "item_id"], orient="row"),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [1, 5, 19])
def test_negatives_are_exactly_so_many_distinct_unknown_and_of_the_domain(seed: int, count: int) -> None:
    items = catalogue(240, domains=3, twins=30)
    wanted, known = samples(items, seed, owners=40, known_each=12)
    drawn = draw_negatives(wanted, known, ranked(items, counts(items, seed)), count, seed)
    facts = {row["item_id"]: row for row in items.to_dicts()}
    owned: dict[str, set[str]] = {}
    for owner, item in known.iter_rows():
        owned.setdefault(owner, set()).add(facts[item]["title"])
    found = dict(drawn.iter_rows())
    assert set(found) == set(wanted["id"])
    for sample, positive, owner in wanted.iter_rows():
        negatives = [facts[item] for item in found[sample]]
        titles = {negative["title"] for negative in negatives}
        assert len(negatives) == len(titles) == count
        assert not titles & owned[owner] and facts[positive]["title"] not in titles
        assert {negative["domain"] for negative in negatives} == {facts[positive]["domain"]}


def test_a_sample_that_cannot_have_so_many_is_absent() -> None:
    items = catalogue(30, domains=2, twins=2)  # one domain of 14 products, one of 14: twins are in both
    known = pl.DataFrame({"owner": ["all"] * 28 + ["few"], "item_id": [f"i{n}" for n in range(28)] + ["i0"]})
    wanted = pl.DataFrame({"id": ["s-all", "s-few"], "positive_id": ["i0", "i0"], "owner": ["all", "few"]})
    drawn = draw_negatives(wanted, known, ranked(items, None), 10, 0)
    assert drawn["id"].to_list() == ["s-few"]
    assert draw_negatives(wanted, known, ranked(items, None), 14, 0).is_empty()


def test_every_item_that_is_left_can_be_drawn() -> None:
    items = catalogue(26)
    known = pl.DataFrame({"owner": ["o"] * 6, "item_id": [f"i{number}" for number in range(6)]})
    wanted = pl.DataFrame({"id": ["s"], "positive_id": ["i0"], "owner": ["o"]})
    drawn = draw_negatives(wanted, known, ranked(items, None), 20, 3)
    assert set(drawn["negative_ids"].item()) == {f"i{number}" for number in range(6, 26)}


@pytest.mark.parametrize("seed", SEEDS)
def test_negatives_are_about_as_popular_as_the_positive_where_the_catalogue_is_large(seed: int) -> None:
    items = catalogue(6_000, domains=2)
    wanted, known = samples(items, seed, owners=60, known_each=20)
    popular = counts(items, seed)
    order = ranked(items, popular)
    rank = dict(order.select("item_id", "rank").iter_rows())
    often = dict(popular.iter_rows())
    far = 0
    for sample, negatives in draw_negatives(wanted, known, order, 19, seed).iter_rows():
        positive = wanted.filter(id=sample)["positive_id"].item()
        far = max(far, *(abs(rank[item] - rank[positive]) for item in negatives))
    assert 80 < far <= 100
    by_rank = sorted(items.filter(domain="d0")["item_id"], key=lambda item: rank[item])
    assert [rank[item] for item in by_rank] == list(range(3_000))
    assert [often.get(item, 0) for item in by_rank] == sorted((often.get(item, 0) for item in by_rank), reverse=True)


def test_negatives_are_spread_evenly_over_the_window() -> None:
    items = catalogue(201)
    wanted = pl.DataFrame(
        {"id": [f"s{n}" for n in range(2_000)], "positive_id": ["i0"] * 2_000, "owner": ["o"] * 2_000}
    )
    known = pl.DataFrame({"owner": ["o"], "item_id": ["i0"]})
    order = ranked(items, None)
    middle = order.filter(rank=100)["item_id"].item()
    drawn = draw_negatives(wanted.with_columns(positive_id=pl.lit(middle)), known, order, 1, 0)
    often = Counter(drawn["negative_ids"].list.first())
    assert len(often) == 200 - (middle != "i0")
    assert max(often.values()) < 30


@pytest.mark.parametrize("seed", SEEDS)
def test_negatives_depend_on_no_row_order_and_on_no_other_sample(seed: int) -> None:
    items = catalogue(240, domains=3, twins=30)
    wanted, known = samples(items, seed, owners=40, known_each=12)
    popular = counts(items, seed)
    expected = dict(draw_negatives(wanted, known, ranked(items, popular), 5, seed).iter_rows())
    mixed = [frame.sample(fraction=1, shuffle=True, seed=seed) for frame in (wanted, known, items, popular)]
    assert dict(draw_negatives(*mixed[:2], ranked(*mixed[2:]), 5, seed).iter_rows()) == expected
    alone = draw_negatives(wanted.head(1), known, ranked(items, popular), 5, seed)
    assert dict(alone.iter_rows()) == {wanted["id"][0]: expected[wanted["id"][0]]}
    other = dict(draw_negatives(wanted, known, ranked(items, popular), 5, seed + 1).iter_rows())
    assert sum(other[sample] == negatives for sample, negatives in expected.items()) < 0.1 * len(expected)
