"""Tables cut into shards: each row in one shard, a group whole, whatever the number of runs and shards."""

import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recfound_data import shards
from recfound_data.identity import stable_id
from recfound_data.shards import ALL, Range, RunWriter, bucket, ranges, read_shard, runs
from recfound_data.tables import GROUPS, TABLES


def interactions(rows: int, seed: int = 0) -> pl.DataFrame:
    """Choices of thirty users in any order, numbered by their time."""
    draw = random.Random(seed)
    users = [f"{draw.getrandbits(64):016x}" for _ in range(25)]
    users += [f"{at:04x}{0:012x}" for at in (0, 0x7FFF, 0x8000, 0xF000, 0xFFFF)]  # first or last of a shard
    chosen = [draw.choice(users) for _ in range(rows)]
    items = [f"i{draw.randrange(9)}" for _ in range(rows)]
    return pl.DataFrame({"user_id": chosen, "item_id": items, "timestamp": range(rows)})


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes frames as one part of a corpus and returns its folder; `run_bytes` decides how many runs there are."""

    def of(name: str, table: str, frames: list[pl.DataFrame], run_bytes: int = 1 << 30) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr(shards, "_RUN_BYTES", run_bytes)
        writer = RunWriter(folder, "corpus")
        for frame in frames:
            writer.add(table, frame)
        writer.close()
        return folder

    return of


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 250, 10**5, 10**9])
def test_ranges_cut_all_groups_into_as_many_shards_as_rows_need(rows: int) -> None:
    found = ranges(rows, 100)
    assert len(found) == min(max(1, -(-rows // 100)), 1 << 16)
    assert (found[0].low, found[-1].high) == (ALL.low, ALL.high) == (0, 1 << 16)
    assert all(one.high == two.low for one, two in itertools.pairwise(found))
    widths = [part.high - part.low for part in found]
    assert min(widths) > 0 and max(widths) - min(widths) <= 1


def test_a_bucket_is_the_number_that_a_group_begins_with() -> None:
    groups = ["0000ffffffffffff", "ffff000000000000", "00ff000000000000", "a1b2c3d4e5f60718"]
    found = pl.DataFrame({"group": groups}).select(bucket(pl.col("group"))).to_series()
    assert found.to_list() == [int(group[:4], 16) for group in groups]


@pytest.mark.parametrize("count", [1, 2, 7, 1 << 16])
@pytest.mark.parametrize("run_bytes", [1, 3_000, 1 << 30])
def test_shards_hold_every_row_once_and_groups_whole_in_the_order_written(
    write: Write, count: int, run_bytes: int
) -> None:
    frame = interactions(400)
    parts = [list(frame[:250].iter_slices(40)), list(frame[250:].iter_slices(40))]
    folders = [write(name, "interactions", part, run_bytes) for name, part in zip("ab", parts, strict=True)]
    assert (len(runs(folders, "interactions")) == 2) == (run_bytes == 1 << 30)
    seen: Counter[str] = Counter()
    found: dict[str, list[int]] = {}
    for within in ranges(count, 1) if count < 1 << 16 else [Range(at, at + 4096) for at in range(0, 1 << 16, 4096)]:
        shard = read_shard(folders, "interactions", within)
        assert shard is not None and shard.columns == [*TABLES["interactions"], "group"]
        assert all(within.low <= int(group[:4], 16) < within.high for group in shard["group"])
        for (group,), rows in shard.group_by("group"):
            seen[str(group)] += 1
            found[str(group)] = rows["timestamp"].to_list()
    assert set(seen.values()) == {1}
    expected: dict[str, list[int]] = {}
    for user, _, time in frame.iter_rows():
        expected.setdefault(user, []).append(time)
    assert found == expected


def test_the_order_inside_a_shard_is_that_of_the_whole(write: Write) -> None:
    folder = write("a", "interactions", [interactions(400)])
    every = read_shard([folder], "interactions")
    parts = [read_shard([folder], "interactions", within) for within in ranges(7, 1)]
    assert every is not None and pl.concat(part for part in parts if part is not None).equals(every)


def test_what_a_reader_leaves_out_is_null_and_what_it_adds_goes(write: Write) -> None:
    given = pl.DataFrame({"user_id": ["00ff"], "item_id": ["i"], "timestamp": [7], "price": [3.0]})
    folder = write("a", "interactions", [given])
    found = read_shard([folder], "interactions")
    assert found is not None and found.rows() == [("00ff", "i", None, 7, None, "00ff")]


def test_a_table_that_nobody_wrote_is_none_and_an_empty_shard_is_not(write: Write) -> None:
    folder = write("a", "items", [pl.DataFrame({"item_id": ["i"]}), pl.DataFrame({"item_id": []})])
    write("b", "interactions", [pl.DataFrame({"user_id": ["ffff"], "item_id": ["i"]})])
    assert read_shard([folder], "interactions") is None
    other = folder.with_name("b")
    empty = read_shard([folder, other], "interactions", Range(0, 1 << 15))
    assert empty is not None and empty.is_empty()
    full = read_shard([folder, other], "interactions", Range(1 << 15, 1 << 16))
    assert full is not None and len(full) == 1


def test_tables_without_groups_are_whole_in_every_shard(write: Write) -> None:
    frame = pl.DataFrame({"item_id": [f"i{number}" for number in range(50)]})
    folder = write("a", "items", list(frame.iter_slices(7)), run_bytes=1)
    assert len(runs([folder], "items")) == 8
    for within in (ALL, Range(0, 1)):
        found = read_shard([folder], "items", within)
        assert found is not None and found["item_id"].to_list() == frame["item_id"].to_list()


def test_a_writer_counts_rows_and_the_splits_that_a_corpus_publishes(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "corpus")
    judged = pl.DataFrame({"query_id": ["1", "2", "3"], "query": ["a", "b", "c"], "split": ["test", None, "train"]})
    writer.add("judgements", judged)
    writer.add("judgements", judged.clear())
    writer.add("questions", pl.DataFrame({"question_id": ["1"]}))
    writer.close()
    assert dict(writer.rows) == {"judgements": 3, "questions": 1}
    assert writer.splits == {"judgements": {"test", "train"}, "questions": set()}


def groups_of(write: Write, name: str, table: str, rows: dict[str, Any]) -> list[str]:
    found = read_shard([write(name, table, [pl.DataFrame(rows)])], table)
    assert found is not None and found.height == len(next(iter(rows.values())))
    return found.sort(next(iter(rows)))["group"].to_list()


def test_queries_of_the_same_words_and_domain_are_one_group(write: Write) -> None:
    rows = {
        "query_id": ["1", "2", "3", "4", "5"],
        "query": ["Red <b>shoes</b>", "red shoes!", "red shoe", "red shoes", "red shoes"],
        "domain": ["us", "us", "us", "es", None],
    }
    groups = groups_of(write, "a", "judgements", rows)
    assert groups[0] == groups[1] and len(set(groups)) == 4


@pytest.mark.parametrize(
    ("table", "column"), [("questions", "item_id"), ("dialogues", "dialogue_id"), ("attributes", "product_id")]
)
def test_other_tables_go_by_the_hash_of_what_they_are_about(write: Write, table: str, column: str) -> None:
    groups = groups_of(write, "a", table, {column: ["a", "b", "b"]})
    expected = pl.DataFrame({"id": ["a", "b", "b"]}).select(stable_id("corpus", pl.col("id"))).to_series().to_list()
    assert groups == expected and table in GROUPS
