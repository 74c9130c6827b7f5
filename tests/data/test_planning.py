"""Which samples stay, against slow, obvious versions; and how rows are cut into files."""

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from recfound_data import planning
from recfound_data.errors import RecfoundError
from recfound_data.planning import Prepared, choose, require_samples
from recfound_data.recipe import DataRecipe
from recfound_data.writing import Slice, file_plans

SPLITS = ("train", "validation", "test")
SEEDS = range(5)
AT_ONCE = [1, 7, 1 << 30]
"""How many samples are compared together: each its own band, some bands, one."""


class Sample(NamedTuple):
    twin: int
    split: str
    query: int


class Plan(NamedTuple):
    samples: list[Sample]
    qrels: list[tuple[int, str]]


def plans_of(seed: int, count: int = 4) -> list[Plan]:
    """Plans with many twins in and across splits, and judgements of queries that are asked and that are not."""
    draw = random.Random(seed)
    twins = [draw.getrandbits(64) for _ in range(60)] + [0, (1 << 64) - 1]
    queries = [draw.getrandbits(64) for _ in range(25)]
    plans = []
    for number in range(count):
        size = 0 if number == 1 else draw.randrange(20, 60)
        samples = [Sample(draw.choice(twins), draw.choices(SPLITS, (6, 2, 2))[0], draw.choice(queries[:18]))
                   for _ in range(size)]  # fmt: skip
        qrels = [(draw.choice(queries), draw.choice((*SPLITS, "outside"))) for _ in range(draw.randrange(40))]
        plans.append(Plan(samples, qrels if number != 2 else []))
    return plans


def write(folder: Path, plans: list[Plan]) -> list[Path]:
    """Write plans as `planning.write_plan` does; what is empty has no file."""
    paths = []
    for number, plan in enumerate(plans):
        paths.append(folder / f"{number}")
        paths[-1].mkdir(parents=True)
        if plan.samples:
            columns = {"twin": pl.UInt64, "split": pl.String, "query_hash": pl.UInt64}
            pl.DataFrame(plan.samples, columns, orient="row").write_parquet(paths[-1] / "samples.parquet")
        if plan.qrels:
            columns = {"query_hash": pl.UInt64, "split": pl.String}
            pl.DataFrame(plan.qrels, columns, orient="row").write_parquet(paths[-1] / "qrels.parquet")
    return paths


class Chosen(NamedTuple):
    """What `choose` returned, and the rows that its masks leave, plan by plan."""

    result: dict[str, Any]
    masks: dict[str, list[list[bool]]]

    def kept(self, plans: list[Plan], kind: str = "samples") -> list[Sample]:
        pairs = zip(plans, self.masks[kind], strict=True)
        return [row for plan, mask in pairs for row, stays in zip(plan.samples, mask, strict=True) if stays]


Choose = Any


@pytest.fixture
def chosen(tmp_path: Path) -> Choose:
    """Chooses among plans and returns what stays."""

    def of(plans: list[Plan], task: str = "user2item", **recipe: Any) -> Chosen:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        paths = write(folder, plans)
        (folder / "chosen").mkdir(parents=True)
        settings = DataRecipe(corpora=[{}], tasks=[task], **recipe)
        result = choose(folder / "chosen", task, paths, settings)
        masks = defaultdict(list)
        for path in sorted((folder / "chosen").iterdir()):
            masks[path.name.split("-")[0]].append(np.load(path).tolist())
        return Chosen(result, dict(masks))

    return of


def slow_kept(plans: list[Plan]) -> tuple[list[list[bool]], int, int]:
    """The first of each twin, test before validation before train, then plan by plan; and what is repeated."""
    rows = [(plan, row, sample) for plan, of in enumerate(plans) for row, sample in enumerate(of.samples)]
    masks = [[False] * len(plan.samples) for plan in plans]
    by_twin: dict[int, list[tuple[int, int, Sample]]] = defaultdict(list)
    for entry in rows:
        by_twin[entry[2].twin].append(entry)
    within = across = 0
    for entries in by_twin.values():
        plan, row, _ = min(entries, key=lambda entry: (-SPLITS.index(entry[2].split), entry[0], entry[1]))
        masks[plan][row] = True
        splits = {sample.split for *_, sample in entries}
        within += len(entries) - len(splits)
        across += len(splits) - 1
    return masks, within, across


@pytest.mark.parametrize("at_once", AT_ONCE)
@pytest.mark.parametrize("seed", SEEDS)
def test_of_twins_the_one_held_out_stays_over_plans_and_bands(
    seed: int, at_once: int, chosen: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_MOST_AT_ONCE", at_once)
    plans = plans_of(seed)
    found = chosen(plans)
    masks, within, across = slow_kept(plans)
    assert found.masks["samples"] == masks
    kept = found.kept(plans)
    assert len({sample.twin for sample in kept}) == len(kept) == found.result["rows"]
    assert found.result["drops"] == {
        "sample repeated in its split": within,
        "sample that is held out in another split": across,
    }
    for counts, plan, mask in zip(found.result["counts"]["samples"], plans, masks, strict=True):
        left = [sample for sample, stays in zip(plan.samples, mask, strict=True) if stays]
        assert counts == Counter(sample.split for sample in left)


@pytest.mark.parametrize("at_once", AT_ONCE)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_query_of_a_split_is_asked_once_and_its_judgements_stay(
    seed: int, at_once: int, chosen: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_MOST_AT_ONCE", at_once)
    plans = plans_of(seed)
    found = chosen(plans, limits={"user2item": {"train": 9}})
    kept, asks = found.kept(plans), found.kept(plans, "queries")
    assert Counter((row.query, row.split) for row in asks) == Counter({(row.query, row.split) for row in kept})
    assert all(
        kept or not asked
        for masks in zip(found.masks["samples"], found.masks["queries"], strict=True)
        for kept, asked in zip(*masks, strict=True)
    )
    asked = {row.query for row in kept}
    assert found.masks["qrels"] == [[query in asked for query, _ in plan.qrels] for plan in plans]
    assert {query in asked for plan in plans for query, _ in plan.qrels} == {True, False}
    for counts, plan, mask in zip(found.result["counts"]["qrels"], plans, found.masks["qrels"], strict=True):
        splits = [split for (_, split), stays in zip(plan.qrels, mask, strict=True) if stays and split in SPLITS]
        assert counts == Counter(splits)


def test_a_generative_task_has_no_queries(chosen: Choose) -> None:
    found = chosen(plans_of(0), task="sequential_recommendation")
    assert set(found.masks) == set(found.result["counts"]) == {"samples"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_limit_keeps_exactly_so_many_of_its_split_and_more_of_a_larger_one(seed: int, chosen: Choose) -> None:
    plans = plans_of(seed)
    every = chosen(plans)
    before = Counter(sample.split for sample in every.kept(plans))
    smaller: set[Sample] = set()
    for most in (0, 1, 5, 10, before["train"], 10**6):
        found = chosen(plans, limits={"user2item": {"train": most, "test": 4}, "item2item": {"validation": 1}})
        kept = found.kept(plans)
        train = {sample for sample in kept if sample.split == "train"}
        assert Counter(sample.split for sample in kept) == Counter(
            train=min(most, before["train"]), validation=before["validation"], test=4
        )
        assert smaller <= train and set(kept) <= set(every.kept(plans))
        gone = sum(before.values()) - len(kept)
        assert found.result["drops"]["sample beyond the recipe's limit"] == gone
        smaller = train


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_limit_keeps_is_drawn_by_the_seed_and_depends_on_no_plan(seed: int, chosen: Choose) -> None:
    plans = plans_of(seed)
    one = [Plan([sample for plan in plans for sample in plan.samples], [])]
    limits = {"limits": {"user2item": {"train": 12, "validation": 3}}}
    kept = [{row[:2] for row in chosen(given, **limits).kept(given)} for given in (plans, one, plans[::-1])]
    assert kept[0] == kept[1] == kept[2]
    other = {row[:2] for row in chosen(plans, seed=1, **limits).kept(plans)}
    assert other != kept[0] and len(other) == len(kept[0])
    assert chosen(plans, seed=-1, **limits).result["rows"] == len(kept[0])


def test_a_task_without_any_sample_is_refused(chosen: Choose) -> None:
    for plans in ([], [Plan([], []), Plan([], [(1, "test")])]):
        drops = {"shop": {"item without a title": 7}, "user2item from shop": {}}
        with pytest.raises(RecfoundError, match=r"task 'user2item' has no sample.*shop: 7 times item without a title"):
            require_samples("user2item", chosen(plans).result, drops)


@pytest.mark.parametrize("rows_per_file", [1, 3, 10, 100])
@pytest.mark.parametrize("seed", SEEDS)
def test_files_hold_all_rows_in_order_and_as_many_as_they_may(seed: int, rows_per_file: int) -> None:
    draw = random.Random(seed)
    counts = [draw.choice((0, 1, 2, 5, 11, 30)) for _ in range(6)]
    corpus = Prepared("c", (), Path(), (), (), Path(), None, {})
    parts = [(Slice(Path(f"{at}"), None, "user2item", corpus, 0, count), count) for at, count in enumerate(counts)]
    plans = file_plans("user2item", "train", parts, rows_per_file)
    sizes = [sum(part.stop - part.start for part in plan.slices) for plan in plans]
    assert sum(sizes) == sum(counts) and set(sizes[:-1]) <= {rows_per_file} and all(sizes)
    rows = [(part.plan.name, row) for plan in plans for part in plan.slices for row in range(part.start, part.stop)]
    assert rows == [(f"{at}", row) for at, count in enumerate(counts) for row in range(count)]
    total = len(plans)
    assert [plan.path for plan in plans] == [
        f"data/user2item/train-{number:05d}-of-{total:05d}.parquet" for number in range(total)
    ]
