import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import base_model, batch, config, randomize

from recfound_data.cli import main
from recfound_data.errors import RecfoundError
from recfound_data.tasks.catalogue import TASKS
from recfound_model import add_tmole, collapse, load_tmole, task_context
from recfound_model.adapter_files import Factors
from recfound_model.collapsing import SERVED_RANKS, collapse_all, padded_weights, served_rank, task_weights
from recfound_model.routing import UnknownTaskError, gates

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
GENERATIVE = [task for task, spec in TASKS.items() if spec.kind == "generative"]


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


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def settings_of(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def test_all_at_once_equals_one_at_a_time(adapter, tmp_path):
    written = collapse_all(adapter, tmp_path / "all")
    assert sorted(written) == sorted(TASKS) and written["user2item"] == tmp_path / "all" / "user2item"
    for task in TASKS:
        collapse(adapter, task, tmp_path / "each" / task)
    assert files(tmp_path / "all") == files(tmp_path / "each")
    some = collapse_all(adapter, tmp_path / "some", ["user2item", "item_profile"])
    assert files(tmp_path / "some") == {
        path: data for path, data in files(tmp_path / "each").items() if path.parts[0] in some
    }
    with pytest.raises(UnknownTaskError, match="did you mean 'item2item'"):
        collapse_all(adapter, tmp_path / "none", ["user2item", "item2itm"])
    assert not (tmp_path / "none").exists()


def test_command_line(adapter, capsys, tmp_path):
    tasks = ["query2item", "answer_generation"]
    options = ["--task", *tasks, "--pad-rank", "--dtype", "bfloat16", "--json"]
    assert main(["model", "collapse", str(adapter), "--out", str(tmp_path / "out"), *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"paths": [str(tmp_path / "out" / task) for task in tasks]}
    collapse_all(adapter, tmp_path / "same", tasks, pad_rank=True, dtype="bfloat16")
    assert files(tmp_path / "out") == files(tmp_path / "same")
    assert main(["model", "collapse", str(adapter), "--out", str(tmp_path / "all")]) == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(TASKS)
    assert main(["model", "collapse", str(adapter), "--out", str(tmp_path / "no"), "--task", "nothing"]) == 2


def test_padding_adds_zeros_and_changes_nothing():
    A, B = torch.randn(6, 7), torch.randn(5, 6)
    lora_a, lora_b = padded_weights(A, B, 8)
    assert lora_a.shape == (8, 7) and lora_b.shape == (5, 8)
    assert torch.equal(lora_a[:6], A) and not lora_a[6:].any()
    assert torch.equal(lora_b[:, :6], B) and not lora_b[:, 6:].any()
    assert [served_rank(rank) for rank in (1, 2, 8, 9, 48, 64, 65, 257, 512)] == [1, 8, 8, 16, 64, 64, 128, 320, 512]
    with pytest.raises(RecfoundError, match="rank 513, and engines serve 512 at most"):
        served_rank(513)


def test_padded_rank_is_one_that_engines_serve(tmp_path):
    native = randomize(
        add_tmole(base_model(), config(r=5, alpha=3, experts={"embedding": 1, "shared": 1, "generative": 2}))
    )
    native.save_pretrained(tmp_path / "adapter")
    tokens = batch()
    for task, rank, padded in (("query2item", 10, 16), ("sentiment_analysis", 15, 16)):
        collapse(tmp_path / "adapter", task, tmp_path / task)
        collapse(tmp_path / "adapter", task, tmp_path / "padded" / task, pad_rank=True)
        typed = ["--task", task, "--pad-rank", "--out", str(tmp_path / "typed")]
        assert main(["model", "collapse", str(tmp_path / "adapter"), *typed]) == 0
        assert files(tmp_path / "typed" / task) == files(tmp_path / "padded" / task)
        assert settings_of(tmp_path / task)["r"] == rank
        found = settings_of(tmp_path / "padded" / task)
        assert found["r"] == found["lora_alpha"] == padded and padded in SERVED_RANKS
        assert found | {"r": rank, "lora_alpha": rank} == settings_of(tmp_path / task)
        stock = PeftModel.from_pretrained(base_model(), str(tmp_path / "padded" / task)).eval()
        with torch.no_grad(), task_context(native, task):
            assert (stock(tokens).logits - native(tokens).logits).abs().max() <= 1e-5


def test_dtype_of_the_tensors(adapter, tmp_path):
    collapse(adapter, "item_profile", tmp_path / "exact")
    collapse(adapter, "item_profile", tmp_path / "half", dtype="bfloat16")
    exact, half = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("exact", "half"))
    assert {tensor.dtype for tensor in exact.values()} == {torch.float32}
    assert all(torch.equal(half[key], tensor.to(torch.bfloat16)) for key, tensor in exact.items())
    assert settings_of(tmp_path / "exact") == settings_of(tmp_path / "half")


def test_folder_holds_what_serving_engines_read_and_nothing_that_they_refuse(all_loras):
    assert set(SERVED_RANKS) <= set(map(int, re.findall(r"\d+", re.search(r"is one of ([\d, ]+)", PAGE)[1])))
    for folder in all_loras.values():
        settings = settings_of(folder)
        assert settings["lora_alpha"] == settings["r"] and settings["use_rslora"] is False
        assert settings["use_dora"] is False and settings["modules_to_save"] is None and settings["bias"] == "none"
        for option in ("rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules", "target_parameters"):
            assert not settings[option], option
        held = load_file(folder / "adapter_model.safetensors")
        names = {re.fullmatch(r"base_model\.model\.(.+\.)lora_[AB]\.weight", key)[1] for key in held}
        assert {name.rstrip(".").split(".")[-1] for name in names} == set(settings["target_modules"])
        assert all(tensor.shape[0 if "lora_A" in key else 1] == settings["r"] for key, tensor in held.items())


@pytest.fixture(scope="module")
def all_loras(adapter, tmp_path_factory):
    return collapse_all(adapter, tmp_path_factory.mktemp("loras"))


def test_one_model_holds_all_tasks_and_switches_between_them(adapter, all_loras):
    native, tokens = load_tmole(base_model(), adapter), batch()
    first, *others = TASKS
    stock = PeftModel.from_pretrained(base_model(), str(all_loras[first]), adapter_name=first).eval()
    for task in others:
        stock.load_adapter(str(all_loras[task]), adapter_name=task)
    with torch.no_grad():
        for task in [*reversed(TASKS), first]:
            stock.set_adapter(task)
            causal = TASKS[task].kind == "generative"
            with task_context(native, task):
                expected = native(tokens, is_causal=causal).logits
            assert (stock(tokens, is_causal=causal).logits - expected).abs().max() <= 1e-5
        # One row a task, as engines batch requests for several adapters.
        mixed = stock(batch(rows=len(GENERATIVE)), adapter_names=GENERATIVE).logits
        with task_context(native, GENERATIVE):
            assert (mixed - native(batch(rows=len(GENERATIVE))).logits).abs().max() <= 1e-5
        with stock.disable_adapter():
            assert (stock(tokens).logits - base_model()(tokens).logits).abs().max() <= 1e-6


def test_tasks_can_be_weighted_together(all_loras):
    tokens, weights = batch(), {"item_profile": 0.3, "user_profile": 0.7}
    stock = PeftModel.from_pretrained(base_model(), str(all_loras["item_profile"]), adapter_name="item_profile").eval()
    stock.load_adapter(str(all_loras["user_profile"]), adapter_name="user_profile")
    stock.add_weighted_adapter([*weights], [*weights.values()], "both", combination_type="cat")
    stock.set_adapter("both")
    expected = base_model()
    linears = dict(expected.named_modules())
    for task, weight in weights.items():
        held = load_file(all_loras[task] / "adapter_model.safetensors")
        for key in (key for key in held if key.endswith("lora_A.weight")):
            update = held[key.replace("lora_A", "lora_B")] @ held[key]
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            linears[module].weight.data += weight * update
    with torch.no_grad():
        assert (stock(tokens).logits - expected(tokens).logits).abs().max() <= 1e-4


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
