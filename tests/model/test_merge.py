import errno
import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_models import adapted_model, base_model, batch, config, randomize

from recfound_data.cli import main
from recfound_data.errors import RecfoundError, UsageError
from recfound_model import TmoleConfig, add_tmole, load_tmole, merge_adapters, task_context
from recfound_model.merging.sources import open_sources, read_group


def drawn(**settings):
    base = base_model()
    torch.manual_seed(4)
    return add_tmole(base, config(**settings))


@torch.no_grad()
def trained(seed, **settings):
    """A descendant of the common initial adapter: every tensor has moved."""
    model = drawn(**settings)
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.adapter_tensors().values():
        tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, model in {"initial": drawn(), "a": trained(1), "b": trained(2), "c": trained(3)}.items():
        model.save_pretrained(folder / name)
    return folder


def tensors(folder):
    return load_file(folder / "adapter_model.safetensors")


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], **(tolerance or {"rtol": 0, "atol": 0}))


def slow_ties(initial, others, weights, density):
    """TIES, one value at a time (arXiv 2306.01708, algorithm 1), with weights."""
    changes = [other - initial for other in others]
    for change in changes:
        keep = max(1, int(density * change.numel()))
        change.view(-1)[change.abs().view(-1).argsort(descending=True)[keep:]] = 0
    merged = initial.clone().view(-1)
    for i in range(merged.numel()):
        values = [(w * change.view(-1)[i].item(), w) for w, change in zip(weights, changes, strict=True)]
        sign = 1 if sum(v for v, _ in values) >= 0 else -1
        agreeing = [(v, w) for v, w in values if v * sign > 0]
        if agreeing:
            merged[i] += sum(v for v, _ in agreeing) / sum(w for _, w in agreeing)
    return merged.view_as(initial)


def test_linear_is_the_weighted_mean(runs, tmp_path):
    merge_adapters([runs / "a", runs / "b", runs / "c"], tmp_path / "out", weights=[1, 2, 5])
    a, b, c = (tensors(runs / name) for name in "abc")
    assert_same(tensors(tmp_path / "out"), {k: (a[k] + 2 * b[k] + 5 * c[k]) / 8 for k in a}, rtol=1e-5, atol=1e-6)


def test_ties_equals_the_algorithm_one_value_at_a_time(runs, tmp_path):
    weights = [1.0, 2.0, 0.5]
    merge_adapters([runs / n for n in "abc"], tmp_path / "out", "ties", weights, runs / "initial", density=0.8)
    merged, initial = tensors(tmp_path / "out"), tensors(runs / "initial")
    others = [tensors(runs / n) for n in "abc"]
    for key in ("tmole.z.user2item", "model.layers.0.self_attn.k_proj.tmole.B.shared"):
        expected = slow_ties(initial[key], [other[key] for other in others], weights, 0.8)
        torch.testing.assert_close(merged[key], expected, rtol=1e-5, atol=1e-6)
        assert not torch.equal(merged[key], others[0][key])


def test_merged_adapter_is_an_adapter_like_the_others(runs, tmp_path):
    merge_adapters([runs / "a", runs / "b"], tmp_path / "once", "ties", base=runs / "initial")
    merge_adapters([tmp_path / "once", runs / "c"], tmp_path / "twice")
    assert TmoleConfig.from_pretrained(tmp_path / "twice") == TmoleConfig.from_pretrained(runs / "a")
    assert (tmp_path / "twice" / "README.md").is_file()
    model = load_tmole(base_model(), tmp_path / "twice")
    with torch.no_grad(), task_context(model, "user2item"):
        assert model(batch()).logits.isfinite().all()


def test_merging_is_deterministic(runs, tmp_path):
    for name in ("one", "two"):
        merge_adapters([runs / "a", runs / "b"], tmp_path / name, "ties", base=runs / "initial")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_model_name_or_path": "acme/other"}, "the base model differ .*'acme/other'"),
        ({"revision": "v2"}, "the base model's revision differ"),
        ({"tasks": ["user2item", "item2item", "sentiment_analysis"]}, "the tasks differ"),
        ({"target_modules": ["q_proj"]}, "the target modules differ"),
        ({"r": 2}, r"the rank differ \(r: 4 and 2\)"),
        ({"alpha": 8}, "alpha differ"),
        ({"experts": {"embedding": 1, "shared": 2, "generative": 2}}, "the experts differ"),
        ({"task_dim": 8}, "the size of the task embeddings differ"),
        ({"prompts": {"user2item": {"query": "Q:\n"}}}, "the prompts differ"),
    ],
)
def test_strangers_are_refused_with_the_reason(runs, tmp_path, settings, message):
    drawn(**settings).save_pretrained(tmp_path / "other")
    with pytest.raises(RecfoundError, match=message):
        merge_adapters([runs / "a", tmp_path / "other"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_initialisation_is_refused(runs, tmp_path):
    adapted_model().save_pretrained(tmp_path / "other")
    with pytest.raises(RecfoundError, match="the initialisation differ"):
        merge_adapters([runs / "a", tmp_path / "other"], tmp_path / "out")
    with pytest.raises(RecfoundError, match="the initialisation differ"):
        merge_adapters([runs / "a", runs / "b"], tmp_path / "out", "ties", base=tmp_path / "other")
    unmarked = randomize(drawn())
    unmarked.tmole_config.initialization = None
    unmarked.save_pretrained(tmp_path / "unmarked")
    with pytest.raises(RecfoundError, match="neither records the initialisation"):
        merge_adapters([tmp_path / "unmarked", tmp_path / "unmarked"], tmp_path / "out")


def test_wrong_use_is_refused(runs, tmp_path):
    pair = [runs / "a", runs / "b"]
    for arguments, message in (
        ({"method": "ties"}, "ties merges changes.*as base"),
        ({"base": runs / "initial"}, "linear does not use a base"),
        ({"method": "slurp"}, "unknown merge method 'slurp': there are arcee_fusion, .*, ties"),
        ({"weights": [1.0]}, "1 weights were given for 2 adapters"),
        ({"weights": [0.0, 0.0]}, "not all 0"),
        ({"method": "ties", "base": runs / "initial", "density": 0.0}, "density must lie"),
        ({"method": "karcher", "base": runs / "initial"}, "karcher does not use a base"),
        ({"method": "karcher", "weights": [1, 2]}, "karcher has no weights"),
        ({"density": 0.5}, "linear has no density"),
        ({"method": "karcher", "parameters": {"tool": 1}}, "no parameter 'tool', did you mean 'tol'. it has max_iter"),
        ({"method": "karcher", "parameters": {"max_iter": "many"}}, "karcher: max_iter: 'many': .*integer"),
        ({"method": "nearswap"}, "nearswap needs t"),
        ({"method": "slerp", "base": runs / "initial"}, "slerp merges exactly two adapters, not 3"),
        ({"method": "slerp", "weights": [1, 2], "parameters": {"t": 0.5}}, "weights or t, not both"),
        ({"method": "passthrough"}, "passthrough merges exactly one adapters?, not 2"),
        ({"method": "della", "base": runs / "initial", "density": 0.95}, "della cannot merge any tensor: Epsilon"),
        ({"parameters": {"weight": 1}}, "given by weights"),
        ({"space": "sums"}, "space must be one of factors, delta"),
        ({"rank": 8}, "rank is chosen in delta space"),
        ({"space": "delta", "rank": 0}, "rank must be at least 1"),
        ({"data": "shop"}, "data is what select measures on"),
        ({"select": "luck"}, "select must be validation"),
        ({"method": "slerp", "select": "validation"}, "a soup may be of any"),
        ({"select": "validation"}, "lies in no run's folder"),
    ):
        with pytest.raises(UsageError, match=message):
            merge_adapters(pair, tmp_path / "out", **arguments)
    with pytest.raises(UsageError, match="model_stock merges two or more adapters beside a base, not 1"):
        merge_adapters([runs / "a"], tmp_path / "out", "model_stock", base=runs / "initial")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="two or more"):
        merge_adapters([runs / "a"], tmp_path / "out")
    with pytest.raises(RecfoundError, match=r"holds no adapter_config\.json"):
        merge_adapters([runs / "a", runs], tmp_path / "out")


def test_a_truncated_input_or_a_full_disk_leaves_nothing(runs, tmp_path, monkeypatch):
    file = shutil.copytree(runs / "b", tmp_path / "cut") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RecfoundError, match=r"cut/adapter_model\.safetensors is damaged or incomplete"):
        merge_adapters([runs / "a", tmp_path / "cut"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("recfound_model.adapter_files.save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        merge_adapters([runs / "a", runs / "b"], tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def test_an_input_that_changes_while_it_is_read_is_reported(runs, tmp_path):
    (source,) = open_sources([runs / "a"])
    gone = replace(source, file=tmp_path / "gone")
    with pytest.raises(RecfoundError, match="gone changed while it was read"):
        read_group([gone], gone.keys)


def test_the_report_says_what_was_merged_and_not_where(runs, tmp_path):
    given = [runs / "a", runs / "b"]
    report = merge_adapters(given, tmp_path / "out", "ties", [1, 3], runs / "initial", parameters={"lambda": 0.5})
    written = json.loads((tmp_path / "out" / "merge_report.json").read_text())
    assert str(runs) not in json.dumps(written) and "path" not in written
    hashes = [hashlib.sha256((place / "adapter_model.safetensors").read_bytes()).hexdigest() for place in given]
    assert written["inputs"] == [
        {"name": name, "sha256": sha256, "weight": weight}
        for name, sha256, weight in zip("ab", hashes, (1, 3), strict=True)
    ]
    assert written["base"]["name"] == "initial" and written["parameters"] == {"density": 0.8, "lambda": 0.5}
    assert (written["method"], written["space"], written["rank"], written["seed"]) == ("ties", "factors", 4, None)
    assert str(report) == f"{tmp_path / 'out'}: ties of a (1), b (3), changes since initial, in the space of factors."


def test_the_command_merges_and_finds_the_initial_adapter(runs, tmp_path, capsys):
    for name, step in (("initial", 0), ("a", 10), ("b", 20)):
        shutil.copytree(runs / name, tmp_path / "checkpoints" / f"step-{step:06d}")
    places = [str(tmp_path / "checkpoints" / f"step-{step:06d}") for step in (10, 20)]
    out = ["--out", str(tmp_path / "out")]
    assert main(["model", "merge", *places, "--method", "ties", "--parameter", "lambda=0.5", *out, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["base"]["name"] == "step-000000" and said["parameters"] == {"lambda": 0.5, "density": 0.8}
    assert main(["model", "merge", *places, "--method", "slerp", "--space", "delta", "--rank", "8", *out]) == 0
    assert "Rank 8 an expert loses 0.00% of the merged updates" in capsys.readouterr().out
    assert main(["model", "merge", *places, "--parameter", "lambda", *out]) == 2
    assert "--parameter lambda: expected NAME=VALUE" in capsys.readouterr().err
