import pytest
import torch
from safetensors.torch import load_file
from tiny_models import adapted_model, base_model, batch, config, randomize

from recfound_data.errors import RecfoundError, UsageError
from recfound_model import TmoleConfig, add_tmole, load_tmole, merge_adapters, task_context


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


def test_merging_an_adapter_with_itself_gives_it_back(runs, tmp_path):
    merge_adapters([runs / "a", runs / "a"], tmp_path / "linear")
    assert_same(tensors(tmp_path / "linear"), tensors(runs / "a"))
    merge_adapters([runs / "a", runs / "a"], tmp_path / "ties", "ties", base=runs / "initial", density=1.0)
    # a is rebuilt as initial + (a - initial), which rounds.
    assert_same(tensors(tmp_path / "ties"), tensors(runs / "a"), rtol=0, atol=1e-6)


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
        ({"method": "slurp"}, "unknown merge method 'slurp': there are linear, ties"),
        ({"weights": [1.0]}, "1 weights were given for 2 adapters"),
        ({"weights": [0.0, 0.0]}, "not all 0"),
        ({"method": "ties", "base": runs / "initial", "density": 0.0}, "density must lie"),
    ):
        with pytest.raises(UsageError, match=message):
            merge_adapters(pair, tmp_path / "out", **arguments)
    with pytest.raises(UsageError, match="two or more"):
        merge_adapters([runs / "a"], tmp_path / "out")
    with pytest.raises(RecfoundError, match=r"holds no adapter_config\.json"):
        merge_adapters([runs / "a", runs], tmp_path / "out")
