import json

import pytest
import torch
from peft import PeftModel
from tiny_models import base_model, batch, config, randomize

from recfound_data.errors import RecfoundError
from recfound_data.tasks.catalogue import TASKS
from recfound_model import add_tmole, collapse, load_tmole, task_context
from recfound_model.adapter_files import Factors
from recfound_model.collapsing import task_weights
from recfound_model.routing import UnknownTaskError, gates


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collapse") / "adapter"
    model = randomize(
        add_tmole(base_model(), config(tasks=list(TASKS), base_model_name_or_path="acme/base", revision="v3"))
    )
    model.save_pretrained(folder)
    return folder


def test_task_weights_equal_the_sum_over_experts():
    r, experts, scale = 3, 4, 2.5
    A, B = torch.randn(experts * r, 7), torch.randn(5, experts * r)
    R, b, z = torch.randn(experts, 6), torch.randn(experts), torch.randn(6)
    lora_a, lora_b = task_weights(Factors(A, B, R, b), z, r, scale)
    g = gates(R, b, z[None])[0]
    update = sum(scale * g[e] * B[:, e * r : (e + 1) * r] @ A[e * r : (e + 1) * r] for e in range(experts))
    torch.testing.assert_close(lora_b @ lora_a, update, rtol=1e-5, atol=1e-5)
    assert torch.equal(lora_a, A)


@pytest.mark.parametrize("task", list(TASKS))
def test_collapsed_equals_native(adapter, tmp_path, task):
    collapse(adapter, task, tmp_path / "lora")
    native, tokens = load_tmole(base_model(), adapter), batch()
    stock = PeftModel.from_pretrained(base_model(), str(tmp_path / "lora")).eval()
    causal = TASKS[task].kind == "generative"
    with torch.no_grad():
        with task_context(native, task):
            expected = native(tokens, is_causal=causal).logits
        found = stock(tokens, is_causal=causal).logits
        assert (found - expected).abs().max() <= 1e-5
        assert (expected - base_model()(tokens, is_causal=causal).logits).abs().max() > 0.1


def test_tasks_collapse_to_different_adapters(adapter, tmp_path):
    written = set()
    for task in TASKS:
        collapse(adapter, task, tmp_path / task)
        written.add((tmp_path / task / "adapter_model.safetensors").read_bytes())
    assert len(written) == len(TASKS)


def test_folder_is_standard_and_deterministic(adapter, tmp_path):
    collapse(adapter, "query2item", tmp_path / "one")
    collapse(adapter, "query2item", tmp_path / "two")
    collapse(adapter, "query2item", tmp_path / "two")  # replaces what it wrote
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    settings = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA"
    assert settings["r"] == settings["lora_alpha"] == 4 * 4
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("acme/base", "v3")
    assert settings["target_modules"] == sorted(settings["target_modules"])


def test_all_linear_targets_collapse_to_the_same_modules(tmp_path):
    native = randomize(add_tmole(base_model(), config(target_modules="all-linear")))
    native.save_pretrained(tmp_path / "adapter")
    collapse(tmp_path / "adapter", "sentiment_analysis", tmp_path / "lora")
    stock, tokens = PeftModel.from_pretrained(base_model(), str(tmp_path / "lora")).eval(), batch()
    with torch.no_grad(), task_context(native, "sentiment_analysis"):
        assert (stock(tokens).logits - native(tokens).logits).abs().max() <= 1e-4


def test_refusals(adapter, tmp_path):
    with pytest.raises(UnknownTaskError, match="did you mean 'user2item'"):
        collapse(adapter, "user2itm", tmp_path / "out")
    with pytest.raises(RecfoundError, match="holds files that do not belong"):
        collapse(adapter, "user2item", adapter)
    assert not (tmp_path / "out").exists()
    load_tmole(base_model(), adapter)
