"""The greedy soup: a soup ranks no worse on validation than any of its members, whatever the losses are."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file

from recfound_data.cli import main
from recfound_model import merge_adapters
from recfound_model.merging.soup import average_ranks, greedy_soup

TASKS = [f"task{number}" for number in range(13)]


def test_ranks_are_averaged_over_tasks_and_shared_by_equals():
    pool = [{"x": 1.0, "y": 5.0}, {"x": 2.0, "y": 5.0}, {"x": 3.0, "y": 1.0}]
    assert average_ranks(pool) == [(1 + 2.5) / 2, (2 + 2.5) / 2, (3 + 1) / 2]


@pytest.mark.parametrize("grain", [9, 1, 0])
def test_a_soup_is_never_worse_than_its_best_member(grain):
    """Over random losses, coarse ones (with many equal ranks) too."""
    draw = random.Random(0)
    grown = 0
    for _ in range(400):
        tasks = TASKS[: draw.randint(1, 13)]

        def losses(mean, tasks=tasks):
            return {task: round(draw.gauss(mean, 1.0), grain) for task in tasks}

        members = [losses(3.0) for _ in range(draw.randint(1, 6))]
        measured = {}

        def measure(places, losses=losses, measured=measured):
            assert list(places) == sorted(set(places)) and len(places) > 1
            return measured.setdefault(places, losses(draw.choice([2.0, 2.5, 3.0])))

        soup = greedy_soup(members, measure)
        assert soup.losses == (measured[soup.chosen] if len(soup.chosen) > 1 else members[soup.chosen[0]])
        assert soup.tried == len(members) - 1 == len(measured)
        assert soup.ranks == tuple(average_ranks(members))
        if len(soup.chosen) == 1:  # it is a member: a twin of it in the pool would change the others' ranks
            assert soup.ranks[soup.chosen[0]] == min(soup.ranks)
        else:
            *ranks, own = average_ranks([*members, soup.losses])
            assert own <= min(ranks)
        grown += len(soup.chosen) > 2
    assert grown > 20


def test_adapters_are_tried_from_the_best_down_and_stay_only_if_the_soup_gains():
    members = [{"x": 3.0, "y": 3.0}, {"x": 1.0, "y": 1.0}, {"x": 2.0, "y": 2.0}, {"x": 4.0, "y": 4.0}]
    merges = {(1, 2): 0.9, (0, 1, 2): 0.9, (1, 2, 3): 0.8}
    tried = []

    def measure(places):
        tried.append(places)
        return dict.fromkeys("xy", merges[places])

    soup = greedy_soup(members, measure)
    assert tried == list(merges) and soup.chosen == (1, 2, 3) and soup.ranks == (3, 1, 2, 4)


def test_one_alone_is_its_own_soup():
    soup = greedy_soup([{"x": 1.0}], lambda places: pytest.fail("there is nothing to merge"))
    assert soup.chosen == (0,) and soup.losses == {"x": 1.0}


def test_checkpoints_of_a_run_are_selected_by_the_losses_that_training_measures(run, tmp_path, capsys):
    places = [str(run / "checkpoints" / f"step-{step:06d}") for step in (10, 20, 30)]
    arguments = ["--select", "validation", "--samples", "8", "--out", str(tmp_path / "soup"), "--json"]
    assert main(["model", "merge", *places, *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in report["candidates"]] == ["step-000010", "step-000020", "step-000030"]
    chosen = [place for place, one in zip(places, report["candidates"], strict=True) if one["chosen"]]
    assert [one["name"] for one in report["inputs"]] == [place.split("/")[-1] for place in chosen]
    assert set(report["losses"]) == {"user2item", "query2item", "item2item", "sequential_recommendation"}
    merged = load_file(tmp_path / "soup" / "adapter_model.safetensors")
    if len(chosen) > 1:
        merge_adapters(chosen, tmp_path / "expected")
        expected = load_file(tmp_path / "expected" / "adapter_model.safetensors")
    else:
        expected = load_file(f"{chosen[0]}/adapter_model.safetensors")
    assert all(torch.equal(merged[key], expected[key]) for key in expected)


def test_losses_are_those_of_the_training_run(settings, tmp_path):
    """The validation losses that the run recorded at its last step, on as many samples."""
    import yaml

    from recfound_model.merging.validation import Validation

    keys = settings(out=str(tmp_path / "run"), validation={"every": 2, "samples": 5}, steps=2)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(keys))
    assert main(["model", "train", str(tmp_path / "recipe.yaml")]) == 0
    recorded = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["validation"]
    # The adapter that it is made with is not the one that is measured.
    validation = Validation(tmp_path / "run" / "checkpoints" / "step-000000", None, 5)
    found = validation.losses(load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors"))
    assert found == pytest.approx(recorded, abs=2e-6)
