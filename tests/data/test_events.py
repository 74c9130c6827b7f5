"""Events, targets, histories and popularity against slow, obvious versions of themselves, on random interactions."""

import hashlib
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from recfound_data.catalogue import make_catalogue
from recfound_data.events import histories, make_events, popularity, targets
from recfound_data.recipe import DataRecipe, HistorySettings
from recfound_data.tables import TABLES, CorpusTables

SEEDS = range(4)
SETTINGS = [
    {},
    {"min_history": 1, "train_targets_per_user": 3, "max_history": 4},
    {"min_history": 2, "train_targets_per_user": 100, "min_rating": 0.5},
    {"min_rating": 4.5, "k_core": 3},
    {"k_core": 4, "min_history": 1, "train_targets_per_user": 2},
]


class Event(NamedTuple):
    user: str
    item: str
    rating: float
    time: int


def digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def interactions(seed: int) -> list[Event]:
    """Few users, items and moments, so that ties, repetitions and unknown items are frequent."""
    draw = random.Random(seed)
    rows = []
    for user in range(25):
        for _ in range(draw.choice((1, 2, 3, 5, 8, 13, 30))):
            rating = draw.choice((0.5, 2.0, 3.0, 4.0, 4.5, 5.0))
            rows.append(Event(f"u{user}", f"i{draw.randrange(45)}", rating, 10**9 + draw.randrange(60)))
    rows += draw.sample(rows, 20)
    draw.shuffle(rows)
    return rows


TITLES = {f"i{number}": f"Item {number}" for number in range(40)} | {
    "i3": "ITEM 2!", "i7": "item  6", "i11": "",
    "i12": f"{'Long words ' * 9}first", "i13": f"{'Long words ' * 9}second",
}  # fmt: skip
"""Items 40 to 44 are unknown, 11 has no title; 2 and 3, 6 and 7, 12 and 13 are two offers of one product."""


@pytest.fixture(params=[(seed, settings, split) for seed in SEEDS for settings in SETTINGS
                        for split in ("leave_last", "global_time")],
                ids=lambda param: f"{param[0]}-{param[2]}-{'-'.join(map(str, param[1].values()))}")  # fmt: skip
def case(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[pl.DataFrame, dict[str, int], DataRecipe, list[Event]]:
    """The events of a random corpus, what was dropped, the recipe and the raw rows."""
    seed, settings, split = request.param
    recipe = DataRecipe(corpora=[{}], tasks=["user2item"], split=split, history=HistorySettings(**settings))
    raw = interactions(seed)
    tables = {
        "interactions": [tuple(event) for event in raw],
        "items": [(item, title, "", [], "", "Domain") for item, title in TITLES.items()],
    }
    for table, rows in tables.items():
        (tmp_path / table).mkdir()
        pl.DataFrame(rows, TABLES[table], orient="row").write_parquet(tmp_path / table / "0.parquet")
    corpus = CorpusTables(tmp_path, "corpus", recipe)
    catalogue, _ = make_catalogue(corpus)
    events, drops = make_events(corpus, catalogue)
    return events, drops, recipe, raw


# The slow versions


def product(item: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in TITLES[item].lower())
    return " ".join(words.split())[:80]


def expected_events(raw: list[Event], recipe: DataRecipe) -> dict[str, list[dict[str, Any]]]:
    """Each user's events in time order, with whether it is liked and its period."""
    settings = recipe.history
    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(set(raw), key=lambda event: (event.time, digest(f"corpus/{event.item}"), event.rating)):
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
    found = {}
    for user, chosen in by_user.items():
        rows = [{"event": event, "inside": event in core} for event in chosen]
        for row in rows:
            row["liked"] = row["inside"] and row["event"].rating >= settings.min_rating
        count = sum(row["liked"] for row in rows)
        reached = 0
        for row in rows:
            reached += row["liked"]
            if not row["inside"]:
                row["period"] = "outside"
            elif recipe.split == "global_time":
                first_test, first_validation = (quantile(times, at) for at in (0.9, 0.8))
                time = row["event"].time
                row["period"] = "test" if time >= first_test else "validation" if time >= first_validation else "train"
            elif count <= settings.min_history or reached < count - 1:
                row["period"] = "train"
            else:
                row["period"] = "test" if reached == count else "validation"
        found[digest("corpus", user)] = rows
    return found


def quantile(values: list[int], at: float) -> int:
    """The value at the lower of the two places beside a quantile."""
    return values[int(at * (len(values) - 1) + 1e-9)]


def expected_targets(events: dict[str, list[dict[str, Any]]], recipe: DataRecipe) -> list[tuple]:
    """User, item, split and history, latest first, of each target."""
    settings, found = recipe.history, []
    for user, rows in events.items():
        liked = [row for row in rows if row["liked"]]
        for period in ("train", "validation", "test"):
            places = [place for place, row in enumerate(liked) if row["period"] == period]
            chosen = places[-settings.train_targets_per_user :] if period == "train" else places[:1]
            for place in chosen:
                if place >= settings.min_history:
                    past = [f"corpus/{row['event'].item}" for row in liked[:place]][::-1][: settings.max_history]
                    found.append((user, f"corpus/{liked[place]['event'].item}", period, past))
    return sorted(found)


def test_events_are_each_users_first_choices_in_time_order_with_their_period(case) -> None:
    events, drops, recipe, raw = case
    expected = expected_events(raw, recipe)
    found = defaultdict(list)
    for row in events.to_dicts():
        found[row["user_id"]].append(row)
    assert found.keys() == expected.keys()
    for user, rows in expected.items():
        assert [
            (row["item_id"], row["rating"], row["timestamp"], row["liked"], row["period"]) for row in found[user]
        ] == [
            (f"corpus/{row['event'].item}", row["event"].rating, row["event"].time, row["liked"], row["period"])
            for row in rows
        ]
        positions = [row["position"] for row in found[user] if row["liked"]]
        assert positions == list(range(len(positions)))
        assert all(row["position"] is None for row in found[user] if not row["liked"])
        assert {row["count"] for row in found[user]} == {len(positions)}
    once = set(raw)
    known = [event for event in once if TITLES.get(event.item)]
    rows = [row for rows in expected.values() for row in rows]
    assert drops == {
        "interaction repeated exactly": len(raw) - len(once),
        "interaction with an item that has no metadata": len(once) - len(known),
        "interaction with a product again": len(known) - len(rows),
        "interaction outside the k-core": sum(not row["inside"] for row in rows),
    }
    assert min(list(drops.values())[:3]) > 0


def test_targets_and_histories_are_the_slow_ones(case) -> None:
    events, _, recipe, raw = case
    chosen = targets(events, recipe)
    found = chosen.join(histories(events, chosen, recipe.history.max_history), on=["user_id", "position"])
    assert len(found) == len(chosen)
    rows = sorted(found.select("user_id", "item_id", "split", "history").rows())
    assert rows == expected_targets(expected_events(raw, recipe), recipe)


def test_popularity_counts_training_events_alone(case) -> None:
    events, _, recipe, raw = case
    rows = [row for rows in expected_events(raw, recipe).values() for row in rows]
    expected = Counter(f"corpus/{row['event'].item}" for row in rows if row["period"] == "train")
    assert dict(popularity(events).iter_rows()) == expected


def test_events_depend_on_no_row_order(tmp_path: Path) -> None:
    recipe = DataRecipe(corpora=[{}], tasks=["user2item"])
    raw = interactions(0)
    items = pl.DataFrame(
        [(item, title, "", [], "", "Domain") for item, title in TITLES.items()], TABLES["items"], orient="row"
    )
    made = []
    for name, order in (("one", raw), ("other", sorted(raw, reverse=True))):
        folder = tmp_path / name
        for table, frame in (
            ("interactions", pl.DataFrame(order, TABLES["interactions"], orient="row")),
            ("items", items),
        ):
            (folder / table).mkdir(parents=True)
            for part in range(2):
                frame.gather_every(2, part).write_parquet(folder / table / f"{part}.parquet")
        corpus = CorpusTables(folder, "corpus", recipe)
        made.append(make_events(corpus, make_catalogue(corpus)[0]))
    assert made[0][0].equals(made[1][0]) and made[0][1] == made[1][1]


def test_the_same_user_in_two_corpora_is_two_users(tmp_path: Path) -> None:
    recipe = DataRecipe(corpora=[{}], tasks=["user2item"])
    for table, row in (("interactions", ("u", "i", 5.0, 1)), ("items", ("i", "Title", "", [], "", "Domain"))):
        (tmp_path / table).mkdir()
        pl.DataFrame([row], TABLES[table], orient="row").write_parquet(tmp_path / table / "0.parquet")
    corpora = [CorpusTables(tmp_path, name, recipe) for name in ("a", "b")]
    users = [make_events(corpus, make_catalogue(corpus)[0])[0]["user_id"].item() for corpus in corpora]
    assert users == [digest("a", "u"), digest("b", "u")]
