"""What is pushed to a hub is what stock libraries load from it, in a process that cannot import this project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub import LoopbackHub
from hub.clients import use_here
from peft import PeftModel
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM

from recfound_data.cli import main
from recfound_data.errors import RecfoundError
from recfound_data.release import release_folder
from recfound_data.release.dataset import DatasetSubject
from recfound_model import collapse
from recfound_model.evaluation import evaluate
from recfound_model.publishing import push_model

EMBEDDING, GENERATIVE = "item2item", "sequential_recommendation"
TEXTS = ["Vintage kettle, 2 litres", "mug", "a long text " * 40]
TOKENS = [[7, 70, 17, 300, 12, 5]]

STOCK = """
import json, sys
sys.modules["recfound_data"] = sys.modules["recfound_model"] = None  # from here on, importing either fails
import torch
from peft import PeftModel
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

plan, outputs = json.loads(sys.argv[1]), {}
at = {"revision": "v0.1.0"}
embedder = SentenceTransformer("acme/embedder", device="cpu", **at)
outputs["query"] = embedder.encode_query(plan["texts"], convert_to_tensor=True)
outputs["document"] = embedder.encode_document(plan["texts"], convert_to_tensor=True)
tokens = torch.tensor(plan["tokens"])
with torch.no_grad():
    outputs["generator"] = AutoModelForCausalLM.from_pretrained("acme/generator", **at)(tokens).logits
    base = AutoModelForCausalLM.from_pretrained("acme/base", **at)
    outputs["lora"] = PeftModel.from_pretrained(base, "acme/lora", **at)(tokens).logits
message = [{"role": "user", "content": "hi"}]
assert AutoTokenizer.from_pretrained("acme/generator", **at).apply_chat_template(message, tokenize=False)
assert not [name for name, module in sys.modules.items() if name.startswith("recfound") and module]
save_file({key: value.contiguous() for key, value in outputs.items()}, plan["outputs"])

# The same repositories, through this project.
del sys.modules["recfound_data"], sys.modules["recfound_model"]
from recfound_data.cli import main
for name in ("adapter", "embedder", "generator"):
    arguments = [f"acme/{name}", "--revision", "v0.1.0", "--data", plan["data"], "--most", "4"]
    assert main(["model", "evaluate", *arguments, "--out", plan["evaluated"] + name]) == 0
assert main(["model", "evaluate", "acme/nothing", "--data", plan["data"]]) == 1
assert main(["model", "evaluate", "acme/adapter", "--revision", "v9.0.0", "--data", plan["data"]]) == 1
"""


def push(folder, repo, version, *more, code=0):
    assert main(["model", "push", str(folder), "--repo", repo, "--version", version, *more]) == code


def released(hub, repo, tag):
    held = hub.repository("model", repo).find(tag).files
    return {path: blob.data for path, blob in held.items() if path != ".gitattributes"}


def local_files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def client(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path) -> LoopbackHub:
    use_here(hub, monkeypatch, tmp_path)
    return hub


@pytest.fixture(scope="module")
def folders(run, tmp_path_factory):
    """Four kinds of model folders, by name."""
    out = tmp_path_factory.mktemp("folders")
    adapter = str(run / "adapter")
    collapse(adapter, GENERATIVE, out / "lora")
    for kind, task in (("embedder", EMBEDDING), ("generator", GENERATIVE)):
        assert main(["model", "export", adapter, "--to", kind, "--task", task, "--out", str(out / kind)]) == 0
    return {"adapter": run / "adapter", **{name: out / name for name in ("lora", "embedder", "generator")}}


def test_stock_libraries_load_from_the_hub_what_was_pushed(client, folders, base, dataset, tmp_path):
    push(base, "acme/base", "0.1.0")
    for name, folder in folders.items():
        push(folder, f"acme/{name}", "0.1.0", "--base", "acme/base@v0.1.0")
        pushed, local = released(client, f"acme/{name}", "v0.1.0"), local_files(folder)
        # Cards, changelog, and what names the base: all else as it lies in the folder.
        made = {"README.md", "CHANGELOG.md", "adapter_config.json", "export_report.json"}
        assert {path: data for path, data in pushed.items() if path not in made} == {
            path: data for path, data in local.items() if path not in made
        }
        for path in made & pushed.keys():
            assert base not in pushed[path].decode()

    plan = {
        "texts": TEXTS,
        "tokens": TOKENS,
        "base": base,
        "data": dataset,
        "outputs": str(tmp_path / "outputs.safetensors"),
        "evaluated": str(tmp_path / "evaluated-"),
    }
    command = [sys.executable, "-W", "ignore", "-c", STOCK, json.dumps(plan)]
    environment = client.environment(tmp_path / "home")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr

    embedder = SentenceTransformer(str(folders["embedder"]), device="cpu")
    with torch.no_grad():
        tokens = torch.tensor(TOKENS)
        fresh = AutoModelForCausalLM.from_pretrained(base)
        untrained = fresh(tokens).logits
        expected = {
            "query": embedder.encode_query(TEXTS, convert_to_tensor=True),
            "document": embedder.encode_document(TEXTS, convert_to_tensor=True),
            "generator": AutoModelForCausalLM.from_pretrained(folders["generator"])(tokens).logits,
            "lora": PeftModel.from_pretrained(fresh, folders["lora"])(tokens).logits,
        }
    found = load_file(plan["outputs"])
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)
    torch.testing.assert_close(found["lora"], found["generator"], rtol=0, atol=1e-4)
    assert (found["lora"] - untrained).abs().max() > 1e-2

    for name, tasks in (("adapter", 4), ("embedder", 1), ("generator", 1)):
        there = json.loads((tmp_path / f"evaluated-{name}" / "results.json").read_text())["tasks"]
        here = evaluate(str(folders[name]), dataset, most=4).to_json()["tasks"]
        assert there == here and len(there) == tasks


def test_a_folder_with_pickled_weights_is_refused(folders, client, capsys, tmp_path):
    for place in ("pytorch_model.bin", "0_Transformer/model.pt", "optimizer.pth", "notes.pkl", "last.ckpt"):
        folder = tmp_path / place.replace("/", "-")
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(b"\x80\x04.")
        (folder / "config.json").write_text("{}")
        assert main(["model", "push", str(folder), "--repo", "acme/generator", "--version", "0.1.0"]) == 1
        said = capsys.readouterr().err.strip()
        assert f"holds {place.split('/')[-1]}, which may be pickled code" in said and "\n" not in said
    assert client.log == []


def test_a_folder_that_is_no_model_is_refused(client, tmp_path, run, folders):
    for folder in (tmp_path, tmp_path / "nowhere", run / "plots"):
        with pytest.raises(RecfoundError, match="is no model folder: it has none of"):
            push_model(folder, "acme/model", "0.1.0")
    with pytest.raises(RecfoundError, match="holds 1 models, and a repository holds one: push each by itself"):
        push_model(run, "acme/model", "0.1.0")
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    with pytest.raises(RecfoundError, match=r"is a checkpoint.*--method passthrough"):
        push_model(checkpoint, "acme/model", "0.1.0")
    with pytest.raises(RecfoundError, match="names its base by a folder of this machine"):
        push_model(folders["adapter"], "acme/model", "0.1.0")
    assert client.log == []


def test_a_checkpoint_becomes_an_adapter_that_can_be_released(client, run, base, tmp_path):
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    merge = ["model", "merge", str(checkpoint), "--method", "passthrough", "--out", str(tmp_path / "adapter")]
    assert main(merge) == 0
    push(base, "acme/base", "0.1.0")
    push(tmp_path / "adapter", "acme/adapter", "0.1.0", "--base", "acme/base@v0.1.0")
    assert not [path for path in released(client, "acme/adapter", "v0.1.0") if "optimizer" in path or "state" in path]


def test_releases_are_linked_with_what_they_were_made_of(client, folders, base, dataset, monkeypatch, tmp_path):
    push(base, "acme/base", "0.1.0")
    manifest = json.loads((Path(dataset) / "recfound.json").read_text())
    # Past the refusals of `push_dataset`: this one was built without a user key.
    release_folder(Path(dataset), "acme/shop", repo_type="dataset", version="1.2.0", subject=DatasetSubject())
    made_of = ["--base", "acme/base@v0.1.0", "--data", "acme/shop@v1.2.0"]
    push(folders["adapter"], "acme/adapter", "0.1.0", *made_of)
    measured = tmp_path / "evaluation"
    evaluate(str(folders["embedder"]), dataset, measured, most=4)
    links = [*made_of, "--adapter", "acme/adapter@v0.1.0", "--related", "acme/generator"]
    push(folders["embedder"], "acme/embedder", "0.1.0", *links, "--evaluation", str(measured))
    files = released(client, "acme/embedder", "v0.1.0")
    card = files["README.md"].decode()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == "acme/base" and header["datasets"] == ["acme/shop"]
    assert header["license"] == "other" and header["license_name"] == "base-and-corpora"
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"]["config"] == EMBEDDING and result["dataset"]["revision"] == "v1.2.0"
    assert {metric["type"] for metric in result["metrics"]} >= {"mrr@20", "ndcg@20"}
    for words in ("at `v1.2.0`", "[acme/adapter]", "[acme/generator]", 'name, revision = "acme/embedder", "v0.1.0"'):
        assert words in card, words
    for label in manifest["corpora"]:
        assert f"| {label} |" in card
    assert json.loads(files["export_report.json"])["base_model"] == "acme/base"
    # The client had the hub validate the header before it committed.
    assert any(entry.path == "/api/validate-yaml" for entry in client.log)


def test_a_link_to_something_else_is_refused(client, folders, base, dataset, tmp_path, capsys):
    push(base, "acme/base", "0.1.0")
    push(folders["adapter"], "acme/adapter", "0.1.0", "--base", "acme/base@v0.1.0")
    push(folders["generator"], "acme/other", "0.1.0")
    capsys.readouterr()
    for arguments, words in (
        (["--base", "acme/other@v0.1.0"], "acme/other@v0.1.0: is not the base"),
        (["--base", "acme/nothing"], "acme/nothing: cannot be looked up on the Hub: there is none"),
        (["--base", "base"], "'base' is no repository"),
        (["--base", "acme/base@v0.1.0", "--data", "acme/other"], "dataset acme/other: cannot be looked up"),
        (["--base", "acme/base@v0.1.0", "--adapter", "acme/adapter@v0.1.0"], "is no export of an adapter"),
    ):
        push(folders["adapter"], "acme/new", "0.1.0", *arguments, code=2 if "no " in words[:30] else 1)
        said = capsys.readouterr().err.strip()
        assert words in said and "\n" not in said, said
    push(folders["embedder"], "acme/new", "0.1.0", "--adapter", "acme/other@v0.1.0", code=1)
    assert "is not the adapter that" in capsys.readouterr().err
    assert ("models", "acme/new") not in client.repositories


def test_versions_follow_what_changed(client, folders, base, run, tmp_path, capsys):
    push(base, "acme/base", "0.1.0")
    at = ["--base", "acme/base@v0.1.0"]
    push(folders["adapter"], "acme/adapter", "1.0.0", *at)
    push(folders["adapter"], "acme/adapter", "1.0.1", *at, "--notes", "A better card.")  # nothing but the card
    first = sorted((run / "checkpoints").iterdir())[0]
    assert main(["model", "merge", str(first), "--method", "passthrough", "--out", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    push(tmp_path / "other", "acme/adapter", "1.0.2", *at, code=1)
    assert "too small a step from v1.0.1 for a minor change: other weights" in capsys.readouterr().err
    push(tmp_path / "other", "acme/adapter", "1.1.0", *at)
    push(folders["lora"], "acme/adapter", "1.2.0", *at, code=1)
    assert "for a major change: kind: adapter → lora" in capsys.readouterr().err
    log = released(client, "acme/adapter", "v1.1.0")["CHANGELOG.md"].decode()
    assert [line for line in log.splitlines() if line.startswith("## ")] == ["## v1.1.0", "## v1.0.1", "## v1.0.0"]
    assert "A better card." in log and "- other weights (minor)" in log


def test_a_dry_run_changes_nothing(client, folders, capsys):
    push(folders["lora"], "acme/lora", "0.1.0", "--dry-run", "--json")
    release = json.loads(capsys.readouterr().out)
    assert release["dry_run"] and release["repo_type"] == "model"
    own = {path.name for path in folders["lora"].iterdir()}
    assert set(release["uploaded"]) == own | {"README.md", "CHANGELOG.md"}
    assert client.repositories == {}
