"""The page on one's own tasks is run as it stands, on a tiny base; and what it says of columns is so."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from datasets import load_dataset
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from recfound_data.cli import main
from recfound_data.errors import RecfoundError, UsageError
from recfound_model import TmoleConfig
from recfound_model.training.collating import Collator
from recfound_model.training.own_tasks import frequent_instruction, kind_of
from recfound_model.training.streams import Stream, load_samples, load_split, task_kinds, training_positives

PAGE = (Path(__file__).parents[2] / "docs" / "own-task.md").read_text(encoding="utf-8")
BUILT, HUB, OWN = PAGE.split("\n## ")[1:]


def fenced(text: str, language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in re.findall(r"^    (recfound .*)", text, re.MULTILINE)]


def small(recipe: str, settings, base: str, **changes: object) -> str:
    """The recipe of the page with the sizes of the tests, as YAML."""
    found = yaml.safe_load(recipe)
    return yaml.safe_dump(settings() | {"proportions": {}} | found | {"base": base} | changes)


@pytest.fixture(scope="module")
def page(settings, base, tmp_path_factory):
    """A folder in which the page's way to one's own task has been gone."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(fenced(OWN, "python"), {})
        (folder / "recipe.yaml").write_text(small(fenced(OWN, "yaml"), settings, base))
        for arguments in commands(OWN):
            assert main(arguments) == 0, arguments
    return folder


@pytest.fixture
def config(dataset, tmp_path):
    """Writes rows as the configuration `mine` of a dataset folder, and returns the folder."""

    def write(rows: list[dict], name: str = "mine", split: str = "train") -> str:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "rows.parquet")
        (tmp_path / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {name}\n  data_files: [{{split: {split}, path: rows.parquet}}]\n---\n"
        )
        return str(tmp_path)

    return write


def messages(role: str, text: str) -> list[dict]:
    return [{"role": role, "content": text}]


# --- the page


def test_an_own_embedding_task_is_a_sentence_transformer_with_the_instruction_of_its_samples(page):
    config = TmoleConfig.from_pretrained(page / "run" / "adapter")
    assert config.kinds == {"gift_cards": "generative", "gift_finder": "embedding"}
    query = "Instruct: Find a present for this person.\nQuery:\n"
    assert config.prompts == {"gift_finder": {"query": query, "document": "Item:\n"}}
    model = SentenceTransformer(str(page / "finder"), device="cpu")
    assert model.prompts["query"] == query
    rows = pl.read_parquet(page / "gifts" / "gift_finder.parquet")
    plain = model.encode(rows["anchor"].to_list(), prompt=query)
    assert (model.encode_query(rows["anchor"].to_list()) == plain).all()
    losses = [json.loads(line)["losses"] for line in (page / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(set(step) == {"gift_cards", "gift_finder"} and min(step.values()) > 0 for step in losses)


def test_an_own_generative_task_is_a_lora_and_a_merged_model(page, base):
    assert (page / "lora").is_dir()
    ids = AutoTokenizer.from_pretrained(page / "cards")("Write a card", return_tensors="pt")["input_ids"]
    fresh = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        untrained = fresh(ids).logits
        lora = PeftModel.from_pretrained(fresh, str(page / "lora" / "gift_cards"))(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(page / "cards")(ids).logits
    torch.testing.assert_close(lora, merged, rtol=0, atol=1e-4)
    assert (lora - untrained).abs().max() > 1e-3


def test_own_tasks_beside_the_thirteen(page, dataset, base, settings, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(dataset, both)
    for file in (page / "gifts").glob("*.parquet"):
        shutil.copy(file, both)
    entries = (page / "gifts" / "README.md").read_text().split("configs:\n")[1].split("---")[0]
    card = (both / "README.md").read_text().replace("configs:\n", f"configs:\n{entries}", 1)
    (both / "README.md").write_text(card)
    thirteen = ["user2item", "query2item", "item2item", "sequential_recommendation"]
    assert list(task_kinds(str(both))) == [*thirteen, "gift_cards", "gift_finder"]
    chosen = ["gift_finder", "query2item", "gift_cards"]
    assert task_kinds(str(both), wanted=chosen) == dict(
        zip(chosen, ["embedding", "embedding", "generative"], strict=True)
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small(fenced(BUILT, "yaml"), settings, base, data=str(both), out=str(tmp_path / "run"), steps=2))
    assert main(["model", "train", str(recipe), "--set", f"tasks=[{','.join(chosen)}]"]) == 0
    assert TmoleConfig.from_pretrained(tmp_path / "run" / "adapter").kinds == task_kinds(str(both), wanted=chosen)


def test_a_dataset_on_the_hub_is_trained_on_at_its_revision(page, base, settings, hub, tmp_path):
    gifts = tmp_path / "gifts"
    shutil.copytree(page / "gifts", gifts)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small(fenced(HUB, "yaml"), settings, base, out=str(tmp_path / "run")))
    program = f"""
import shutil, sys
import polars as pl
from recfound_data.cli import main
from recfound_data.release import release_folder
gifts = {str(gifts)!r}
release_folder(gifts, "acme/gifts", repo_type="dataset", version="1.0.0")
rows = pl.read_parquet(gifts + "/gift_finder.parquet")
rows.with_columns(anchor=pl.col("anchor").str.reverse()).write_parquet(gifts + "/gift_finder.parquet")
release_folder(gifts, "acme/gifts", repo_type="dataset", version="1.1.0")
sys.exit(main(["model", "train", {str(recipe)!r}]))
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    environment = hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    here, there = ((run / "run" / "metrics.jsonl").read_text().splitlines() for run in (page, tmp_path))
    assert [json.loads(line)["losses"] for line in here] == [json.loads(line)["losses"] for line in there]


# --- what makes a configuration a task


def test_columns_make_the_kind():
    assert kind_of(["anchor", "positive"]) == kind_of(["id", "positive", "x", "anchor"]) == "embedding"
    assert kind_of(["prompt", "completion", "options"]) == "generative"
    assert kind_of(["anchor", "completion"]) is kind_of([]) is kind_of(["item_id", "text"]) is None


def test_what_is_no_task_is_left_out_and_refused_by_name(config, dataset):
    for rows, split, reason in (
        ([{"anchor": "a", "text": "b"}], "train", "its training samples have anchor, text; an embedding task has"),
        ([{"anchor": "a", "positive": "b"}], "test", "its training samples have no columns; "),
    ):
        data = config(rows, split=split)
        with pytest.raises(RecfoundError, match="has no task; its configurations are mine"):
            task_kinds(data)
        with pytest.raises(UsageError, match=f"'mine' of {data} is no task: {reason}"):
            task_kinds(data, wanted=["mine"])
    with pytest.raises(UsageError, match=r"task 'theirs' is not in .*, which has mine$"):
        task_kinds(data, wanted=["theirs"])
    with pytest.raises(UsageError, match=r"'items' of .* is no task: its training samples have item_id, "):
        task_kinds(dataset, wanted=["items"])


def test_a_name_that_an_adapter_cannot_have_is_refused(config, settings, base, tmp_path, capsys):
    data = config([{"anchor": f"a {n}", "positive": f"p {n}"} for n in range(4)], name="my.task")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small("{}", settings, base, data=data, out=str(tmp_path / "run")))
    assert main(["model", "train", str(recipe)]) == 2
    assert "'my.task' may hold letters, digits, _ and - only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"anchor": 1, "positive": "b"}], "'anchor' holds int64, not text"),
        ([{"anchor": "a", "positive": "b"}, {"anchor": "a", "positive": None}], "'positive' has no text in row 1"),
        ([{"anchor": " ", "positive": "b"}], "'anchor' has no text in row 0"),
        ([{"prompt": "a", "completion": "b"}], "'prompt' holds .*string, not lists of chat messages"),
        (
            [{"prompt": messages("user", "a"), "completion": [{"from": "me", "value": "b"}]}],
            "'completion' holds messages of from, value, not of role and content",
        ),
        (
            [
                {"prompt": messages("user", "a"), "completion": messages("assistant", "b")},
                {"prompt": messages("user", "a"), "completion": []},
            ],
            "'completion' has no message in row 1",
        ),
    ],
)
def test_columns_that_cannot_be_trained_on_are_refused_with_the_row(config, rows, reason):
    data = config(rows)
    with pytest.raises(RecfoundError, match=f"{data}: mine: column {reason}"):
        load_samples(data, "mine", task_kinds(data)["mine"], "train")


# --- what may be left out


def test_missing_columns_are_filled_in_and_given_ones_kept(config):
    rows = [
        {"anchor": "a", "positive": "p", "negative": None, "more_negatives": None, "anchor_id": None, "extra": 1},
        {"anchor": "a", "positive": "q", "negative": "p", "more_negatives": ["n"], "anchor_id": None, "extra": 2},
        {"anchor": "c", "positive": "p", "negative": None, "more_negatives": ["n"], "anchor_id": "C", "extra": 3},
    ]
    data = config(rows)
    samples = load_samples(data, "mine", "embedding", "train")
    one, two, three = (samples[at] for at in range(3))
    assert [row["anchor_id"] == one["anchor_id"] for row in (one, two, three)] == [True, True, False]
    assert three["anchor_id"] == "C" and len({row["id"] for row in (one, two, three)}) == 3
    assert one["positive_id"] == three["positive_id"] == two["negative_ids"][0] != two["positive_id"]
    assert [(row["negative"], row["more_negatives"]) for row in (one, two, three)] == [
        (None, []),
        ("p", ["n"]),
        ("n", []),
    ]
    assert [len(row["negative_ids"]) for row in (one, two, three)] == [0, 2, 1]
    assert {row["instruction"] for row in (one, two, three)} == {"Retrieve what fits, task mine."}
    known = training_positives(data, {"mine": samples})
    assert known == {one["anchor_id"]: {one["positive_id"], two["positive_id"]}, "C": {one["positive_id"]}}
    drawn = sorted(Stream("mine", samples, 0).draw(3), key=lambda row: row["id"])
    assert drawn == sorted((one, two, three), key=lambda row: row["id"])
    pairs = Collator(None, 9, 9, 9, 2, known=known).pairs({"mine": [one, three]})
    assert [text.text for text in pairs.texts] == ["a", "c", "p", "n"]
    assert pairs.positives.tolist() == [0, 0] and pairs.excluded.tolist() == [[True, False], [True, False]]


def test_ids_of_own_negatives_are_one_each(config):
    row = {"anchor": "a", "positive": "p", "negative": "n", "more_negatives": ["m"], "negative_ids": ["N", "M"]}
    assert load_samples(config([row]), "mine", "embedding", "train")[0]["negative_ids"] == ["N", "M"]
    samples = load_samples(config([row | {"negative_ids": ["N"]}]), "mine", "embedding", "train")
    with pytest.raises(RecfoundError, match=r"mine: sample .*: 1 negative_ids for 2 negatives"):
        Stream("mine", samples, 0).draw(1)


def test_generative_samples_need_a_prompt_and_a_completion_alone(config):
    row = {"prompt": messages("user", "a"), "completion": messages("assistant", "b")}
    other = row | {"prompt": messages("user", "c")}
    first, again, second = load_samples(config([row, row, other]), "mine", "generative", "train")
    assert first == again and first["id"] != second["id"]
    assert {key: first[key] for key in row} == row


def test_the_exported_instruction_is_the_one_that_most_samples_have(config):
    pair = {"anchor": "a", "positive": "p"}
    for phrasings, expected in (("xyy", "y"), ("yx", "y"), ("x", "x")):
        data = config([pair | {"instruction": phrasing} for phrasing in phrasings])
        assert frequent_instruction(load_samples(data, "mine", "embedding", "train"), "mine") == expected
    missing = load_samples(config([pair, pair]), "mine", "embedding", "train")
    assert frequent_instruction(missing, "mine") == missing[0]["instruction"]


def test_a_file_that_changed_is_read_again(config):
    for text in ("one", "two", "six"):
        data = config([{"anchor": text, "positive": "p"}])
        load_dataset(data, "mine")  # whose copy goes by the folder's name
        assert load_split(data, "mine", "train")["anchor"] == [text]
    assert task_kinds(data) == {"mine": "embedding"}
    data = config([{"prompt": messages("user", "a"), "completion": messages("assistant", "b")}])
    assert task_kinds(data) == {"mine": "generative"}
