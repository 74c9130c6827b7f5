"""Every method that mergekit offers by name, on three adapters of one initialisation."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import base_model, config

from recfound_data.errors import RecfoundError
from recfound_model import add_tmole, merge_adapters
from recfound_model.merging.call import checked_call
from recfound_model.merging.methods import method_named, method_names

RANDOM = ["arcee_fusion", "dare_linear", "dare_ties", "della", "della_linear"]
ITSELF = ["linear", "slerp", "nuslerp", "karcher", "multislerp", "model_stock", "task_arithmetic", "sce"]
"""What gives an adapter back when it is merged with itself, without options."""


@torch.no_grad()
def saved(folder, seed, change, **settings):
    """A descendant of the common initial adapter whose every value moved by about `change`; B of one layer is zero."""
    base = base_model()
    torch.manual_seed(4)
    model = add_tmole(base, config(**settings))
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in model.adapter_tensors().items():
        if ".layers.1." not in key or ".B." not in key:
            tensor.add_(torch.randn(tensor.shape, generator=generator) * change)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("initial", "a", "b", "c")):
        saved(folder / name, seed, 0.1 * (seed > 0))
    return folder


def tensors(folder):
    return load_file(folder / "adapter_model.safetensors")


def inputs(runs, name, adapters="abc"):
    """As many adapters as a method takes, and what else it needs."""
    method = method_named(name)
    given = {"base": runs / "initial"} if method.base == "required" else {}
    if method.required and name != "slerp":
        given["parameters"] = {"t": 0.05}
    return [runs / one for one in adapters[: method.most]], given


def furthest(one, other):
    assert one.keys() == other.keys()
    return max((one[key] - other[key]).abs().max().item() for key in one)


@pytest.mark.parametrize("space", ["factors", "delta"])
@pytest.mark.parametrize("name", method_names())
def test_every_method_gives_a_finite_adapter(runs, tmp_path, name, space):
    adapters, given = inputs(runs, name)
    report = merge_adapters(adapters, tmp_path / "out", name, space=space, **given)
    merged, one = tensors(tmp_path / "out"), tensors(adapters[0])
    assert all(tensor.isfinite().all() for tensor in merged.values())
    assert {key: tensor.shape for key, tensor in merged.items()} == {key: tensor.shape for key, tensor in one.items()}
    assert (report.truncation is None) == (space == "factors")
    # Not the first adapter, nor zero: something was merged.
    if name != "passthrough":
        key = "model.layers.0.self_attn.q_proj.tmole.R.shared"
        assert 0.01 < (merged[key] - one[key]).abs().max() < 5


@pytest.mark.parametrize("change", [0.1, 1e-4])
@pytest.mark.parametrize("name", [*ITSELF, "ties", "arcee_fusion", "nearswap", "passthrough"])
def test_an_adapter_merged_with_itself_is_itself(runs, tmp_path, name, change):
    """Also with a layer whose B is all zero, and where changes are as small as early in a run."""
    place = saved(tmp_path / "a", 1, change)
    _, given = inputs(runs, name)
    most = method_named(name).most or 3
    for copies in {min(2, most), most}:
        density = 1.0 if name == "ties" else None
        merge_adapters([place] * copies, tmp_path / "out", name, density=density, **given)
        # Thirds round, what is rebuilt as initial + (a - initial) does, and so do angles of zero.
        exact = name in ("linear", "slerp", "passthrough", "arcee_fusion", "nearswap") and copies < 3
        assert furthest(tensors(tmp_path / "out"), tensors(place)) <= (0 if exact else 2e-6)


@pytest.mark.parametrize("name", ["multislerp", "nuslerp"])
def test_an_optional_base_is_used_where_it_is_given(runs, tmp_path, name):
    pair = [runs / "a", runs / "b"]
    merge_adapters([pair[0]] * 2, tmp_path / "same", name, base=runs / "initial")
    assert furthest(tensors(tmp_path / "same"), tensors(pair[0])) <= 2e-6
    merge_adapters(pair, tmp_path / "with", name, base=runs / "initial")
    merge_adapters(pair, tmp_path / "without", name)
    assert furthest(tensors(tmp_path / "with"), tensors(tmp_path / "without")) > 1e-3


def test_ties_at_density_one_with_one_adapter_beside_its_base_is_that_adapter(runs, tmp_path):
    merge_adapters([runs / "a"], tmp_path / "out", "ties", base=runs / "initial", density=1.0)
    assert furthest(tensors(tmp_path / "out"), tensors(runs / "a")) <= 1e-6


def test_three_zero_tensors_are_zero_under_multislerp():
    call = checked_call("multislerp", 3, False, None, None, None, 0)
    assert torch.equal(call.merge("b", [torch.zeros(2)] * 3), torch.zeros(2))
    with pytest.raises(RecfoundError, match="multislerp cannot merge b: The weighted sum of the input tensors is zero"):
        call.merge("b", _balanced())


def _balanced():
    """Three directions whose mean is zero."""
    angles = torch.arange(3, dtype=torch.float64) * 2 * torch.pi / 3
    return [torch.stack([angle.cos(), angle.sin()]) for angle in angles]


def test_a_result_that_is_not_finite_is_refused():
    call = checked_call("linear", 2, False, None, None, None, 0)
    with pytest.raises(RecfoundError, match=r"linear gives numbers that are not finite for tmole\.z\.x"):
        call.merge("tmole.z.x", [torch.full((2,), 3e38), torch.full((2,), torch.inf)])


def test_changes_below_mergekits_thresholds_count_as_larger_ones_do():
    """Results scale with changes, though mergekit calls changes of a norm below 1e-3 unrelated."""
    generator = torch.Generator().manual_seed(0)
    base, *changes = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(4))
    changes[1] += changes[0]
    changes[2] = 3 * changes[2] + changes[0]
    for name in ("model_stock", "sce"):
        call = checked_call(name, 3, True, None, None, None, 0)
        large, small = (
            (call.merge("", [*(base + scale * change for change in changes), base]) - base) / scale
            for scale in (1.0, 1e-6)
        )
        torch.testing.assert_close(small, large, rtol=1e-6, atol=1e-8)


def test_slerp_goes_by_the_proportion_of_weights_from_the_first_adapter_to_the_second(runs, tmp_path):
    pair = [runs / "a", runs / "b"]
    merge_adapters(pair, tmp_path / "weights", "slerp", weights=[1, 3])
    merge_adapters(pair, tmp_path / "t", "slerp", parameters={"t": 0.75})
    merge_adapters(pair[:1], tmp_path / "base", "slerp", base=pair[1], parameters={"t": 0.25})
    assert furthest(tensors(tmp_path / "weights"), tensors(tmp_path / "t")) == 0
    assert furthest(tensors(tmp_path / "weights"), tensors(tmp_path / "base")) < 1e-6
    merge_adapters(pair, tmp_path / "first", "slerp", weights=[1, 0])
    assert furthest(tensors(tmp_path / "first"), tensors(pair[0])) < 1e-6


def test_task_arithmetic_averages_changes_unless_weights_say_otherwise(runs, tmp_path):
    adapters, initial = [runs / "a", runs / "b"], tensors(runs / "initial")
    a, b = (tensors(place) for place in adapters)
    merge_adapters(adapters, tmp_path / "mean", "task_arithmetic", base=runs / "initial")
    assert furthest(tensors(tmp_path / "mean"), {key: (a[key] + b[key]) / 2 for key in a}) < 1e-6
    merge_adapters(adapters, tmp_path / "sum", "task_arithmetic", weights=[1, 1], base=runs / "initial")
    assert furthest(tensors(tmp_path / "sum"), {key: a[key] + b[key] - initial[key] for key in a}) < 1e-6


@pytest.mark.parametrize("name", RANDOM)
def test_draws_depend_on_the_seed_and_the_tensor_alone(name):
    """arcee_fusion draws where a tensor is large."""
    assert method_named(name).random
    count = 2 if name == "arcee_fusion" else 3
    shape = (1200, 1000) if name == "arcee_fusion" else (8, 9)
    given = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]
    call, other = (checked_call(name, 2, count == 3, None, None, None, seed) for seed in (0, 1))
    state = torch.get_rng_state()
    first = call.merge("A", given)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    call.merge("B", given)
    assert torch.equal(call.merge("A", given), first)
    assert not torch.equal(call.merge("B", given), first)
    assert not torch.equal(other.merge("A", given), first)


def test_what_draws_is_known(monkeypatch):
    """All other methods leave the random state alone, so that they may run in threads."""
    for name in set(method_names()) - set(RANDOM):
        assert not method_named(name).random
        method = method_named(name)
        count = min(3, method.most or 3)
        parameters = {"t": 0.1} if method.required else None
        call = checked_call(name, count, method.base == "required", None, None, parameters, 0)
        state = torch.get_rng_state()
        size = count + (method.base == "required")
        call.merge("A", [torch.randn(40, 30, generator=torch.Generator().manual_seed(s)) for s in range(size)])
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["della", "della_linear"])
def test_della_takes_experts_of_rank_one_alone_in_their_group(tmp_path, name):
    """Their B has one column and their b one value: rows that mergekit divides by the length of, less one."""
    sizes = {"r": 1, "experts": {"embedding": 1, "shared": 1, "generative": 1}}
    places = [saved(tmp_path / str(seed), seed, 0.1 * seed, **sizes) for seed in range(3)]
    merge_adapters(places[1:], tmp_path / "out", name, base=places[0])
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path / "out").values())


@pytest.mark.parametrize("name", ["linear", "ties", "model_stock", "dare_ties"])
@pytest.mark.parametrize("space", ["factors", "delta"])
def test_results_do_not_depend_on_workers(runs, tmp_path, name, space):
    adapters, given = inputs(runs, name)
    threads = torch.get_num_threads()
    for workers in (1, 2):
        merge_adapters(adapters, tmp_path / str(workers), name, space=space, workers=workers, **given)
    assert torch.get_num_threads() == threads
    for file in (tmp_path / "1").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes()


@pytest.mark.parametrize("name", ["linear", "ties", "della"])
def test_results_do_not_depend_on_groups(runs, tmp_path, name, monkeypatch):
    adapters, given = inputs(runs, name)
    merge_adapters(adapters, tmp_path / "modules", name, **given)
    source = "recfound_model.merging.sources.Source.groups"
    for grouping, groups in (
        ("one", lambda self: [list(self.keys)]),
        ("each", lambda self: [[key] for key in reversed(self.keys)]),
    ):
        monkeypatch.setattr(source, groups)
        merge_adapters(adapters, tmp_path / grouping, name, **given)
        assert furthest(tensors(tmp_path / grouping), tensors(tmp_path / "modules")) == 0
