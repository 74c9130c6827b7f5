"""Streams draw each sample once an epoch; bad data is refused in one line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from datasets import Dataset

from recfound_data.errors import RecfoundError, UsageError
from recfound_model.training.streams import (
    Stream,
    known_positives,
    load_samples,
    load_split,
    task_kinds,
    training_positives,
)

SAMPLES = Dataset.from_list([{"id": str(number), "texts": ["a"] * number} for number in range(7)])


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
    rows = [row for count in (1, 0, 5, 9, 13) for row in stream.draw(count)]
    assert [row["id"] for row in rows] == ORDER
    assert all(row == {"id": row["id"], "texts": ["a"] * int(row["id"])} for row in rows)


@pytest.mark.parametrize("cursor", [0, 3, 7, 20])
def test_a_stream_continues_from_its_cursor(cursor):
    stream = Stream("user2item", SAMPLES, 0)
    stream.cursor = cursor
    assert [row["id"] for row in stream.draw(28 - cursor)] == ORDER[cursor:]
    stream.cursor = cursor  # back into an epoch that it has left
    assert [row["id"] for row in stream.draw(3)] == ORDER[cursor : cursor + 3]


# --- the data


def test_tasks_and_splits_of_a_dataset(dataset):
    tasks = ["user2item", "query2item", "item2item", "sequential_recommendation"]
    kinds = ["embedding"] * 3 + ["generative"]
    found = task_kinds(dataset)
    assert list(found.items()) == list(zip(tasks, kinds, strict=True))
    for task in tasks:
        files = Path(dataset, "data", task).glob("train-*.parquet")
        assert load_samples(dataset, task, found[task], "train")["id"] == pl.read_parquet(list(files))["id"].to_list()


def test_tasks_are_those_named_in_their_order_or_all(dataset):
    wanted = {"sequential_recommendation": "generative", "user2item": "embedding"}
    assert list(task_kinds(dataset, wanted=list(wanted)).items()) == list(wanted.items())
    has = r"which has item2item, query2item, sequential_recommendation, user2item$"
    with pytest.raises(UsageError, match=rf"task 'query_rewriting' is not in .*, {has}"):
        task_kinds(dataset, wanted=["user2item", "query_rewriting"])


def test_known_positives_of_the_catalogues_tasks_are_the_judgements(dataset):
    judged = known_positives(load_split(dataset, "qrels", "train").to_polars())
    samples = {"query2item": load_split(dataset, "query2item", "train")}
    assert training_positives(dataset, samples) == judged
    assert training_positives(dataset, {}) == {}


def refusal(action, kind=RecfoundError) -> str:
    """The message of an error of the project, which must be one line."""
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500, message
    return message


def test_data_that_cannot_be_read_is_refused_in_one_line(dataset, tmp_path):
    missing, empty = str(tmp_path / "nowhere"), tmp_path / "empty"
    assert "nowhere: no such dataset folder" in refusal(lambda: task_kinds(missing))
    empty.mkdir()
    assert f"{empty}: is no dataset that can be read" in refusal(lambda: task_kinds(str(empty)))
    (empty / "notes.txt").write_text("words\n")
    assert f"{empty}: has no task; its configurations are default" in refusal(lambda: task_kinds(str(empty)))
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
