"""Looking inside adapters: measures against slow versions of themselves, and what is written of an adapter."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import pytest
import torch
from tiny_models import adapted_model

from recfound_data.cli import main
from recfound_data.errors import RecfoundError, UsageError
from recfound_model.adapter_files import open_adapter
from recfound_model.inspecting import inspect_adapter
from recfound_model.inspecting.inspection import _numbered
from recfound_model.inspecting.measures import (
    cosines,
    effective_rank,
    expert_products,
    group_norms,
    mean_cosine,
    shares,
)
from recfound_model.run_history import adapter_gates

PNG = b"\x89PNG\r\n\x1a\n"
SIZES = (2, 1, 3)


@pytest.fixture
def layer():
    """A [E r, in], B [out, E r] and gates [tasks, E] of six experts of rank 2, some gates 0."""
    draw = torch.Generator().manual_seed(3)
    A, B = torch.randn(12, 7, generator=draw), torch.randn(5, 12, generator=draw)
    g = torch.rand(4, 6, generator=draw)
    g[0, 3:] = 0
    g[1, :2] = 0
    return A, B, g


def updates(A, B, r):
    """The product of each expert, [E, out, in]."""
    return torch.stack([B[:, at : at + r].double() @ A[at : at + r].double() for at in range(0, len(A), r)])


def test_products_of_experts_are_those_of_their_matrices(layer):
    A, B, _ = layer
    whole = updates(A, B, 2)
    slow = torch.tensor([[float((one * other).sum()) for other in whole] for one in whole])
    torch.testing.assert_close(expert_products(A, B, 2).float(), slow.float())


def test_norms_of_groups_are_those_of_summed_updates(layer):
    A, B, g = layer
    found = group_norms(g, expert_products(A, B, 2), SIZES)
    whole = updates(A, B, 2)
    for task in range(len(g)):
        first = 0
        for group, size in enumerate(SIZES):
            summed = sum(g[task, e].double() * whole[e] for e in range(first, first + size))
            assert float(found[task, group]) == pytest.approx(float(summed.norm()), rel=1e-9, abs=1e-12)
            first += size


def test_shares_sum_to_one_and_are_zero_without_an_update():
    found = shares(torch.tensor([[3.0, 1.0], [0.0, 2.0], [0.0, 0.0]]).double())
    assert found.tolist() == [[0.75, 0.25], [0.0, 1.0], [0.0, 0.0]]


def test_effective_rank_is_one_for_one_direction_and_all_for_equal_ones():
    assert effective_rank(torch.tensor([4.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_rank(torch.full((5,), 0.3)) == pytest.approx(5)
    assert effective_rank(torch.zeros(3)) == 0
    values = [3.0, 2.0, 0.5]
    p = [value / sum(values) for value in values]
    slow = math.exp(-sum(one * math.log(one) for one in p))
    assert effective_rank(torch.tensor(values)) == pytest.approx(slow)
    assert effective_rank(7 * torch.tensor(values)) == pytest.approx(slow)


def test_mean_cosine_is_over_pairs_of_different_rows():
    rows = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    slow = sum(float(rows[a].double() @ rows[b].double()) for a, b in combinations(range(6), 2)) / 15
    assert mean_cosine(rows) == pytest.approx(slow)
    assert mean_cosine(rows[:1].expand(3, 4)) == pytest.approx(1)
    assert mean_cosine(rows[:1]) == 1


def test_cosines_do_not_depend_on_lengths():
    found = cosines(torch.tensor([[3.0, 0.0], [5.0, 5.0], [-1.0, 0.0], [0.0, 0.0]]))
    half = math.sqrt(0.5)
    wanted = [[1, half, -1, 0], [half, 1, -half, 0], [-1, -half, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(wanted).double())


@pytest.fixture(scope="module")
def inspected(run: Path, dataset: str, tmp_path_factory):
    out = tmp_path_factory.mktemp("inspected") / "out"
    return inspect_adapter(run / "adapter", out, dataset, most=20), out


def test_norms_are_those_of_the_adapters_own_updates(inspected, run):
    found, _ = inspected
    with open_adapter(run / "adapter") as adapter:
        place = len(adapter.modules) - 1
        layer = found.layers[place]
        g = adapter_gates(adapter, list(found.kinds))[adapter.modules.index(layer)]
        factors = adapter.factors(layer, tuple(found.groups))
        whole = updates(factors.A, factors.B, adapter.config.r) * adapter.config.scale
    torch.testing.assert_close(found.gates[place], g)
    first = 0
    for group, size in enumerate(found.groups.values()):
        for task in range(len(found.kinds)):
            summed = (g[task, first : first + size, None, None].double() * whole[first : first + size]).sum(0)
            assert float(found.norms[place, task, group]) == pytest.approx(float(summed.norm()), rel=1e-9, abs=1e-12)
        first += size


def test_a_task_has_no_share_of_the_other_kinds_experts(inspected):
    found, _ = inspected
    for task, kind in enumerate(found.kinds.values()):
        for group, name in enumerate(found.groups):
            values = found.shares[:, task, group]
            assert (values == 0).all() if name not in ("shared", kind) else (values > 0).all()
    torch.testing.assert_close(found.shares.sum(-1), torch.ones_like(found.shares[..., 0]))


def test_spectra_are_of_the_embedding_tasks_texts(inspected):
    found, _ = inspected
    embedding = [task for task, kind in found.kinds.items() if kind == "embedding"]
    assert list(found.spectra) == embedding and embedding
    for sides in found.spectra.values():
        assert list(sides) == ["query", "document"]
        for one in sides.values():
            assert 1 < one.texts <= 20 and one.split == "test"
            # Rows of unit length: the squares of singular values sum to their number.
            assert float(one.values.square().sum()) == pytest.approx(one.texts, rel=1e-5)
            assert len(one.values) == min(one.texts, one.size) and 1 < one.effective_rank <= len(one.values)


def test_json_and_plots_are_written_and_the_command_says_the_same(inspected, run, dataset, tmp_path, capsys):
    found, out = inspected
    names = {path.name for path in out.iterdir()}
    assert names == {"gates.png", "inspection.json", "norms.png", "similarity.png", "spectra.png"}
    assert all((out / name).read_bytes().startswith(PNG) for name in names if name.endswith("png"))
    report = json.loads((out / "inspection.json").read_text())
    assert report == json.loads(json.dumps(found.to_json()))
    again = tmp_path / "again"
    command = ["model", "inspect", str(run / "adapter"), "--data", dataset, "--most", "20", "--out", str(again)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    for name in names:
        assert (again / name).read_bytes() == (out / name).read_bytes()
    assert main(["model", "inspect", str(run / "adapter"), "--out", str(again)]) == 0  # takes the old one's place
    assert {path.name for path in again.iterdir()} == names - {"spectra.png"}
    text = capsys.readouterr().out
    assert all(task in text for task in found.kinds) and "effective rank" not in text and "–" in text


def test_layers_are_in_the_order_of_the_model(tmp_path):
    model = adapted_model()
    model.save_pretrained(tmp_path / "adapter")
    with open_adapter(tmp_path / "adapter") as adapter:
        modules = adapter.modules
    renamed = [module.replace("layers.1", "layers.2").replace("layers.0", "layers.10") for module in modules]
    ordered = sorted(renamed, key=_numbered)
    numbers = [int(name.split("layers.")[1].split(".")[0]) for name in ordered]
    assert numbers == sorted(numbers) and {2, 10} <= set(numbers)


def test_what_cannot_be_inspected_is_refused_and_nothing_is_written(run, dataset, tmp_path):
    with pytest.raises(RecfoundError, match="holds no adapter_config"):
        inspect_adapter(tmp_path, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UsageError, match="holds something else"):
        inspect_adapter(run / "adapter", tmp_path / "mine")
    with pytest.raises(RecfoundError):
        inspect_adapter(run / "adapter", tmp_path / "out", str(tmp_path / "no-data"))
    assert not (tmp_path / "out").exists()
