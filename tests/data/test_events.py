"""Events, periods, time cuts, the k-core and targets against slow, obvious versions, on random interactions."""

import hashlib
import itertools
import random
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from recfound_data.catalogue import make_catalogue, own_id
from recfound_data.events import (
    TimeCuts,
    dated_events,
    find_targets,
    first_interactions,
    item_statistics,
    k_core,
    time_cuts,
)
from recfound_data.recipe import DataRecipe, HistorySettings
from recfound_data.tables import TABLES

SEEDS = range(4)
SETTINGS = [
    {},
    {"min_history": 1, "train_targets_per_user": 3, "max_history": 4},
    {"min_history": 2, "train_targets_per_user": 100, "min_rating": 0.5},
    {"min_rating": 4.5, "k_core": 3},
    {"k_core": 4, "min_history": 1, "train_targets_per_user": 2},
]
SPLITS = ("train", "validation", "test")


class Event(NamedTuple):
    user: str
    item: str
    rating: float | None
    time: int


class Case(NamedTuple):
    """Random interactions, the recipe, and the catalogue that knows most of their items."""

    raw: list[Event]
    recipe: DataRecipe
    catalogue: pl.DataFrame


TITLES = {f"i{number}": f"Item {number}" for number in range(40)} | {
    "i3": "ITEM 2!", "i7": "item  6", "i11": "",
    "i12": f"{'Long words ' * 9}first", "i13": f"{'Long words ' * 9}second",
}  # fmt: skip
"""Items 40 to 44 are unknown, 11 has no title; 2 and 3, 6 and 7, 12 and 13 are two offers of one product."""


def group(user: str) -> str:
    return hashlib.sha256(user.encode()).hexdigest()[:16]


def interactions(seed: int) -> list[Event]:
    """Few users, items and moments, so that ties, repetitions and unknown items are frequent."""
    draw = random.Random(seed)
    rows = []
    for user in range(25):
        for _ in range(draw.choice((1, 2, 3, 5, 8, 13, 30))):
            rating = draw.choice((None, 0.5, 2.0, 3.0, 4.0, 4.5, 5.0))
            rows.append(Event(f"u{user}", f"i{draw.randrange(45)}", rating, 10**9 + draw.randrange(60)))
    rows += draw.sample(rows, 20)
    draw.shuffle(rows)
    return rows


def case_of(seed: int, settings: dict[str, Any], split: str) -> Case:
    recipe = DataRecipe(corpora=[{}], tasks=["user2item"], split=split, history=HistorySettings(**settings))
    items = pl.DataFrame({"item_id": list(TITLES), "title": list(TITLES.values())})
    raw = items.select(
        items[name].cast(dtype) if name in items.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in TABLES["items"].items()
    )
    return Case(interactions(seed), recipe, make_catalogue([raw], "corpus", recipe)[0])


@pytest.fixture(params=[(seed, settings, split) for seed in SEEDS for settings in SETTINGS
                        for split in ("leave_last", "global_time")],
                ids=lambda param: f"{param[0]}-{param[2]}-{'-'.join(map(str, param[1].values()))}")  # fmt: skip
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(*request.param)


def first(rows: list[Event], catalogue: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series, pl.Series, dict[str, int]]:
    """The first interactions of these rows; the text of each says which of the same row it was."""
    table = pl.DataFrame(
        {
            "group": [group(row.user) for row in rows],
            "item_id": [row.item for row in rows],
            "rating": pl.Series([row.rating for row in rows], dtype=pl.Float32),
            "timestamp": [row.time for row in rows],
            "text": [f"{row.user} {row.item} {row.rating} {row.time}" for row in rows],
        },
    )
    keys = catalogue.select("item", "product", "id_hash", raw_id=own_id("corpus", pl.col("item_id")))
    return first_interactions(table, keys)


def made(case: Case, shards: int = 1) -> tuple[pl.DataFrame, dict[str, int]]:
    """All events with the user's group, made in so many shards, and the drops of all."""
    users = sorted({row.user for row in case.raw}, key=group)
    parts = [
        first([row for row in case.raw if row.user in part], case.catalogue) for part in np.array_split(users, shards)
    ]
    cuts = time_cuts([events["timestamp"] for events, *_ in parts]) if case.recipe.split == "global_time" else None
    k, core = case.recipe.history.k_core, [None] * shards
    drops: Counter[str] = Counter()
    if k > 1:
        ends = [(events["user"].to_numpy(), events["item"].to_numpy()) for events, *_ in parts]
        core = k_core(ends, len(case.catalogue), k)
        drops["interaction outside the k-core"] = int(sum((~inside).sum() for inside in core))
    found = []
    for (events, texts, groups, dropped), inside in zip(parts, core, strict=True):
        drops.update(dropped)
        dated = dated_events(events, case.recipe, cuts, inside)
        found.append(dated.with_columns(group=groups.gather(dated["user"]), text=texts))
    return pl.concat(found), dict(drops)


# The slow versions


def product(item: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in TITLES[item].lower())
    return " ".join(words.split())[:80]


def expected_events(case: Case) -> dict[str, list[dict[str, Any]]]:
    """Each user's events in time order, with whether it is liked and its period."""
    settings = case.recipe.history
    names = (pl.col("item_id").str.strip_prefix("corpus/"), "id_hash")
    order = dict(case.catalogue.select(*names).iter_rows())

    def place(event: Event) -> tuple[Any, ...]:
        return event.time, order.get(event.item, 0), event.rating is None, event.rating or 0

    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(set(case.raw), key=place):
        known = bool(TITLES.get(event.item))
        if known and product(event.item) not in {product(earlier.item) for earlier in by_user[event.user]}:
            by_user[event.user].append(event)
    events = [event for events in by_user.values() for event in events]
    core = list(events)
    while settings.k_core > 1:
        users, items = Counter(event.user for event in core), Counter(event.item for event in core)
        kept = [
            event for event in core if users[event.user] >= settings.k_core and items[event.item] >= settings.k_core
        ]
        if len(kept) == len(core):
            break
        core = kept
    times = sorted(event.time for event in events)
    first_test, first_validation = (times[int(at * (len(times) - 1))] for at in (0.9, 0.8))
    found = {}
    for user, chosen in by_user.items():
        rows = [{"event": event, "inside": event in core} for event in chosen]
        for row in rows:
            rating = row["event"].rating
            row["liked"] = row["inside"] and (rating is None or rating >= settings.min_rating)
        count = sum(row["liked"] for row in rows)
        reached = 0
        for row in rows:
            reached += row["liked"]
            if not row["inside"]:
                row["period"] = "outside"
            elif case.recipe.split == "global_time":
                time = row["event"].time
                row["period"] = "test" if time >= first_test else "validation" if time >= first_validation else "train"
            elif count <= settings.min_history or reached < count - 1:
                row["period"] = "train"
            else:
                row["period"] = "test" if reached == count else "validation"
        found[group(user)] = rows
    return {user: found[user] for user in sorted(found) if found[user]}


def expected_targets(events: dict[str, list[dict[str, Any]]], settings: HistorySettings) -> list[tuple[Any, ...]]:
    """User, item, split and history, latest first, of each target."""
    found = []
    for user, rows in events.items():
        liked = [row for row in rows if row["liked"]]
        for number, period in enumerate(SPLITS):
            places = [place for place, row in enumerate(liked) if row["period"] == period]
            chosen = places[-settings.train_targets_per_user :] if period == "train" else places[:1]
            for place in chosen:
                if place >= settings.min_history:
                    past = [row["event"].item for row in liked[:place]][::-1][: settings.max_history]
                    found.append((user, liked[place]["event"].item, number, past))
    return sorted(found)


@pytest.mark.parametrize("shards", [1, 3])
def test_events_are_each_users_first_choices_in_time_order_with_their_period(case: Case, shards: int) -> None:
    expected = expected_events(case)
    events, drops = made(case, shards)
    assert events["group"].unique(maintain_order=True).to_list() == list(expected)
    names = case.catalogue["item_id"]
    found = events.with_columns(item_id=names.gather(events["item"])).to_dicts()
    rows = [row for rows in expected.values() for row in rows]
    shown = [
        (row["item_id"], row["rating"], row["timestamp"], bool(row["liked"]), row["period"], row["text"])
        for row in found
    ]
    assert shown == [
        (
            f"corpus/{event.item}",
            event.rating,
            event.time,
            row["liked"],
            row["period"],
            f"{event.user} {event.item} {event.rating} {event.time}",
        )
        for row in rows
        for event in (row["event"],)
    ]
    for user in expected:
        mine = [row for row in found if row["group"] == user]
        positions = [row["position"] for row in mine if row["liked"]]
        assert positions == list(range(len(positions)))
        assert all(row["position"] is None for row in mine if not row["liked"])
        assert {row["count"] for row in mine} == {len(positions)}
    known = [event for event in case.raw if TITLES.get(event.item)]
    expected_drops = {
        "interaction with an item that has no metadata": len(case.raw) - len(known),
        "interaction repeated exactly": len(known) - len(set(known)),
        "interaction with a product again": len(set(known)) - len(rows),
    }
    assert min(expected_drops.values()) > 0
    if case.recipe.history.k_core > 1:
        expected_drops["interaction outside the k-core"] = sum(not row["inside"] for row in rows)
    assert drops == expected_drops


def test_targets_and_histories_are_the_slow_ones(case: Case) -> None:
    events, _ = made(case)
    targets = find_targets(events, case.recipe.history)
    groups = events.unique("user", keep="first", maintain_order=True)["group"]
    own = case.catalogue["item_id"].str.strip_prefix("corpus/")
    found = []
    for row in range(len(targets.item)):
        past = targets.history[targets.starts[row] : targets.starts[row] + targets.lengths[row]]
        found.append((groups[int(targets.user[row])], own[int(targets.item[row])], int(targets.split[row]),
                      [own[int(item)] for item in past]))  # fmt: skip
    assert int(targets.lengths.sum()) == len(targets.history)
    assert sorted(found) == expected_targets(expected_events(case), case.recipe.history)
    assert found or case.recipe.history.k_core


def test_statistics_count_and_rate_training_events_alone(case: Case) -> None:
    events, _ = made(case)
    rows = [row for rows in expected_events(case).values() for row in rows if row["period"] == "train"]
    expected: dict[str, list[float | None]] = defaultdict(list)
    for row in rows:
        expected[row["event"].item].append(row["event"].rating)
    found = item_statistics(events)
    assert found["item"].is_sorted()
    own = case.catalogue["item_id"].str.strip_prefix("corpus/")
    assert {own[item]: tuple(values) for item, *values in found.iter_rows()} == {
        item: (len(given), len(rated), sum(rated))
        for item, given in expected.items()
        for rated in ([rating for rating in given if rating is not None],)
    }


def test_events_depend_on_no_row_order() -> None:
    case = case_of(0, {}, "leave_last")
    other = case._replace(raw=sorted(case.raw, key=lambda row: (row.item, row.time, row.user), reverse=True))
    assert made(case)[0].equals(made(other)[0]) and made(case)[1] == made(other)[1]


def test_of_equal_interactions_the_one_read_first_gives_the_text() -> None:
    catalogue = case_of(0, {}, "leave_last").catalogue
    keys = catalogue.select("item", "product", "id_hash", raw_id=own_id("corpus", pl.col("item_id")))
    same = {"group": ["g"] * 3, "item_id": ["i1"] * 3, "rating": [4.0] * 3, "timestamp": [7] * 3}
    raw = pl.DataFrame(same | {"text": ["first", "second", "third"]})
    _, texts, users, drops = first_interactions(raw, keys)
    assert texts.to_list() == ["first"] and users.to_list() == ["g"] and drops["interaction repeated exactly"] == 2


def test_nothing_known_gives_no_event_and_no_user() -> None:
    case = case_of(0, {}, "leave_last")
    events, texts, users, drops = first([Event("u", "i44", 5.0, 1)], case.catalogue)
    assert len(events) == len(texts) == len(users) == 0
    assert drops["interaction with an item that has no metadata"] == 1
    dated = dated_events(events, case.recipe, None, None)
    assert len(find_targets(dated, case.recipe.history).item) == 0 and item_statistics(dated).is_empty()


@pytest.mark.parametrize("seed", range(12))
def test_time_cuts_are_quantiles_of_all_times_however_they_are_sharded(seed: int) -> None:
    draw = random.Random(seed)
    spread = draw.choice((1, 3, 1_000, 1 << 16, 1 << 20, 1 << 34))
    times = [draw.randrange(-spread, spread) for _ in range(draw.choice((1, 2, 5, 11, 400)))]
    ordered = sorted(times)
    expected = TimeCuts(*(ordered[int(share * (len(times) - 1))] for share in (0.8, 0.9)))
    for shards in (1, 2, 5):
        parts = [pl.Series("timestamp", times[number::shards], dtype=pl.Int64) for number in range(shards)]
        assert time_cuts(parts) == expected


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_the_k_core_is_the_largest_in_which_all_have_k(seed: int, k: int) -> None:
    draw = random.Random(seed)
    pairs = sorted({(draw.randrange(30), int(draw.paretovariate(0.6)) % 40) for _ in range(130)})
    expected = list(pairs)
    while True:
        users, items = Counter(user for user, _ in expected), Counter(item for _, item in expected)
        kept = [(user, item) for user, item in expected if users[user] >= k and items[item] >= k]
        if len(kept) == len(expected):
            break
        expected = kept
    for borders in ((0, 30), (0, 11, 30), (0, 11, 11, 22, 30)):  # a shard may be empty
        shards = []
        for low, high in itertools.pairwise(borders):
            mine = [(user - low, item) for user, item in pairs if low <= user < high]
            shards.append(tuple(np.array([pair[end] for pair in mine], np.uint32) for end in (0, 1)))
        inside = np.concatenate(k_core(shards, 40, k))
        assert [pair for pair, stays in zip(pairs, inside, strict=True) if stays] == expected
    assert len(expected) < len(pairs)
