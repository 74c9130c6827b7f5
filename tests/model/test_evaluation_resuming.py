"""What is encoded or answered once is never computed again: also after a kill, and where tasks encode alike."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from counted_evaluation import counted

from recfound_data.errors import RecfoundError
from recfound_model.evaluation import evaluate
from recfound_model.evaluation.models import open_model
from recfound_model.evaluation.work import AnswerStore, Spent, VectorStore, encoded, fingerprint, routing, working

TASKS = ["user2item", "query2item", "sequential_recommendation"]


def test_a_killed_evaluation_goes_on_and_computes_nothing_twice(run, dataset, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    settings = {"model": str(run / "adapter"), "data": dataset, "tasks": TASKS, "log": str(log)}
    whole = counted(**settings, out=str(tmp_path / "whole"))
    steps = log.read_text().splitlines()
    assert len(set(steps)) == len(steps) > 100
    asked = sum(step.startswith('"sequential') for step in steps)
    batches = -(-(len(steps) - asked) // 40)
    log.unlink()
    child = [sys.executable, str(Path(__file__).with_name("counted_evaluation.py"))]
    for kill_at in (3, batches + 2):  # among the vectors; after three batches less, among the answers
        arguments = json.dumps({**settings, "out": str(out), "kill_at": kill_at})
        killed = subprocess.run([*child, arguments], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (out / "results.json").exists()
    last = log.read_text().splitlines()[-1]
    assert last.startswith('"sequential') and list(out.rglob("*.jsonl"))
    found = counted(**settings, out=str(out))
    # A kill loses the batch that was being computed, and nothing else.
    done = log.read_text().splitlines()
    assert set(done) == set(steps) and 0 < len(done) - len(steps) <= 40 + 5
    for task in TASKS:
        for name in whole.results[task].metrics:
            one, other = (evaluation.results[task].scores[name] for evaluation in (whole, found))
            assert (one - other).abs().max() < 1e-6
    log.unlink()
    again = counted(**settings, out=str(out))
    assert not log.exists()
    assert set(again.facts["spent"]) == set(TASKS)
    assert all(one["texts"] == one["prompts"] == 0 for one in again.facts["spent"].values())


class Counting:
    """Calls `encode` of a model and counts the texts."""

    def __init__(self, model):
        self.model, self.texts, self.whole = model, [], model.encode
        model.encode = self.encode

    def encode(self, task, side, texts):
        self.texts += texts
        return self.whole(task, side, texts)


def test_equal_texts_and_tasks_that_encode_alike_share_vectors(base, run, tmp_path):
    texts = ["red mug", "kettle", "red mug", "shoes"]
    plain, _ = open_model(base)
    counted = Counting(plain)
    first = encoded(tmp_path / "plain", plain, "user2item", "document", texts, Spent()).block(0, 4)
    assert sorted(counted.texts) == ["kettle", "red mug", "shoes"]
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    again = encoded(tmp_path / "plain", plain, "item2item", "document", ["shoes", "mug"], Spent()).block(0, 2)
    assert counted.texts[3:] == ["mug"] and torch.equal(again[0], first[3])
    encoded(tmp_path / "plain", plain, "item2item", "query", ["shoes"], Spent())
    assert counted.texts[4:] == ["shoes"]  # another prompt
    native, _ = open_model(str(run / "adapter"))
    counted = Counting(native)
    for task in ("user2item", "item2item"):
        encoded(tmp_path / "native", native, task, "document", texts, Spent())
    assert len(counted.texts) == 6
    assert routing(plain, "user2item", "document") == routing(plain, "item2item", "document")
    assert routing(native, "user2item", "document") != routing(native, "item2item", "document")


def test_vectors_are_those_of_the_model_in_the_order_of_the_texts(base, tmp_path):
    model, _ = open_model(base)
    texts = ["red mug", "a kettle of two litres", "shoes", "red mug", "x"]
    found = encoded(tmp_path, model, "user2item", "document", texts, spent := Spent())
    assert spent.texts == 4 and len(found) == 5
    torch.testing.assert_close(found.block(0, 9), model.encode("user2item", "document", texts), rtol=0, atol=1e-6)
    assert torch.equal(torch.cat([found.block(0, 2), found.block(2, 2), found.block(4, 2)]), found.block(0, 5))


def test_a_fingerprint_changes_with_whatever_changes_a_vector(base, run, tmp_path):
    plain, _ = open_model(base)
    names = [
        fingerprint(plain),
        fingerprint(open_model(base, max_length=33)[0]),
        fingerprint(open_model(str(run / "adapter"))[0]),
    ]
    assert fingerprint(open_model(base)[0]) == names[0]
    with torch.no_grad():
        next(plain.model.parameters())[0, 0] += 1e-3
    names.append(fingerprint(plain))
    renamed, _ = open_model(base)
    renamed.tokenizer.chat_template += " "
    names.append(fingerprint(renamed))
    assert len(set(names)) == len(names)


def test_torn_ends_are_cut(tmp_path):
    store = VectorStore(tmp_path)
    store.append([b"a" * 16, b"b" * 16], torch.eye(2, 3))
    for tear in (lambda: os.truncate(tmp_path / "keys.bin", 21), lambda: os.truncate(tmp_path / "vectors.f32", 13)):
        tear()
        found = VectorStore(tmp_path)
        assert list(found.places) == [b"a" * 16] and np.array_equal(found.mapped(), torch.eye(1, 3).numpy())
        found.append([b"c" * 16], torch.full((1, 3), 2.0))
        assert VectorStore(tmp_path).mapped().tolist() == [[1, 0, 0], [2, 2, 2]]
        assert VectorStore(tmp_path).places == {b"a" * 16: 0, b"c" * 16: 1}
    answers = AnswerStore(tmp_path / "a.jsonl")
    answers.append([("k", {"text": "ü\n"}), ("l", {"text": ""})])
    os.truncate(tmp_path / "a.jsonl", (tmp_path / "a.jsonl").stat().st_size - 3)
    answers = AnswerStore(tmp_path / "a.jsonl")
    assert answers.found == {"k": {"text": "ü\n"}}
    answers.append([("m", {"text": "x"})])
    assert list(AnswerStore(tmp_path / "a.jsonl").found) == ["k", "m"]


def test_work_of_another_model_goes_and_a_second_process_is_refused(base, dataset, tmp_path):
    out = tmp_path / "out"
    evaluate(base, dataset, out, tasks=["query2item"], most=2)
    (first,) = [path for path in (out / "work").iterdir() if path.is_dir()]
    evaluate(base, dataset, out, tasks=["item2item"], most=2)
    assert first.is_dir()
    evaluate(base, dataset, out, tasks=["query2item"], most=2, max_length=40)
    (second,) = [path for path in (out / "work").iterdir() if path.is_dir()]
    assert second != first
    with working(out / "work"), pytest.raises(RecfoundError, match="another evaluation is writing here"):
        evaluate(base, dataset, out, tasks=["query2item"], most=2)


def test_nothing_is_left_where_no_folder_is_named(base, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    evaluate(base, dataset, tasks=["query2item"], most=2)
    assert not [path for path in Path(tmp_path).iterdir() if path.name.startswith("recfound-")]
