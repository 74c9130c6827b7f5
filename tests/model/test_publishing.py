"""What is pushed to a hub is what stock libraries load from it, in a process that cannot import this project."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from hub import LoopbackHub
from peft import PeftModel
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM

from recfound_data.cli import main
from recfound_data.errors import RecfoundError
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
    base = AutoModelForCausalLM.from_pretrained(plan["base"])
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


@pytest.fixture
def client(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path) -> LoopbackHub:
    """Point this process at the hub, without Xet, without this machine's login and without waits between attempts."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
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
    for name, folder in folders.items():
        assert main(["model", "push", str(folder), "--repo", f"acme/{name}", "--version", "0.1.0"]) == 0
        held = client.repository("model", f"acme/{name}").find("v0.1.0").files
        pushed = {path: blob.data for path, blob in held.items() if path != ".gitattributes"}
        local = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert pushed == local

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


def test_a_folder_that_is_no_model_is_refused(client, tmp_path, run):
    for folder in (tmp_path, tmp_path / "nowhere", run):
        with pytest.raises(RecfoundError, match="is no model folder: it has none of"):
            push_model(folder, "acme/model", "0.1.0")
    assert client.log == []


def test_a_dry_run_changes_nothing(client, folders, capsys):
    arguments = ["model", "push", str(folders["lora"]), "--repo", "acme/lora", "--version", "0.1.0", "--dry-run"]
    assert main([*arguments, "--json"]) == 0
    release = json.loads(capsys.readouterr().out)
    assert release["dry_run"] and release["repo_type"] == "model"
    assert sorted(release["uploaded"]) == sorted(path.name for path in folders["lora"].iterdir())
    assert client.repositories == {}
