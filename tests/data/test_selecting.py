"""Selected datasets: the right samples stay, the rest is what it was, and the same command keeps the same."""

import csv
import importlib
import json
import shutil
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from raw_shop import digests, rows

from recfound_data import build, check, cli
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import read_manifest
from recfound_data.selecting import measures, select

TASKS = ["user2item", "query2item", "item2item", "sentiment_analysis"]
pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def whole(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with files of fifty rows."""
    shop = Path(shutil.copytree(shop_folder, tmp_path_factory.mktemp("selecting") / "shop"))
    recipe = yaml.safe_load((shop / "recipe.yaml").read_text()) | {"tasks": TASKS, "rows_per_file": 50}
    (shop / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfound_data.plots.write_plots", lambda *_: [])
        build(shop / "recipe.yaml", shop / "dataset", quiet=True)
    return shop / "dataset"


def said(row: dict) -> str:
    if "anchor" in row:
        return f"{row['anchor']}\n{row['positive']}"
    return "\n".join(message["content"] for message in [*row["prompt"], *row["completion"]])


def compressed(row: dict) -> float:
    return len(zlib.compress(said(row).encode(), 9)) / len(said(row).encode())


def characters(row: dict) -> int:
    return len(said(row))


def ids(folder: Path, task: str, split: str = "train") -> list[str]:
    return [row["id"] for row in rows(folder, task, split)]


@pytest.mark.parametrize("per_task", [1, 60, {"user2item": 7, "sentiment_analysis": 55}, {"item2item": 120}])
def test_so_many_stay_and_the_rest_is_what_it_was(whole: Path, tmp_path: Path, per_task: Any) -> None:
    done = select(whole, tmp_path / "out", per_task=per_task)
    assert check(tmp_path / "out").findings == ()
    for task in TASKS:
        before, after = ids(whole, task), ids(tmp_path / "out", task)
        budget = per_task if isinstance(per_task, int) else per_task.get(task)
        assert len(after) == (len(before) if budget is None else min(budget, len(before)))
        assert [name for name in before if name in set(after)] == after  # in the dataset's order
        assert budget is None or (done.before[task], done.kept[task]) == (len(before), len(after))
        by_id = {row["id"]: row for row in rows(whole, task)}
        assert all(row == by_id[row["id"]] for row in rows(tmp_path / "out", task))
    old, new = digests(whole), digests(tmp_path / "out")
    same = {name for name in old if name.startswith("items/") or "/validation-" in name or "/test-" in name}
    assert all(new[name] == old[name] for name in same if "qrels" not in name)


def test_queries_and_judgements_belong_to_what_stays(whole: Path, tmp_path: Path) -> None:
    select(whole, tmp_path / "out", per_task={"item2item": 20, "query2item": 5})
    asked = {row["query_id"] for row in rows(tmp_path / "out", "queries", "train")}
    anchors = {row["anchor_id"] for task in TASKS[:3] for row in rows(tmp_path / "out", task, "train")}
    assert asked == anchors
    everyone = {row["query_id"] for row in rows(tmp_path / "out", "queries")}
    kept = Counter((row["query_id"], row["item_id"]) for row in rows(tmp_path / "out", "qrels"))
    before = Counter((row["query_id"], row["item_id"]) for row in rows(whole, "qrels"))
    assert kept == {pair: count for pair, count in before.items() if pair[0] in everyone} and len(kept) < len(before)


@pytest.mark.parametrize(
    ("by", "measure", "sign"),
    [
        ("length", characters, -1),
        ("length:low", characters, 1),
        ("compression", compressed, -1),
        ("compression:low", compressed, 1),
    ],
)
def test_the_end_that_is_asked_for_is_kept(whole: Path, tmp_path: Path, by: str, measure: Any, sign: int) -> None:
    select(whole, tmp_path / "out", per_task=30, by=[by])
    for task in ("user2item", "item2item", "sentiment_analysis"):
        values = sorted(sign * measure(row) for row in rows(whole, task, "train"))
        kept = sorted(sign * measure(row) for row in rows(tmp_path / "out", task, "train"))
        assert kept == values[:30] and kept[-1] < values[-1]


def test_the_middle_is_kept(whole: Path, tmp_path: Path) -> None:
    select(whole, tmp_path / "out", per_task=31, by=["length:middle"])
    values = sorted(characters(row) for row in rows(whole, "sentiment_analysis", "train"))
    kept = [characters(row) for row in rows(tmp_path / "out", "sentiment_analysis", "train")]
    low, high = values[len(values) // 2 - 20], values[len(values) // 2 + 20]
    assert len(kept) == 31 and low <= min(kept) and max(kept) <= high


def test_several_measures_rank_together(whole: Path, tmp_path: Path) -> None:
    select(whole, tmp_path / "out", per_task=40, by=["length", "compression"])
    samples = rows(whole, "item2item", "train")
    values = np.array([[-characters(row), -compressed(row)] for row in samples])
    places = np.stack([(column[:, None] > column[None, :]).sum(1) for column in values.T], 1).sum(1)
    kept = set(ids(tmp_path / "out", "item2item"))
    inside = [place for row, place in zip(samples, places, strict=True) if row["id"] in kept]
    assert len(kept) == 40 and max(inside) <= np.sort(places)[39]


def test_of_samples_that_read_the_same_one_stays() -> None:
    texts = pl.Series("text", ["A red, red rose!", "a RED red   rose", "a red rose", "Rosé", "rose"])
    assert measures.same_text(texts).to_list()[0] == measures.same_text(texts).to_list()[1]
    assert measures.same_text(texts).n_unique() == 4


def test_duplicates_go_before_the_budget_is_spent(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids(whole, "item2item")
    module = importlib.import_module("recfound_data.selecting.select")
    monkeypatch.setattr(module, "same_text", lambda texts: pl.Series([7] * len(texts), dtype=pl.UInt64))
    done = select(whole, tmp_path / "out", per_task={"item2item": 9}, by=["deduplicate", "length"])
    assert done.kept == {"item2item": 1} and done.duplicates == {"item2item": len(before) - 1}
    (row,) = rows(tmp_path / "out", "item2item", "train")
    assert characters(row) == max(characters(row) for row in rows(whole, "item2item", "train"))
    drops = read_manifest(tmp_path / "out")["drops"]["item2item"]
    assert drops["training sample that reads as another, not selected"] == len(before) - 1


def test_what_is_kept_is_listed_and_told(whole: Path, tmp_path: Path) -> None:
    done = select(whole, tmp_path / "out", per_task=25, by=["deduplicate", "length", "compression:low"], seed=4)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["selection"]["kept"] == done.kept and manifest["selection"]["seed"] == 4
    with (tmp_path / "out" / "selection.csv").open(newline="") as lines:
        listed = list(csv.DictReader(lines))
    for task in TASKS:
        mine = [row for row in listed if row["task"] == task]
        assert [row["id"] for row in mine] == ids(tmp_path / "out", task)
        for row, sample in zip(mine, rows(tmp_path / "out", task, "train"), strict=True):
            assert float(row["length"]) == characters(sample)
            assert float(row["compression"]) == pytest.approx(compressed(sample), abs=1e-5)
    counts = {task: manifest["configs"][task]["splits"]["train"] for task in TASKS}
    assert counts == done.kept
    left = done.before["user2item"] - done.kept["user2item"] - done.duplicates["user2item"]
    assert manifest["drops"]["user2item"]["training sample not selected"] == left
    assert "25 of" in (tmp_path / "out" / "README.md").read_text()


def test_the_same_command_keeps_the_same_and_another_seed_does_not(whole: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        select(whole, tmp_path / name, per_task=30, seed=seed)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert ids(tmp_path / "one", "item2item") != ids(tmp_path / "three", "item2item")


def test_a_selection_of_a_selection_and_in_place(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "mine")
    select(tmp_path / "mine", tmp_path / "mine", per_task=60, by=["length"])
    select(tmp_path / "mine", tmp_path / "mine", per_task=20, by=["length"])
    select(whole, tmp_path / "at_once", per_task=20, by=["length"])
    assert check(tmp_path / "mine").findings == ()
    for task in TASKS:
        assert ids(tmp_path / "mine", task) == ids(tmp_path / "at_once", task)


def test_a_small_model_is_asked_for_perplexity(whole: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted({letter for task in TASKS for row in rows(whole, task, "train") for letter in said(row)})
    tokenizer = Tokenizer(models.WordLevel({"?": 0} | {letter: at for at, letter in enumerate(letters, 1)}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters) + 1, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    small = {"query2item": 10}
    select(whole, tmp_path / "out", per_task=small, by=["perplexity:low"], model=str(tmp_path / "model"))
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    read = AutoTokenizer.from_pretrained(tmp_path / "model")

    def perplexity(row: dict) -> float:
        tokens = torch.tensor([read(said(row))["input_ids"][:512]])
        with torch.no_grad():
            return float(network(input_ids=tokens, labels=tokens).loss.exp())

    values = {row["id"]: perplexity(row) for row in rows(whole, "query2item", "train")}
    expected = sorted(values, key=lambda name: values[name])[:10]
    assert set(ids(tmp_path / "out", "query2item")) == set(expected)
    with (tmp_path / "out" / "selection.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            assert float(row["perplexity"]) == pytest.approx(values[row["id"]], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"by": ["lenght"]}, "did you mean 'length'"),
        ({"by": ["length:top"]}, "low, middle, high"),
        ({"by": ["deduplicate:low"]}, "has none"),
        ({"by": ["length", "length:low"]}, "named twice"),
        ({"by": ["perplexity"]}, "needs --model"),
        ({"model": "any"}, "needs --model"),
        ({"per_task": {"user2itme": 3}}, "did you mean 'user2item'"),
        ({"per_task": {"user2item": 0}}, "at least 1"),
    ],
)
def test_a_wrong_argument_is_named(whole: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select(whole, tmp_path / "out", **({"per_task": 3} | changes))
    assert not list(tmp_path.iterdir())


def test_a_dataset_that_was_changed_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "mine")
    path = next((tmp_path / "mine/data/user2item").glob("train-*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecfoundError, match="is not the file that was built"):
        select(tmp_path / "mine", tmp_path / "out", per_task=3)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(UsageError, match="holds something else"):
        select(whole, tmp_path / "else", per_task=3)


def test_the_command_selects(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "select", str(whole), "--out", str(tmp_path / "out"), "--per-task", "40", "user2item=9"]
    assert cli.main([*arguments, "--by", "deduplicate", "length:low", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["kept"]
    assert kept["user2item"] == 9 and kept["item2item"] == 40
    assert cli.main([*arguments[:-1], "user2item=x"]) == 2
