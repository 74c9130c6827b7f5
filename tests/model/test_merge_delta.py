"""Delta space: products of factors are merged, and cut back to a rank by their singular values."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import base_model, batch, config, randomize

from recfound_data.errors import RecfoundError
from recfound_model import TmoleConfig, add_tmole, load_tmole, merge_adapters, task_context
from recfound_model.adapter_files import factor_key
from recfound_model.merging.methods import method_named
from recfound_model.merging.products import merge_dense, merge_in_basis

R = 4
GROUPS = ("embedding", "shared", "generative")


@torch.no_grad()
def saved(folder, seed):
    base = base_model()
    torch.manual_seed(4)
    model = add_tmole(base, config())
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.adapter_tensors().values():
        tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1 * (seed > 0))
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("initial", "a", "b", "c")):
        saved(folder / name, seed)
    return folder


def products(folder):
    """(module, group, expert) -> scale * B A, in float64."""
    tensors, settings = load_file(folder / "adapter_model.safetensors"), TmoleConfig.from_pretrained(folder)
    found = {}
    for module in sorted({key.split(".tmole.")[0] for key in tensors if ".tmole.A." in key}):
        for group in GROUPS:
            As = tensors[factor_key(module, "A", group)].double().split(settings.r)
            Bs = tensors[factor_key(module, "B", group)].double().split(settings.r, dim=1)
            for expert, (A, B) in enumerate(zip(As, Bs, strict=True)):
                found[module, group, expert] = settings.scale * B @ A
    return found


def test_linear_at_full_rank_is_the_average_of_the_products(runs, tmp_path):
    report = merge_adapters([runs / n for n in "abc"], tmp_path / "out", weights=[1, 2, 5], space="delta", rank=3 * R)
    merged = products(tmp_path / "out")
    a, b, c = (products(runs / name) for name in "abc")
    for key in a:
        torch.testing.assert_close(merged[key], (a[key] + 2 * b[key] + 5 * c[key]) / 8, rtol=0, atol=1e-6)
    assert report.rank == 3 * R and report.truncation.total < 1e-7


@pytest.mark.parametrize("rank", [None, 1, 3, 6, 40])
def test_linear_is_the_best_approximation_of_the_average(runs, tmp_path, rank):
    """Also where alpha is no whole number at the rank, and where the rank is larger than the layer."""
    report = merge_adapters([runs / "a", runs / "b"], tmp_path / "out", space="delta", rank=rank)
    merged, a, b = (products(place) for place in (tmp_path / "out", runs / "a", runs / "b"))
    lost = whole = 0.0
    layers = {}
    for key, found in merged.items():
        mean = (a[key] + b[key]) / 2
        U, S, Vh = torch.linalg.svd(mean, full_matrices=False)
        best = (U[:, : report.rank] * S[: report.rank]) @ Vh[: report.rank]
        torch.testing.assert_close(found, best, rtol=0, atol=1e-6)
        ours, all_of_it = (mean - found).square().sum().item(), mean.square().sum().item()
        lost, whole = lost + ours, whole + all_of_it
        layer = layers.setdefault(key[0], [0.0, 0.0])
        layer[0], layer[1] = layer[0] + ours, layer[1] + all_of_it
    assert report.rank == (rank or R)
    assert report.truncation.total == pytest.approx((lost / whole) ** 0.5, rel=1e-4, abs=1e-6)
    if report.rank < 8:
        worst = max(layers, key=lambda name: layers[name][0] / layers[name][1])
        assert report.truncation.module == worst
        assert report.truncation.worst == pytest.approx((layers[worst][0] / layers[worst][1]) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters", "base"),
    [
        ("slerp", {"t": 0.3}, False),
        ("nuslerp", {}, False),
        ("nuslerp", {}, True),
        ("karcher", {}, False),
        ("multislerp", {}, True),
        ("model_stock", {}, True),
        ("task_arithmetic", {"lambda": 0.7}, True),
        ("linear", {"normalize": False}, False),
    ],
)
def test_the_small_basis_gives_what_dense_products_give(runs, tmp_path, monkeypatch, name, parameters, base):
    given = {"space": "delta", "parameters": parameters, "rank": 3 * R}
    given |= {"base": runs / "initial"} if base else {}
    merge_adapters([runs / "a", runs / "b"], tmp_path / "basis", name, **given)
    monkeypatch.setattr("recfound_model.merging.spaces.merge_in_basis", merge_dense)
    merge_adapters([runs / "a", runs / "b"], tmp_path / "dense", name, **given)
    one, other = products(tmp_path / "basis"), products(tmp_path / "dense")
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=2e-5)


def test_methods_that_look_at_single_values_see_dense_products():
    for name in ("ties", "dare_ties", "breadcrumbs", "della", "sce", "nearswap", "ram", "arcee_fusion"):
        assert not method_named(name).isometric({})
    assert not method_named("nuslerp").isometric({"nuslerp_flatten": False})
    assert not method_named("model_stock").isometric({"filter_wise": True})
    assert method_named("nuslerp").isometric({}) and method_named("model_stock").isometric({"filter_wise": False})


def test_an_adapter_merged_with_itself_computes_the_same(runs, tmp_path):
    merge_adapters([runs / "a"] * 2, tmp_path / "out", space="delta")
    one, other = (load_tmole(base_model(), place) for place in (runs / "a", tmp_path / "out"))
    for task in ("user2item", "sentiment_analysis"):
        with torch.no_grad(), task_context(one, task), task_context(other, task):
            torch.testing.assert_close(other(batch()).logits, one(batch()).logits, rtol=1e-4, atol=1e-4)


def test_scale_is_kept_at_any_rank(runs, tmp_path):
    for rank, alpha in ((8, 32), (3, 12), (5, 20)):
        merge_adapters([runs / "a"] * 2, tmp_path / str(rank), space="delta", rank=rank)
        assert TmoleConfig.from_pretrained(tmp_path / str(rank)).alpha == alpha
    one, other = products(runs / "a"), products(tmp_path / "8")
    for key in one:
        torch.testing.assert_close(other[key], one[key], rtol=0, atol=1e-6)


def test_b_takes_over_what_a_whole_alpha_cannot_hold(tmp_path):
    """alpha 10 at rank 4 is 2.5 at rank 1."""
    base = base_model()
    model = randomize(add_tmole(base, config(alpha=10)))
    model.save_pretrained(tmp_path / "a")
    merge_adapters([tmp_path / "a"] * 2, tmp_path / "out", space="delta", rank=1)
    assert TmoleConfig.from_pretrained(tmp_path / "out").alpha == 2
    one, other = products(tmp_path / "a"), products(tmp_path / "out")
    for key in one:
        first = torch.linalg.matrix_norm(one[key], 2)
        torch.testing.assert_close(torch.linalg.matrix_norm(other[key], 2), first, rtol=1e-5, atol=1e-6)


def test_the_split_is_even_and_its_signs_are_fixed():
    torch.manual_seed(0)
    As, Bs = [torch.randn(3, 10) for _ in range(2)], [torch.randn(8, 3) for _ in range(2)]

    def mean(cores):
        return sum(cores) / len(cores)

    small, dense = merge_in_basis(As, Bs, mean, 3), merge_dense(As, Bs, mean, 3)
    torch.testing.assert_close(small.A, dense.A, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small.B, dense.B, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small.A.norm(dim=1), small.B.norm(dim=0))
    assert (small.B.gather(0, small.B.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_its_factors_merge_with_nothing_but_their_own_descendants(runs, tmp_path):
    """They are in bases of their own, whatever the adapter descends from."""
    merge_adapters([runs / "a", runs / "b"], tmp_path / "out", space="delta")
    with pytest.raises(RecfoundError, match="the initialisation differ"):
        merge_adapters([tmp_path / "out", runs / "c"], tmp_path / "again")
    merge_adapters([tmp_path / "out"] * 2, tmp_path / "again")


def test_strangers_are_refused_in_delta_space_too(runs, tmp_path):
    base = base_model()
    torch.manual_seed(9)
    add_tmole(base, config()).save_pretrained(tmp_path / "other")
    with pytest.raises(RecfoundError, match="the initialisation differ"):
        merge_adapters([runs / "a", tmp_path / "other"], tmp_path / "out", space="delta")
