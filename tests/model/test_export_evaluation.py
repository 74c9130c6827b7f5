"""The same model through its adapter and through every layout of its export gives the same table."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from recfound_data.cli import main
from recfound_data.errors import RecfoundError
from recfound_model.evaluation import evaluate
from recfound_model.evaluation.models import open_model

EMBEDDING, GENERATIVE = ["user2item", "query2item", "item2item"], "sequential_recommendation"
FEW = 5


@pytest.fixture(scope="module")
def exported(run, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("layouts")
    for to, layout in (("embedder", "router"), ("embedder", "adapters"), ("generator", "adapters")):
        options = ["--to", to, "--layout", layout, "--data", dataset, "--out", str(out / f"{to}-{layout}")]
        assert main(["model", "export", str(run / "adapter"), *options]) == 0
    return out


def results(model, dataset):
    return evaluate(str(model), dataset, tasks=[*EMBEDDING, GENERATIVE] if model.name == "adapter" else None, most=FEW)


def test_every_layout_gives_the_table_of_the_adapter(run, dataset, exported):
    native = results(run / "adapter", dataset).results
    layouts = {"embedder-router": EMBEDDING, "embedder-adapters": EMBEDDING, "generator-adapters": [GENERATIVE]}
    for name, tasks in layouts.items():
        found = results(exported / name, dataset).results
        assert set(found) == set(tasks)
        for task, result in found.items():
            scores, wanted = (each.scores.sort("query_id", "corpus") for each in (result, native[task]))
            assert scores.select("query_id", "corpus").equals(wanted.select("query_id", "corpus"))
            assert result.metrics
            for metric in result.metrics:
                assert (scores[metric] - wanted[metric]).abs().mean() < 2e-3, (name, task, metric)


@pytest.mark.parametrize("name", ["embedder-router", "embedder-adapters"])
def test_texts_are_encoded_for_their_task_and_side(run, exported, name):
    native, _ = open_model(str(run / "adapter"))
    found, tasks = open_model(str(exported / name))
    assert set(tasks) == set(EMBEDDING)
    texts = ["Vintage kettle, 2 litres", "mug"]
    for task in EMBEDDING:
        for side in ("query", "document"):
            expected = native.encode(task, side, texts)
            torch.testing.assert_close(found.encode(task, side, texts), expected, atol=1e-4, rtol=0)


def test_a_report_that_names_no_tasks_is_refused_in_one_line(exported, tmp_path):
    folder = tmp_path / "older"
    folder.mkdir()
    (folder / "export_report.json").write_text(json.dumps({"task": "user2item"}))
    with pytest.raises(RecfoundError, match="names no tasks and layout"):
        open_model(str(folder))


def test_the_base_of_the_adapters_layout_is_the_base(base, exported):
    written, original = (load_file(f"{folder}/model.safetensors") for folder in (exported / "generator-adapters", base))
    assert set(written) == set(original)
    assert all(torch.equal(written[key], original[key]) for key in original)


FROM_HUB = """
import json, sys
sys.modules["recfound_data"] = sys.modules["recfound_model"] = None  # from here on, importing either fails
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

plan, at, outputs = json.loads(sys.argv[1]), {"revision": "v0.1.0"}, {}
router = SentenceTransformer("acme/embedder-router", device="cpu", **at)
lora = SentenceTransformer("acme/embedder-adapters", device="cpu", **at)
for task in plan["tasks"]:
    lora.load_adapter("acme/embedder-adapters", adapter_name=task, adapter_kwargs={"subfolder": task, **at})
for task in plan["tasks"]:
    lora.set_adapter(task)
    outputs["router." + task] = router.encode(plan["texts"], task=task, convert_to_tensor=True)
    outputs["adapters." + task] = lora.encode(plan["texts"], prompt_name=task, convert_to_tensor=True)
save_file(outputs, plan["outputs"])
"""


def test_stock_libraries_load_the_layouts_from_the_hub(hub, run, exported, tmp_path):
    environment = hub.environment(tmp_path / "home")
    pushing = [[str(exported / name), "--repo", f"acme/{name}"] for name in ("embedder-router", "embedder-adapters")]
    push = "import sys; from recfound_data.cli import main; sys.exit(main(sys.argv[1:]))"
    for arguments in pushing:
        command = [sys.executable, "-c", push, "model", "push", *arguments, "--version", "0.1.0"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    texts = ["Vintage kettle, 2 litres", "mug"]
    plan = {"tasks": EMBEDDING, "texts": texts, "outputs": str(tmp_path / "outputs.safetensors")}
    command = [sys.executable, "-W", "ignore", "-c", FROM_HUB, json.dumps(plan)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    native, _ = open_model(str(run / "adapter"))
    for name, found in load_file(plan["outputs"]).items():
        expected = native.encode(name.split(".")[1], "query", texts)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0, msg=name)
