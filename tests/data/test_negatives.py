"""Negatives: as many as asked, distinct, of the positive's domain, near it in popularity, and none of them known."""

import random
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from recfound_data import negatives
from recfound_data.cleaning import product_key
from recfound_data.negatives import Ranking, draw_negatives, known_products, rank_items

SEEDS = range(5)


def catalogue(items: int, domains: int = 1, twins: int = 0) -> pl.DataFrame:
    """Items in turn of each domain; the last `twins` have titles of others."""
    titles = [f"Title {number % (items - twins)}" for number in range(items)]
    rows = {"item_id": [f"i{number}" for number in range(items)], "title": titles}
    rows["domain"] = [f"d{number % domains}" for number in range(items)]
    return pl.DataFrame(rows).with_columns(
        item=pl.int_range(pl.len(), dtype=pl.UInt32),
        product=product_key(pl.col("title")).rank("dense").cast(pl.UInt32),
    )


def counts(items: pl.DataFrame, seed: int) -> pl.DataFrame:
    """How popular most of the items are, as a long tail."""
    draw = random.Random(seed)
    chosen = [item for item in items["item"] if draw.random() < 0.9]
    popular = [int(draw.paretovariate(0.8)) for _ in chosen]
    rated = [draw.randrange(popularity + 1) for popularity in popular]
    columns = {"item": chosen, "popularity": popular, "rated": rated, "rating_sum": [2.5 * count for count in rated]}
    kinds = {"item": pl.UInt32, "popularity": pl.UInt32, "rated": pl.UInt32, "rating_sum": pl.Float64}
    return pl.DataFrame(columns, schema=kinds)


class Wanted(NamedTuple):
    """Samples, row by row, and what each owner knows."""

    positive: np.ndarray
    owner: np.ndarray
    seed: np.ndarray
    known: list[tuple[int, int]]

    def draw(self, items: pl.DataFrame, statistics: pl.DataFrame | None, count: int) -> dict[int, list[int]]:
        """The negatives of each row that has enough."""
        product = items["product"].to_numpy()
        owners, known = (np.array([pair[end] for pair in self.known]) for end in (0, 1))
        pairs = known_products(owners, product[known])
        ranking = Ranking.of(rank_items(items, statistics), items)
        rows, found = draw_negatives(self.positive, self.owner, self.seed, pairs, ranking, count)
        assert found.shape == (len(rows), count) and rows.tolist() == sorted(rows.tolist())
        return dict(zip(rows.tolist(), found.tolist(), strict=True))


def samples(items: pl.DataFrame, seed: int, owners: int, known_each: int) -> Wanted:
    """Two samples an owner, whose positives are among its known items."""
    draw = random.Random(seed)
    positives, owned, known = [], [], []
    for owner in range(owners):
        chosen = draw.sample(items["item"].to_list(), known_each)
        known += [(owner, item) for item in chosen]
        positives += chosen[:2]
        owned += [owner, owner]
    seeds = np.array([draw.getrandbits(64) for _ in positives], np.uint64)
    return Wanted(np.array(positives, np.uint32), np.array(owned, np.uint32), seeds, known)


def one(positive: int, known: list[int], rows: int = 1) -> Wanted:
    """The same sample some times over, with other seeds."""
    seeds = np.arange(rows, dtype=np.uint64) * np.uint64(977)
    owners = np.zeros(rows, np.uint32)
    return Wanted(np.full(rows, positive, np.uint32), owners, seeds, [(0, item) for item in known])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [1, 5, 19])
def test_negatives_are_exactly_so_many_distinct_unknown_and_of_the_domain(seed: int, count: int) -> None:
    items = catalogue(240, domains=3, twins=30)
    wanted = samples(items, seed, owners=40, known_each=12)
    found = wanted.draw(items, counts(items, seed), count)
    facts = items.to_dicts()
    owned = defaultdict(set)
    for owner, item in wanted.known:
        owned[owner].add(facts[item]["title"])
    assert list(found) == list(range(len(wanted.positive)))
    for row, drawn in found.items():
        positive = facts[wanted.positive[row]]
        titles = {facts[item]["title"] for item in drawn}
        assert len(titles) == count
        assert not titles & owned[int(wanted.owner[row])] and positive["title"] not in titles
        assert {facts[item]["domain"] for item in drawn} == {positive["domain"]}


def test_a_positive_that_nobody_knows_is_no_negative_of_itself() -> None:
    items = catalogue(30, twins=6)
    title = items["title"].to_list()
    for positive in range(30):
        wanted = one(positive, known=[(positive + 1) % 24])
        (drawn,) = wanted.draw(items, None, 22).values()
        assert title[positive] not in {title[item] for item in drawn}


def test_a_sample_that_cannot_have_so_many_is_absent() -> None:
    items = catalogue(30, domains=2, twins=2)  # fifteen items a domain, of which one is a twin of another's there
    everything = [(0, item) for item in range(28)]
    few = Wanted(np.array([0, 0], np.uint32), np.array([0, 1]), np.array([3, 4], np.uint64), [*everything, (1, 0)])
    assert list(few.draw(items, None, 10)) == [1]
    assert list(few.draw(items, None, 13)) == [1]
    assert few.draw(items, None, 14) == {}


def test_every_item_that_is_left_can_be_drawn() -> None:
    items = catalogue(26)
    (drawn,) = one(0, known=list(range(6))).draw(items, None, 20).values()
    assert set(drawn) == set(range(6, 26))


def test_what_a_window_lacks_comes_from_further_away() -> None:
    items = catalogue(6_000)
    order = rank_items(items, None)["rank"].to_numpy()
    place = np.argsort(order)
    positive = int(place[3_000])
    known = [int(item) for item in place[2_850:3_150]]  # all of the first window and some more
    (drawn,) = one(positive, known).draw(items, None, 5).values()
    away = [abs(int(order[item]) - 3_000) for item in drawn]
    assert min(away) >= 150 and max(away) <= 1_000
    (drawn,) = one(positive, [int(item) for item in place[1_900:4_100]]).draw(items, None, 5).values()
    assert min(abs(int(order[item]) - 3_000) for item in drawn) >= 1_100


@pytest.mark.parametrize("seed", SEEDS)
def test_negatives_are_about_as_popular_as_the_positive_where_the_catalogue_is_large(seed: int) -> None:
    items = catalogue(6_000, domains=2)
    wanted = samples(items, seed, owners=60, known_each=20)
    popular = counts(items, seed)
    rank = rank_items(items, popular)["rank"].to_list()
    found = wanted.draw(items, popular, 19)
    far = max(abs(rank[item] - rank[wanted.positive[row]]) for row, drawn in found.items() for item in drawn)
    assert len(found) == 120 and 80 < far <= 100


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ranking_goes_by_domain_and_popularity(seed: int) -> None:
    items = catalogue(300, domains=3)
    popular = counts(items, seed)
    ranked = rank_items(items, popular)
    often = {item: values for item, *values in popular.iter_rows()}
    assert ranked["item"].to_list() == list(range(300)) and sorted(ranked["rank"]) == list(range(300))
    for row in ranked.to_dicts():
        popularity, rated, total = often.get(row["item"], (0, 0, 0.0))
        assert (row["popularity"], row["rated"]) == (popularity, rated)
        assert row["rating_mean"] == (total / rated if rated else None)
    domain = items["domain"].to_list()
    for name in set(domain):
        mine = sorted((row for row in ranked.to_dicts() if domain[row["item"]] == name), key=lambda row: row["rank"])
        assert [row["rank"] for row in mine] == list(range(mine[0]["rank"], mine[0]["rank"] + 100))
        assert {(row["first"], row["size"]) for row in mine} == {(mine[0]["rank"], 100)}
        given = [row["popularity"] for row in mine]
        assert given == sorted(given, reverse=True)
    ties = [row["item"] for row in ranked.sort("rank").to_dicts() if row["popularity"] == 1]
    assert ties != sorted(ties)  # what is equally popular is in drawn order, not in the catalogue's
    again = rank_items(items, popular.sample(fraction=1, shuffle=True, seed=seed))
    assert again.equals(ranked)


def test_a_catalogue_without_events_is_ranked_too() -> None:
    ranked = rank_items(catalogue(20, domains=2), None)
    assert set(ranked["popularity"]) == {0} == set(ranked["rated"]) and ranked["rating_mean"].null_count() == 20
    assert sorted(ranked["rank"]) == list(range(20))


def test_negatives_are_spread_evenly_over_the_window() -> None:
    items = catalogue(201)
    middle = rank_items(items, None).filter(rank=100)["item"].item()
    drawn = one(middle, known=[middle], rows=2_000).draw(items, None, 1)
    often = Counter(item for (item,) in drawn.values())
    assert len(often) == 200 and middle not in often
    assert max(often.values()) < 30


@pytest.mark.parametrize("seed", SEEDS)
def test_negatives_depend_on_no_other_sample_but_on_the_seed(seed: int) -> None:
    items = catalogue(240, domains=3, twins=30)
    wanted = samples(items, seed, owners=40, known_each=12)
    popular = counts(items, seed)
    expected = wanted.draw(items, popular, 5)
    order = np.random.default_rng(seed).permutation(len(wanted.positive))
    mixed = Wanted(wanted.positive[order], wanted.owner[order], wanted.seed[order], wanted.known[::-1])
    assert mixed.draw(items, popular, 5) == {row: expected[int(was)] for row, was in enumerate(order)}
    alone = wanted._replace(positive=wanted.positive[:1], owner=wanted.owner[:1], seed=wanted.seed[:1])
    assert alone.draw(items, popular, 5) == {0: expected[0]}
    other = wanted._replace(seed=wanted.seed + np.uint64(1)).draw(items, popular, 5)
    assert sum(other[row] == drawn for row, drawn in expected.items()) < 0.1 * len(expected)


def test_how_many_samples_are_drawn_for_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    items = catalogue(240, domains=3, twins=30)
    wanted = samples(items, 1, owners=40, known_each=60)
    expected = wanted.draw(items, counts(items, 1), 19)
    monkeypatch.setattr(negatives, "_AT_ONCE", 100)
    assert wanted.draw(items, counts(items, 1), 19) == expected


def test_no_samples_have_no_negatives() -> None:
    items = catalogue(30)
    none = np.empty(0, np.uint32)
    assert Wanted(none, none, none.astype(np.uint64), [(0, 1)]).draw(items, None, 5) == {}
