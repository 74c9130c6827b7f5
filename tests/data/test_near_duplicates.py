"""Near-duplicates over splits: what reads almost as a held-out sample is not trained on, and the manifest counts it."""

import importlib.util
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from raw_shop import digests, rows

from recfound_data import build, check
from recfound_data.errors import UsageError
from recfound_data.layout import read_manifest
from recfound_data.near_duplicates import MINIMA, SKETCH, sketch, without_near_duplicates
from recfound_data.recipe import NearDuplicateSettings

SPLITS = ("train", "validation", "test")
pytestmark = pytest.mark.usefixtures("no_plots")
needs_minhash = pytest.mark.skipif(not importlib.util.find_spec("datasketch"), reason="datasketch is not installed")


def shared(one: str, other: str) -> float:
    """The share of runs of five characters that two texts have in common, without case and punctuation."""
    plain = [re.sub(r"[\W_]+", " ", text.lower()).strip() for text in (one, other)]
    first, second = ({text[at : at + 5] for at in range(max(len(text) - 4, 1))} for text in plain)
    return len(first & second) / len(first | second)


def words(draw: random.Random, count: int = 60) -> list[str]:
    return ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(count)]


@needs_minhash
def test_equal_minima_estimate_what_two_texts_share() -> None:
    draw = random.Random(2)
    text = words(draw)
    for changed in (0, 1, 3, 10, 30, 60):
        other = [*words(draw, changed), *text[changed:]]
        one, two = sketch([" ".join(text), " ".join(other).upper() + "!"])
        assert abs((one == two).mean() - shared(" ".join(text), " ".join(other))) < 0.13
        assert changed or (one == two).all()
    assert sketch(["", "a", "日本語の本です"]).shape == (3, MINIMA)


@needs_minhash
def test_test_stays_and_training_goes_first(tmp_path: Path) -> None:
    draw = random.Random(5)
    a, b, c, d = (" ".join(words(draw)) for _ in range(4))
    near = {text: text[:-4] + "zz" for text in (a, b, c)}
    plans = [
        [("test", a), ("train", near[a]), ("train", d), ("validation", b)],
        [("validation", near[a] + "z"), ("train", near[b]), ("train", c), ("train", near[c]), ("test", d + " more")],
    ]
    folders, splits, kept = [], [], []
    for number, plan in enumerate(plans):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        np.save(folders[-1] / SKETCH, sketch([text for _, text in plan]))
        splits.append(np.array([SPLITS.index(split) for split, _ in plan], np.uint8))
        kept.append(np.ones(len(plan), bool))
    gone = without_near_duplicates(folders, splits, kept, NearDuplicateSettings(threshold=0.8))
    assert [mask.tolist() for mask in kept] == [[True, False, False, True], [False, False, True, True, True]]
    assert gone == {"near-duplicate of a sample in test": 3, "near-duplicate of a sample in validation": 1}
    kept[0][:] = [False, True, True, True]  # what is gone already is no reason
    kept[1][:] = [False, True, True, True, False]
    assert without_near_duplicates(folders, splits, kept, NearDuplicateSettings(threshold=0.8)) == {
        "near-duplicate of a sample in validation": 1
    }


def said(row: dict) -> str:
    if "anchor" in row:
        return f"{row['anchor']}\x1f{row['positive']}"
    return row["prompt"][-1]["content"].partition("\n\n")[2]


TASKS = ["query2item", "item2item", "sentiment_analysis", "user2item"]


def built(shop: Path, out: Path, **changes: Any) -> Path:
    recipe = yaml.safe_load((shop / "recipe.yaml").read_text()) | {"tasks": TASKS} | changes
    (shop / "near.yaml").write_text(yaml.safe_dump(recipe))
    build(shop / "near.yaml", out, quiet=True)
    return out


@needs_minhash
def test_no_training_sample_is_almost_a_held_out_one(shop_copy: Path, tmp_path: Path) -> None:
    threshold = 0.5
    whole = built(shop_copy, tmp_path / "whole")
    out = built(shop_copy, tmp_path / "out", near_duplicates={"threshold": threshold})
    assert check(out).findings == ()
    drops = read_manifest(out)["drops"]
    removed = 0
    for task in ("query2item", "item2item", "sentiment_analysis"):
        train = {row["id"]: said(row) for row in rows(out, task, "train")}
        held = {row["id"]: said(row) for split in SPLITS[1:] for row in rows(out, task, split)}
        before = {row["id"]: said(row) for row in rows(whole, task)}
        nearest = {name: max(shared(text, other) for other in held.values()) for name, text in train.items()}
        assert max(nearest.values()) < threshold + 0.15
        assert sum(share >= threshold + 0.02 for share in nearest.values()) <= 0.05 * len(train)
        gone = set(before) - set(train) - set(held)
        counted = {why: rows for why, rows in drops.get(task, {}).items() if why.startswith("near-duplicate")}
        assert len(gone) == sum(counted.values())
        everything = {row["id"]: said(row) for split in SPLITS[1:] for row in rows(whole, task, split)}
        for name in gone:
            others = [text for other, text in everything.items() if other != name]
            assert max(shared(before[name], text) for text in others) > threshold - 0.15
        removed += len(gone)
    assert removed > 5
    assert [row["id"] for row in rows(out, "user2item")] == [row["id"] for row in rows(whole, "user2item")]
    card = (out / "README.md").read_text()
    assert "near-duplicate of a sample in test" in card


@needs_minhash
def test_shards_change_nothing_and_tasks_can_be_named(
    shop_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"threshold": 0.5, "tasks": ["item2item"]}
    one = built(shop_copy, tmp_path / "one", near_duplicates=settings)
    monkeypatch.setattr("recfound_data.writing._ROWS_AT_ONCE", 4_096)
    with monkeypatch.context() as patch:
        import sys

        patch.setitem(sys.modules["recfound_data.build"]._ROWS_PER_SHARD, "pairs", 40)
        two = built(shop_copy, tmp_path / "two", near_duplicates=settings)
    assert digests(one) == digests(two)
    drops = read_manifest(one)["drops"]
    near = {task for task in TASKS if any(why.startswith("near-duplicate") for why in drops.get(task, {}))}
    assert near == {"item2item"}


def test_a_missing_library_is_named(shop_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Path(shutil.copytree(shop_folder, tmp_path / "shop"))
    find = importlib.util.find_spec
    gone = "datasketch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == gone else find(name, *rest))
    with pytest.raises(UsageError, match=r"datasketch.*recfound\[near-duplicates\]"):
        built(shop, tmp_path / "out", near_duplicates={})
    with pytest.raises(UsageError, match="did you mean 'item2item'"):
        built(shop, tmp_path / "out", near_duplicates={"tasks": ["item2itme"]})
    assert not (tmp_path / "out").exists()
