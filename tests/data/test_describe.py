"""A description says what is in the files; its plots are the same bytes for the same description."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from raw_shop import rows
from tampering import Tampered, write_by_hand

from recfound_data import check
from recfound_data.card import dataset_card
from recfound_data.cli import main
from recfound_data.describe import SAMPLED_ROWS, Description, Quantiles, describe, describe_dataset, gini
from recfound_data.errors import RecfoundError
from recfound_data.layout import read_manifest, sha256
from recfound_data.plots import PLOTS, write_plots

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def description(dataset: Path) -> Description:
    return describe(dataset)


@pytest.fixture
def hand(tmp_path: Path) -> Tampered:
    return write_by_hand(tmp_path / "hand")


def test_rows_by_corpus_and_split(dataset: Path, description: Description) -> None:
    for config in ("user2item", "sequential_recommendation", "items"):
        for split in ("train", "test")[: 1 if config == "items" else 2]:
            told = {
                found.corpus: found.rows for found in description.rows if (found.config, found.split) == (config, split)
            }
            assert told == Counter(row["corpus"] for row in rows(dataset, config, split))


def test_lengths_and_histories_against_counting_by_hand(dataset: Path, description: Description) -> None:
    anchors = [row["anchor"] for row in rows(dataset, "user2item", "train")]
    assert len(anchors) < SAMPLED_ROWS
    told = next(f for f in description.lengths if (f.task, f.split, f.text) == ("user2item", "train", "anchor"))
    characters = sorted(map(len, anchors))
    assert told.sampled == len(anchors) and told.characters.most == characters[-1]
    assert told.characters.median == characters[(len(anchors) - 1) // 2]
    assert told.tokens.most >= max(len(anchor.split()) for anchor in anchors)
    choices = Counter(str(anchor.count("\n") + 1) for anchor in anchors)
    numbers = next(f for f in description.numbers if (f.task, f.split, f.what) == ("user2item", "train", "choices"))
    assert numbers.counts == choices


def test_tokens_are_words_and_marks(hand: Tampered) -> None:
    said = "Well, it's 12.5 cm_s!"
    sample = hand.read("answer_generation", "train").row(0, named=True)
    sample |= {"label": said, "completion": [{"role": "assistant", "content": said}]}
    hand.give("answer_generation", {"train": [sample]})
    told = next(f for f in describe(hand.folder).lengths if (f.task, f.text) == ("answer_generation", "completion"))
    # Well , it ' s 12 . 5 cm_s !
    assert told.tokens == Quantiles(10, 10, 10, 10) and told.characters.most == 21


def test_labels_of_tasks_that_choose(hand: Tampered) -> None:
    found = {(labels.task, labels.split): labels.rows for labels in describe(hand.folder).labels}
    assert {task for task, _ in found} == {
        "sentiment_analysis", "answerability_prediction", "product_relation_prediction", "product_matching",
    }  # fmt: skip
    assert found["product_matching", "train"] == {"yes": 3}
    assert list(found["sentiment_analysis", "train"].items()) == [("negative", 1), ("neutral", 1), ("positive", 1)]


def test_popularity_against_counting_by_hand(dataset: Path, description: Description) -> None:
    for task in ("user2item", "item2item"):
        found = {
            split: Counter(row["positive_id"] for row in rows(dataset, task, split)) for split in ("train", "test")
        }
        corpora = {row["corpus"] for row in rows(dataset, task)}
        items = [row["item_id"] for row in rows(dataset, "items") if row["corpus"] in corpora]
        told = {popular.split: popular for popular in description.popularity if popular.task == task}
        assert told["test"].items == len(items) and told["test"].seen == len(found["train"])
        new = sum(count for item, count in found["test"].items() if item not in found["train"])
        assert told["test"].unseen == pytest.approx(new / found["test"].total(), abs=0.0001)
        assert told["train"].unseen == 0 and list(told["train"].tenths) == sorted(told["train"].tenths, reverse=True)
        for popular in told.values():
            assert sum(popular.tenths) + popular.unseen == pytest.approx(1, abs=0.001)
        top = sorted(found["train"].values(), reverse=True)[: -(-len(found["train"]) // 10)]
        assert told["train"].tenths[0] == pytest.approx(sum(top) / found["train"].total(), abs=0.0001)
        counts = [found["train"][item] for item in items]
        apart = sum(abs(one - two) for one in counts for two in counts) / len(counts) ** 2
        assert told["train"].gini == pytest.approx(apart / 2 / (sum(counts) / len(counts)), abs=0.0001)


def test_gini_at_its_ends() -> None:
    assert gini(np.array([3, 3, 3, 3])) == 0
    assert gini(np.array([0] * 99 + [5])) == pytest.approx(0.99)


def test_a_sample_of_rows_takes_them_from_the_whole_of_a_split(hand: Tampered) -> None:
    many = [
        {**hand.read("item_profile", "train").row(0, named=True), "label": f"{'x' * (1 + number // 10_000)}"}
        for number in range(30_000)
    ]
    many = [found | {"completion": [{"role": "assistant", "content": found["label"]}]} for found in many]
    hand.give("item_profile", {"train": many})
    told = next(f for f in describe(hand.folder).lengths if (f.task, f.text) == ("item_profile", "completion"))
    assert told.sampled == SAMPLED_ROWS and told.characters == Quantiles(1, 2, 3, 3)


def test_a_description_survives_json(description: Description) -> None:
    assert Description.from_json(json.loads(json.dumps(description.to_json()))) == description


def test_plots_are_the_same_bytes_again(description: Description, tmp_path: Path) -> None:
    first, second = (write_plots(description, tmp_path / name) for name in ("first", "second"))
    assert [path.stem for path in first] == list(PLOTS)
    for one, two in zip(first, second, strict=True):
        data = one.read_bytes()
        assert data == two.read_bytes() and data.startswith(PNG)
        assert b"matplotlib" not in data.lower() and b"tIME" not in data


def test_plots_do_not_depend_on_a_users_settings(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsavefig.dpi: 300\nfigure.facecolor: red\n")
    command = [sys.executable, "-m", "recfound_data.cli", "data", "describe", str(dataset), "--plots"]
    for name in ("plain", "styled"):
        subprocess.run(
            [*command, str(tmp_path / name)], check=True, capture_output=True, cwd=None if name == "plain" else tmp_path
        )
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "styled" / path.name).read_bytes()


def test_a_dataset_without_histories_has_no_plot_of_them(hand: Tampered, tmp_path: Path) -> None:
    drawn = write_plots(describe(hand.folder), tmp_path / "plots")
    assert [path.stem for path in drawn] == ["rows", "lengths", "labels"]


def test_the_card_shows_the_description_and_the_plots_and_the_check_passes(hand: Tampered) -> None:
    manifest = read_manifest(hand.folder)
    description = describe_dataset(hand.folder, manifest)
    write_plots(description, hand.folder / "plots")
    listed = {path.relative_to(hand.folder).as_posix(): path for path in (hand.folder / "plots").iterdir()}
    manifest |= {"description": description.to_json()}
    for name, path in listed.items():
        manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    card = dataset_card(hand.folder, manifest)
    assert all(f"]({name})" in card for name in listed) and len(listed) == 3
    assert description.token_rule in card and "| `product_matching` | train | yes 3 |" in card
    (hand.folder / "recfound.json").write_text(json.dumps(manifest))
    hand.seal()
    assert check(hand.folder).passed
    listed["plots/labels.png"].write_bytes(PNG)
    assert [finding.where for finding in check(hand.folder).findings] == ["plots/labels.png"]


def test_the_command_prints_tables_or_json(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "describe", str(dataset), "--plots", str(tmp_path / "plots")]) == 0
    printed = capsys.readouterr()
    assert "popularity: share of positives" in printed.out and "dropped:" in printed.out
    assert printed.err.split() == [str(tmp_path / "plots" / f"{name}.png") for name in PLOTS]
    assert main(["data", "describe", str(dataset), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Description.from_json(told) == describe(dataset)


def test_what_is_no_dataset_is_an_error(hand: Tampered, tmp_path: Path) -> None:
    with pytest.raises(RecfoundError, match="is no recfound dataset"):
        describe(tmp_path)
    hand.path("item_profile", "train").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(RecfoundError, match="cannot be described"):
        describe(hand.folder)
