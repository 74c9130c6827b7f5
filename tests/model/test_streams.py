"""Streams draw each sample once an epoch; batches hold no false negatives; bad data is refused in one line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from tiny_models import byte_level

from recfound_data.errors import RecfoundError, UsageError
from recfound_model.bases import load_base
from recfound_model.templates import completion_ids, tokenize_texts, with_defaults
from recfound_model.training.streams import Collator, Stream, chosen_tasks, known_positives, load_split, task_names

SAMPLES = [{"id": str(number)} for number in range(7)]


def drawn(task: str = "user2item", seed: int = 0, epochs: int = 4) -> list[list[str]]:
    rows = [row["id"] for row in Stream(task, SAMPLES, seed).draw(epochs * len(SAMPLES))]
    return [rows[at : at + len(SAMPLES)] for at in range(0, len(rows), len(SAMPLES))]


ORDER = [name for epoch in drawn() for name in epoch]

# --- streams


def test_an_epoch_holds_each_sample_once_and_each_epoch_has_its_own_order():
    epochs = drawn()
    assert all(sorted(epoch) == [row["id"] for row in SAMPLES] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_the_order_is_a_function_of_seed_and_task():
    assert drawn() == drawn()
    others = [drawn(seed=1), drawn(task="item2item"), drawn(task="item2user"), drawn(seed=2**31 - 1)]
    firsts = {tuple(epochs[0]) for epochs in [drawn(), *others]}
    assert len(firsts) == 5


def test_the_size_of_a_draw_does_not_matter():
    stream = Stream("user2item", SAMPLES, 0)
    assert [row["id"] for count in (1, 0, 5, 9, 13) for row in stream.draw(count)] == ORDER


@pytest.mark.parametrize("cursor", [0, 3, 7, 20])
def test_a_stream_continues_from_its_cursor(cursor):
    stream = Stream("user2item", SAMPLES, 0)
    stream.cursor = cursor
    assert [row["id"] for row in stream.draw(28 - cursor)] == ORDER[cursor:]
    stream.cursor = cursor  # back into an epoch that it has left
    assert [row["id"] for row in stream.draw(3)] == ORDER[cursor : cursor + 3]


# --- contrastive batches


def row(anchor: str, positive: str, *negatives: str, **texts: str) -> dict:
    """A sample whose texts are made of its ids, but for those given."""
    named = {key: texts.get(key, f"text of {key}") for key in (positive, *negatives)}
    return {
        "id": f"{anchor}-{positive}",
        "instruction": "Find it.",
        "anchor": f"words of {anchor}",
        "anchor_id": anchor,
        "positive": named[positive],
        "positive_id": positive,
        "negative": named[negatives[0]],
        "more_negatives": [named[key] for key in negatives[1:]],
        "negative_ids": list(negatives),
    }


@pytest.fixture(scope="module")
def tokenizer():
    return with_defaults(byte_level(["text of words", "Instruct: Find it."] * 9, 300))


@pytest.fixture
def collate(tokenizer):
    """A contrastive batch, by documents: (texts, text of each positive, texts excluded from each row)."""

    def make(rows: list[dict], known: dict[str, frozenset[str]] | None = None, negatives_per_pair: int = 1):
        collator = Collator(tokenizer, 64, 64, 64, negatives_per_pair, known or {})
        batch = collator.contrastive("item2item", rows)
        decoded = [
            tokenizer.decode(ids[pooled.bool()])
            for ids, pooled in zip(batch.documents.input_ids, batch.documents.pooled, strict=True)
        ]
        texts = [text.removeprefix("text of ") for text in decoded]
        assert batch.tokens == int(batch.anchors.attention_mask.sum() + batch.documents.attention_mask.sum())
        excluded = [{text for text, out in zip(texts, flags, strict=True) if out} for flags in batch.excluded.tolist()]
        return texts, [texts[at] for at in batch.positives.tolist()], excluded

    return make


def test_a_batch_holds_each_document_once_and_only_the_wanted_negatives(collate):
    rows = [row("a", "p", "n", "m", "o"), row("b", "q", "n", "p"), row("c", "p", "q", "m")]
    for count, expected in ((0, "pq"), (1, "npq"), (2, "mnpq"), (9, "mnopq")):
        texts, positives, _ = collate(rows, negatives_per_pair=count)
        assert sorted(texts) == list(expected) and positives == ["p", "q", "p"]


def test_documents_known_as_positive_of_an_anchor_are_no_negatives_of_it(collate):
    known = known_positives(
        pl.DataFrame(
            [
                {"query_id": "a", "item_id": "q", "grade": 3},  # the positive of the other row
                {"query_id": "a", "item_id": "m", "grade": 1},  # the other row's hard negative: right, if not exact
                {"query_id": "a", "item_id": "n", "grade": 0},  # judged, and wrong
                {"query_id": "a", "item_id": "elsewhere", "grade": 3},
            ]
        )
    )
    assert known == {"a": frozenset({"q", "m", "elsewhere"})}
    _, _, excluded = collate([row("a", "p", "n"), row("b", "q", "m")], known)
    assert [found - {own} for found, own in zip(excluded, "pq", strict=True)] == [{"q", "m"}, set()]


def test_two_positives_of_one_anchor_are_no_negatives_of_each_other(collate):
    known = known_positives(pl.DataFrame({"query_id": ["a", "a"], "item_id": ["p", "q"], "grade": [1, 1]}))
    _, positives, excluded = collate([row("a", "p", "n"), row("a", "q", "n"), row("b", "r", "n")], known)
    assert positives == ["p", "q", "r"]
    assert excluded[0] | excluded[1] == {"p", "q"} and "q" in excluded[0] and "p" in excluded[1]
    assert excluded[2] <= {"r"}


def test_the_anchor_itself_is_no_negative(collate):
    _, _, excluded = collate([row("a", "p", "n"), row("b", "a", "n")])
    assert "a" in excluded[0] and excluded[1] <= {"a"}


def test_a_document_with_the_words_of_the_positive_is_no_negative(tokenizer):
    rows = [row("a", "p", "n", p="mug"), row("b", "q", "twin", q="kettle", twin="mug")]
    batch = Collator(tokenizer, 64, 64, 64, 1).contrastive("item2item", rows)
    assert batch.positives.tolist() == [0, 1] and batch.documents.input_ids.shape[0] == 4  # p, q, n, twin
    assert batch.excluded.tolist() == [[True, False, False, True], [False, True, False, False]]


def test_each_row_of_a_batch_is_its_own_text(tokenizer):
    rows = [row("a", "p", "n"), row("b", "q", "n")]
    rows[1]["instruction"] = "Another way to say it."
    batch = Collator(tokenizer, 64, 32, 64, 1).contrastive("item2item", rows)
    prompts = [f"Instruct: {one['instruction']}\nQuery:\n" for one in rows]
    expected = tokenize_texts(tokenizer, prompts, ["words of a", "words of b"], 64)
    assert torch.equal(batch.anchors.input_ids, expected.input_ids)
    assert torch.equal(batch.anchors.pooled, expected.pooled)
    assert tokenizer.decode(batch.anchors.input_ids[1][batch.anchors.pooled[1].bool()]) == "words of b"


# --- generative batches


def conversation(number: int, words: int, answer: str = "B") -> dict:
    prompt = [{"role": "user", "content": " ".join(f"{number}x{word}" for word in range(words))}]
    return {"id": f"s{number}", "prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}


def test_long_prompts_lose_their_beginning_and_completions_nothing(tokenizer):
    rows = [conversation(0, 2), conversation(1, 40), conversation(2, 9, answer="a longer answer")]
    batch = Collator(tokenizer, 64, 64, 48, 1).completion("sequential_recommendation", rows)
    assert batch.input_ids.shape[1] == 48 and batch.tokens == int(batch.attention_mask.sum())
    for at, one in enumerate(rows):
        prompt, answer = completion_ids(tokenizer, one["prompt"], one["completion"])
        length = int(batch.attention_mask[at].sum())
        ids = batch.input_ids[at, :length].tolist()
        assert ids == [*prompt[-(48 - len(answer)) :], *answer]
        assert batch.input_ids[at][batch.supervised[at]].tolist() == answer
        assert batch.supervised[at, length - len(answer) : length].all()
        assert not batch.attention_mask[at, length:].any()
    assert len(completion_ids(tokenizer, rows[1]["prompt"], rows[1]["completion"])[0]) > 48


def test_a_completion_that_does_not_fit_is_refused_with_its_id(tokenizer):
    collator = Collator(tokenizer, 64, 64, 16, 1)
    with pytest.raises(RecfoundError, match=r"answer_generation: sample s3: its completion alone has \d+ tokens"):
        collator.completion("answer_generation", [conversation(1, 2), conversation(3, 2, answer="long " * 20)])


# --- the data


def test_tasks_and_splits_of_a_dataset(dataset):
    tasks = ["user2item", "query2item", "item2item", "sequential_recommendation"]
    assert task_names(dataset) == tasks
    for task in tasks:
        files = Path(dataset, "data", task).glob("train-*.parquet")
        assert load_split(dataset, task, "train")["id"] == pl.read_parquet(list(files))["id"].to_list()


def test_known_positives_of_a_dataset_hold_the_positive_of_each_training_sample(dataset):
    known = known_positives(load_split(dataset, "qrels", "train").to_polars())
    for task in ("user2item", "query2item", "item2item"):
        for sample in load_split(dataset, task, "train"):
            assert sample["positive_id"] in known[sample["anchor_id"]]


def test_the_negatives_that_a_dataset_names_are_negatives(dataset, base):
    tokenizer = load_base(base)[1]
    collator = Collator(tokenizer, 64, 64, 64, 9, known_positives(load_split(dataset, "qrels", "train").to_polars()))
    graded = 0
    for task in ("user2item", "query2item", "item2item"):
        for sample in load_split(dataset, task, "train").select(range(20)):
            batch = collator.contrastive(task, [sample])
            assert batch.excluded.tolist() == [[True] + [False] * len(sample["negative_ids"])]
            graded += bool(set(sample["negative_ids"]) & collator.known[sample["anchor_id"]])
    assert graded > 0  # complements, judged wrong although their grade is above zero


def test_chosen_tasks_are_those_named_or_all():
    assert chosen_tasks([], ["a", "b"], "data") == ["a", "b"]
    assert chosen_tasks(["b"], ["a", "b"], "data") == ["b"]
    with pytest.raises(UsageError, match="task 'c' is not in data, which has a, b"):
        chosen_tasks(["a", "c"], ["a", "b"], "data")


def refusal(action, kind=RecfoundError) -> str:
    """The message of an error of the project, which must be one line."""
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500, message
    return message


def test_data_that_cannot_be_read_is_refused_in_one_line(dataset, tmp_path):
    missing, empty = str(tmp_path / "nowhere"), tmp_path / "empty"
    assert "nowhere: no such dataset folder" in refusal(lambda: task_names(missing))
    empty.mkdir()
    assert f"{empty}: is no dataset that can be read" in refusal(lambda: task_names(str(empty)))
    (empty / "notes.txt").write_text("words\n")
    assert f"{empty}: has no task; its configurations are default" in refusal(lambda: task_names(str(empty)))
    for data, task, split in ((dataset, "query_rewriting", "train"), (dataset, "user2item", "x"), (missing, "a", "b")):
        found = refusal(lambda where=(data, task, split): load_split(*where))
        assert found.startswith(f"{data}: {task}, {split}: cannot be loaded: "), found


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    folder = tmp_path / "data" / "user2item"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    card = "---\nconfigs:\n- config_name: user2item\n  data_files: data/user2item/*.parquet\n---\n"
    (tmp_path / "README.md").write_text(card)
    assert "user2item, train: cannot be loaded" in refusal(lambda: load_split(str(tmp_path), "user2item", "train"))


UNREACHABLE = """
import sys, time
from types import SimpleNamespace
import huggingface_hub.utils._http
huggingface_hub.utils._http.time = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
from recfound_data.cli import main
for arguments in sys.argv[1:]:
    print(main(arguments.split()))
    print("--", file=sys.stderr)
"""


def test_a_hub_that_cannot_be_reached_is_named_in_one_line(dataset, base, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1", "HF_HOME": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | address
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"base: {base}\ndata: acme/shop\nout: {tmp_path}/run\n")
    commands = [
        f"model train {recipe}",
        f"model train {recipe} --set data={dataset} --set base=acme/base",
        f"model evaluate acme/embedder --data {dataset}",
        "model evaluate random --data acme/shop",
    ]
    command = [sys.executable, "-W", "ignore", "-c", UNREACHABLE, *commands]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["1"] * 4, done.stderr
    assert "Traceback" not in done.stderr
    said = [part.strip().splitlines()[-1] for part in done.stderr.split("--\n")[:4]]
    for line, what in zip(said, ["acme/shop", "base acme/base", "acme/embedder", "acme/shop"], strict=True):
        assert line.startswith(f"recfound: {what}: ") and len(line) < 500, line
    assert not (tmp_path / "run").exists()
