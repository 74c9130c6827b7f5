"""The users' guide: its code, as it stands, against a hub, in a process that cannot import this project."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hub import LoopbackHub
from tiny_models import base_model, config, randomize, tokenizer

from recfound_data.tasks import sentiment_analysis, sequential_recommendation
from recfound_model import add_tmole, export_embedder, export_generator, load_tmole, task_context
from recfound_model.publishing import push_model
from recfound_model.templates import task_prompts

PAGE = (Path(__file__).parents[2] / "docs" / "using.md").read_text(encoding="utf-8")
EMBEDDING, GENERATIVE = ["user2item", "query2item", "item2item"], ["sentiment_analysis", "sequential_recommendation"]
ROOM = {"max_position_embeddings": 1024}

BEFORE = """
import json, sys
sys.modules["recfound_data"] = sys.modules["recfound_model"] = None  # from here on, importing either fails
told = []
"""
AFTER = """
assert not [name for name, module in sys.modules.items() if name.startswith("recfound") and module]
vectors = {task: rows.tolist() for task, rows in items.items()}
print(json.dumps({"catalogue": catalogue, "items": vectors, "told": told, "sentiment": sentiment, "letter": letter}))
"""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("using")
    base_model(**ROOM).save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    prompts = {task: task_prompts(task) for task in EMBEDDING}
    settings = config(tasks=EMBEDDING + GENERATIVE, prompts=prompts, base_model_name_or_path=str(folder / "base"))
    randomize(add_tmole(base_model(**ROOM), settings)).save_pretrained(folder / "adapter")
    return folder / "adapter"


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


def python(page):
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def native_vectors(native, task, side, texts):
    """Mean over the tokens after the prompt, bidirectional attention, L2-normalised; one text at a time."""
    prompt = task_prompts(task)[side]
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer()(prompt + text).input_ids])
        with torch.no_grad(), task_context(native, task):
            hidden = native.get_decoder()(input_ids=ids, is_causal=False).last_hidden_state
        own = hidden[0, len(tokenizer()(prompt).input_ids) :].mean(0)
        rows.append(torch.nn.functional.normalize(own, dim=0))
    return torch.stack(rows).numpy()


def native_answer(native, task, prompt):
    chat = [{"role": "user", "content": prompt}]
    inputs = tokenizer().apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad(), task_context(native, task):
        written = native.generate(**inputs, max_new_tokens=8, do_sample=False)
    return tokenizer().decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_the_guide_gives_what_the_adapter_gives(adapter, client, tmp_path):
    client.organisation = "org"
    export_embedder(adapter, tmp_path / "embedder", layout="router")
    export_generator(adapter, tmp_path / "generator", layout="adapters")
    for kind in ("embedder", "generator"):
        push_model(tmp_path / kind, f"org/recfound-{kind}", "0.1.0")
    # What a reader sees in a notebook, this test sees in a list.
    code = re.sub(
        r"^(recommend\(.*\)(\[1:\])?)(?=  #|$)", r"told.append(\1)", "\n".join(python(PAGE)), flags=re.MULTILINE
    )
    assert code.count("told.append(") == 3
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEFORE + code + AFTER],
        env=client.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    native, catalogue = load_tmole(base_model(**ROOM), adapter), found["catalogue"]
    asked = re.findall(r'^recommend\("(\w+)", (.+?)(?:, count=3)?\)', "\n".join(python(PAGE)), flags=re.MULTILINE)
    for (task, text), told in zip(asked, found["told"], strict=True):
        text = catalogue[0] if text == "catalogue[0]" else json.loads(text)
        items = native_vectors(native, task, "document", catalogue)
        assert (items * np.array(found["items"][task])).sum(-1).min() >= 0.9999
        scores = (native_vectors(native, task, "query", [text]) @ items.T)[0]
        order = np.argsort(-scores)[:2] if task != "item2item" else np.argsort(-scores)[1:3]
        assert [title for title, _ in told] == [catalogue[at].splitlines()[0] for at in order]
        np.testing.assert_allclose([score for _, score in told], scores[order], atol=1e-4)
    prompts = dict(re.findall(r'ask\(\s*"(\w+)",\s*"""(.+?)""",?\s*\)', PAGE, flags=re.DOTALL))
    assert sorted(prompts) == sorted(GENERATIVE)
    assert found["sentiment"] == native_answer(native, "sentiment_analysis", prompts["sentiment_analysis"])
    assert found["letter"] == native_answer(native, "sequential_recommendation", prompts["sequential_recommendation"])


def test_the_guide_is_ten_lines_long():
    first = python(PAGE)[0]
    without_data = re.sub(r"catalogue = \[\n.*?^\]\n", "catalogue = [...]\n", first, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in without_data.splitlines() if line and not line.startswith("from ")]
    assert len(lines) <= 10 and lines[0] == 'model = SentenceTransformer("org/recfound-embedder")'


def test_the_guide_says_what_the_tasks_say():
    for module, labels in ((sentiment_analysis, sentiment_analysis.LABELS), (sequential_recommendation, ())):
        prompt = re.search(rf'ask\(\s*"{module.TASK}",\s*"""(.+?)""",?\s*\)', PAGE, flags=re.DOTALL)[1]
        assert prompt.startswith(module.PHRASINGS[0] + "\n\n")
        assert not labels or f"\n\nOptions: {', '.join(labels)}\n\nItem: " in prompt
