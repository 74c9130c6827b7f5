"""`recfound model train`: resumed = uninterrupted, the same recipe = the same bytes, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from recfound_data.cli import main
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.tasks import TASKS
from recfound_model import load_tmole
from recfound_model.adapter_files import open_adapter, part_of
from recfound_model.bases import load_base
from recfound_model.training.loop import Trainer
from recfound_model.training.recipe import TrainRecipe, load_recipe

STEPS = 30  # of the run that `run` names
TENSORS = "adapter_model.safetensors"
EMBEDDING = ("user2item", "query2item", "item2item")
GENERATIVE = "sequential_recommendation"


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def untimed(run: Path) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in metrics(run)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_run(run: Path, other: Path) -> None:
    assert untimed(run) == untimed(other)
    for part in ("adapter", "checkpoints"):
        assert files(run / part) == files(other / part)


# --- what a run writes


def test_a_run_writes_recipe_metrics_checkpoints_and_adapter(run):
    parts = ["adapter", "checkpoints", "metrics.jsonl", "plots", "recipe.yaml"]
    assert sorted(path.name for path in run.iterdir()) == parts
    assert set(files(run / "plots")) == {"losses.png", "shares.png", "gates.png"}
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.steps == STEPS and recipe.out == str(run) and recipe.weight_decay == 0.01
    names = [f"step-{step:06d}" for step in (0, 10, 20, 30)]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == names
    for name in names:
        kept = set(files(run / "checkpoints" / name))
        assert kept == {
            "README.md",
            "adapter_config.json",
            TENSORS,
            "optimizer.safetensors",
            "training.json",
            "training_state.json",
        }
    assert set(files(run / "adapter")) == {"README.md", "adapter_config.json", "training.json", TENSORS}
    last = files(run / "checkpoints" / names[-1])
    assert files(run / "adapter").items() <= last.items()
    assert (run / "checkpoints" / names[0] / TENSORS).read_bytes() != last[TENSORS]


def test_metrics_hold_one_object_a_step(run):
    records = metrics(run)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    samples = {**dict.fromkeys(EMBEDDING, 8), GENERATIVE: 3}
    keys = {"step", "losses", "samples", "learning_rate", "grad_norm", "tokens", "computed", "seconds"}
    for record in records:
        assert set(record) == keys and set(record["losses"]) == set(samples) == set(record["samples"])
        assert record["samples"][GENERATIVE] == 3 and sum(record["samples"].values()) == 27
        assert record["computed"] >= record["tokens"] > 27 * 10
        assert record["seconds"] > 0 and 0 < record["learning_rate"] <= 1e-2
        assert all(0 < loss < 20 for loss in [*record["losses"].values(), record["grad_norm"]])
    # The split follows the recipe's proportions in the first tenth of the steps, and the tasks' convergence then.
    assert all(record["samples"] == samples for record in records[:3])
    assert sum(record["samples"] != samples for record in records[3:]) > 10


def test_plots_are_drawn_again_by_command(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "plots")
    assert main(["model", "plot", str(tmp_path / "run"), "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)["paths"]
    assert {Path(path).name: Path(path).read_bytes() for path in paths} == files(run / "plots")


def test_losses_fall(run):
    records = metrics(run)
    for task in (*EMBEDDING, GENERATIVE):
        losses = [record["losses"][task] for record in records]
        early, late = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        assert late < 0.92 * early, (task, early, late)


def test_rate_factors_move_parts_of_the_adapter_apart(recipe, tmp_path):
    def moved(**factors: float) -> dict[str, float]:
        """How far each part of the adapter is from where it began, by its part: gates move from the second step."""
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        path = recipe(steps=2, warmup=0.0, weight_decay=0.0, rate_factors=factors)
        assert main(["model", "train", path]) == 0
        found: dict[str, float] = {}
        with open_adapter(folder / "checkpoints" / "step-000000") as first, open_adapter(folder / "adapter") as last:
            for key in first.keys:
                change = (last.tensor(key) - first.tensor(key)).abs().max().item()
                found[part_of(key)] = max(found.get(part_of(key), 0.0), change)
        return found

    plain = moved()
    assert set(plain) == {"gates", "embedding", "shared", "generative"} and min(plain.values()) > 0
    other = moved(gates=5, generative=0)
    expected = plain | {"gates": 5 * plain["gates"], "generative": 0}
    assert other == pytest.approx(expected, rel=0.05)


def test_popularity_correction_changes_what_is_learned_and_resumes(recipe, tmp_path):
    losses = {}
    for correction in (False, True):
        path = recipe(out=str(tmp_path / f"run-{correction}"), popularity_correction=correction)
        assert main(["model", "train", path]) == 0
        losses[correction] = [line["losses"] for line in metrics(tmp_path / f"run-{correction}")]
    # The same samples: what is no ranking of documents has the same first loss.
    assert losses[True][0][GENERATIVE] == losses[False][0][GENERATIVE]
    assert losses[True][0]["user2item"] != losses[False][0]["user2item"]
    run = tmp_path / "run-True"
    weights = (run / "adapter" / TENSORS).read_bytes()
    shutil.rmtree(run / "checkpoints" / "step-000004")
    shutil.rmtree(run / "adapter")
    assert main(["model", "train", path, "--resume"]) == 0
    assert (run / "adapter" / TENSORS).read_bytes() == weights


def test_popularity_is_not_compared_across_tasks(recipe, capsys):
    assert main(["model", "train", recipe(popularity_correction=True, negatives="all")]) == 2
    assert "popularity_correction: how often items are positives is not comparable" in capsys.readouterr().err


def test_a_run_as_json(recipe, capsys, tmp_path):
    assert main(["model", "train", recipe(steps=1), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    losses = metrics(tmp_path / "run")[0]["losses"]
    assert summary["path"] == str(tmp_path / "run") and summary["steps"] == 1
    assert {task: round(loss, 6) for task, loss in summary["losses"].items()} == losses
    assert summary["best"] is None and summary["score"] is None  # infinity, say, would be no JSON


# --- the same again


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_other_samples(recipe, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        path = recipe(seed=seed, out=str(tmp_path / name), steps=2)
        assert main(["model", "train", path]) == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")
    tokens = [[record["tokens"] for record in metrics(tmp_path / name)] for name in "abc"]
    assert tokens[0] == tokens[1] != tokens[2]


def test_dropout_depends_on_the_seed(settings, tmp_path):
    draws = []
    for seed in (0, 1):
        trainer = Trainer(TrainRecipe(**settings(out=str(tmp_path), seed=seed)))
        layer = trainer.model.adapted_layers()[0][1].experts
        seen = []
        hook = layer.dropout.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out == 0))
        trainer.step(1)
        hook.remove()
        draws.append(seen[0].flatten()[:1000])
    assert draws[0].any() and not torch.equal(*draws)


@pytest.fixture(scope="module")
def uninterrupted(settings, tmp_path_factory):
    """A run of six steps with a checkpoint every two."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings(out=str(folder / "run"), steps=6)))
    assert main(["model", "train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"


def test_interrupted_and_resumed_equals_uninterrupted(recipe, uninterrupted, monkeypatch, tmp_path, capsys):
    path, step = recipe(steps=6), Trainer.step

    def stop(trainer, number):
        if number == 4:
            raise KeyboardInterrupt
        return step(trainer, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stop)
        assert main(["model", "train", path]) == 130
    run = tmp_path / "run"
    assert "interrupted" in capsys.readouterr().err
    assert len(metrics(run)) == 3 and not (run / "adapter").exists()
    assert main(["model", "train", path, "--resume"]) == 0
    assert "4 steps; last losses" in capsys.readouterr().out
    assert_same_run(run, uninterrupted)
    # A finished run resumes to itself.
    assert main(["model", "train", path, "--resume"]) == 0
    assert_same_run(run, uninterrupted)


KILLED = """
import os, signal, sys
from recfound_data.cli import main
from recfound_model.training import checkpoints
write = checkpoints.write_adapter
def write_and_die(folder, *rest):
    write(folder, *rest)
    if "step-000004" in str(folder):
        with open(sys.argv[2], "a") as metrics:
            metrics.write('{"step": 5, "los')
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.write_adapter = write_and_die
main(["model", "train", sys.argv[1]])
"""


def test_killed_within_a_checkpoint_and_resumed_equals_uninterrupted(recipe, uninterrupted, tmp_path):
    path, run = recipe(steps=6), tmp_path / "run"
    command = [sys.executable, "-W", "ignore", "-c", KILLED, path, str(run / "metrics.jsonl")]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == -9, done.stderr
    checkpoints = {entry.name for entry in (run / "checkpoints").iterdir()}
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 5
    assert {"step-000000", "step-000002"} < checkpoints and "step-000004" not in checkpoints
    assert main(["model", "train", path, "--resume"]) == 0
    for partial in (run / "checkpoints").glob(".*"):
        shutil.rmtree(partial)
    assert_same_run(run, uninterrupted)


# --- what moves


def test_checkpointing_changes_no_loss(recipe, tmp_path):
    for name, on in (("off", False), ("on", True)):
        path = recipe(gradient_checkpointing=on, out=str(tmp_path / name), steps=3)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            assert main(["model", "train", path]) == 0
    for off, on in zip(metrics(tmp_path / "off"), metrics(tmp_path / "on"), strict=True):
        assert on["losses"] == pytest.approx(off["losses"], abs=1e-5)
        assert on["grad_norm"] == pytest.approx(off["grad_norm"], rel=1e-4) and on["tokens"] == off["tokens"]


def test_checkpointing_is_switched_on(settings, tmp_path):
    trainer = Trainer(TrainRecipe(**settings(out=str(tmp_path), gradient_checkpointing=True)))
    runs = []
    trainer.model.get_decoder().layers[0].self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    trainer.objective.backward({}, {GENERATIVE: trainer.streams[GENERATIVE].draw(1)})
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("tasks", "idle"), [(["user2item", "item2item"], "generative"), ([GENERATIVE], "embedding")], ids=lambda x: str(x)
)
def test_experts_that_no_task_sees_do_not_move(recipe, tmp_path, tasks, idle):
    assert main(["model", "train", recipe(tasks=tasks, proportions={}, steps=2)]) == 0
    run = tmp_path / "run"
    before, after = (load_file(run / part / TENSORS) for part in ("checkpoints/step-000000", "adapter"))
    for key, tensor in before.items():
        unchanged = torch.equal(tensor, after[key])
        assert unchanged == key.endswith(f".{idle}"), key
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert config["tasks"] == {task: TASKS[task].kind for task in tasks}
    assert set(config["prompts"]) == set(tasks) - {GENERATIVE}


def test_one_shared_expert_is_one_lora_for_all_tasks(recipe, base, tmp_path):
    """The ablation that docs/model.md names: without a choice of experts every task has the same adapter."""
    shared = {"embedding": 0, "shared": 1, "generative": 0}
    adapter = {"r": 16, "alpha": 32, "experts": shared, "task_dim": 8, "dropout": 0.0}
    assert main(["model", "train", recipe(adapter=adapter, steps=2)]) == 0
    run = tmp_path / "run"
    assert main(["model", "collapse", str(run / "adapter"), "--out", str(tmp_path / "lora")]) == 0
    loras = [load_file(tmp_path / "lora" / task / TENSORS) for task in (*EMBEDDING, GENERATIVE)]
    assert loras[0].keys() and any(tensor.any() for key, tensor in loras[0].items() if "lora_B" in key)
    for lora in loras[1:]:
        assert all(torch.equal(tensor, lora[key]) for key, tensor in loras[0].items())


def test_a_task_of_weight_zero_is_not_trained(settings, tmp_path):
    def plan(**changes):
        trainer = Trainer(TrainRecipe(**settings(out=str(tmp_path)) | changes))
        return trainer.step(1)["samples"]

    by_size = plan(proportions={}, embedding_batch=40)
    assert by_size["item2item"] > by_size["user2item"] > by_size["query2item"] > 0  # by the number of samples
    assert plan(proportions=dict.fromkeys(["user2item", "query2item", "item2item"], 0)) == {GENERATIVE: 3}
    assert plan(proportions={"user2item": 0, "query2item": 3, "item2item": 1}, generative_batch=0) == {
        "query2item": 9,
        "item2item": 3,
    }
    uniform = {"kind": "uniform"}
    assert plan(proportions={}, scheduler=uniform) == {**dict.fromkeys(EMBEDDING, 4), GENERATIVE: 3}
    with pytest.raises(UsageError, match="nothing to train"):
        plan(embedding_batch=0, generative_batch=0)


def test_a_probe_measures_validation_samples_every_few_steps(recipe, dataset, tmp_path):
    scheduler = {"signal": "probe", "probe_every": 3, "probe_samples": 5, "warmup": 0.2}
    assert main(["model", "train", recipe(scheduler=scheduler, steps=7)]) == 0
    records = metrics(tmp_path / "run")
    assert [record["step"] for record in records if "probe" in record] == [1, 4, 7]
    assert all(set(record["probe"]) == {*EMBEDDING, GENERATIVE} for record in records if "probe" in record)
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-000006" / "training_state.json").read_text())
    seen = state["scheduler"]["losses"]["user2item"]
    # Relative to the first one; the steps between two probes are no measurements.
    assert [value is None for value in seen] == [False, True, True, False, True, True]
    assert seen[0] == 1 and seen[3] == pytest.approx(
        records[3]["probe"]["user2item"] / records[0]["probe"]["user2item"], rel=1e-4
    )


def test_a_probe_needs_a_validation_split(recipe, dataset, capsys, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    (tmp_path / "data" / "data" / "item2item").joinpath("validation-00000-of-00001.parquet").unlink()
    card = tmp_path / "data" / "README.md"
    _, head, text = card.read_text().split("---\n", 2)
    front = yaml.safe_load(head)
    (configuration,) = (one for one in front["configs"] if one["config_name"] == "item2item")
    (info,) = (one for one in front["dataset_info"] if one["config_name"] == "item2item")
    configuration["data_files"] = [one for one in configuration["data_files"] if one["split"] != "validation"]
    info["splits"] = [one for one in info["splits"] if one["name"] != "validation"]
    card.write_text(f"---\n{yaml.safe_dump(front)}---\n{text}")
    arguments = [recipe(data=str(tmp_path / "data")), "--set", "scheduler.signal=probe"]
    assert "item2item has no validation split to measure; set scheduler.signal" in refused(capsys, arguments, 2)


def test_a_trained_adapter_loads_on_a_fresh_base_elsewhere(settings, base, tmp_path):
    trainer = Trainer(TrainRecipe(**settings(out=str(tmp_path / "run"), steps=2)))
    (tmp_path / "run").mkdir()
    trainer.run(tmp_path / "run", 0)
    trainer.model.eval()
    shutil.copytree(base, tmp_path / "elsewhere")
    fresh, _ = load_base(str(tmp_path / "elsewhere"))
    loaded = load_tmole(fresh, tmp_path / "run" / "adapter")
    drawn = {"user2item": trainer.streams["user2item"].draw(3)}, {GENERATIVE: trainer.streams[GENERATIVE].draw(2)}
    elsewhere = replace(trainer.objective, model=loaded)
    assert trainer.objective.losses(*drawn) == elsewhere.losses(*drawn)


def test_all_thirteen_tasks_are_trained_within_a_few_steps(recipe, thirteen, capsys, tmp_path):
    # Fewer samples of a kind than it has tasks: what rounding owes a task is kept for a later step.
    keys = {"data": str(thirteen), "proportions": {}, "steps": 16, "embedding_batch": 6, "generative_batch": 4}
    assert main(["model", "train", recipe(**keys, scheduler={"kind": "uniform"}, generative_tokens=400)]) == 0
    records = metrics(tmp_path / "run")
    drawn = {task: sum(record["samples"].get(task, 0) for record in records) for task in TASKS}
    assert all(record["losses"].keys() == record["samples"].keys() for record in records)
    assert all(sum(record["samples"].values()) == 10 for record in records)
    for task, spec in TASKS.items():
        assert abs(drawn[task] - 16 * (6 / 3 if spec.kind == "embedding" else 4 / 10)) <= 1, task
    before, after = (load_file(tmp_path / "run" / part / TENSORS) for part in ("checkpoints/step-000000", "adapter"))
    assert not any(torch.equal(before[key], after[key]) for key in before)
    assert main(["model", "collapse", str(tmp_path / "run" / "adapter"), "--out", str(tmp_path / "lora")]) == 0
    assert sorted(path.name for path in (tmp_path / "lora").iterdir()) == sorted(TASKS)


# --- what stays of a run, and where else its metrics go


def test_the_best_checkpoint_is_named_and_stays(recipe, capsys, tmp_path):
    path = recipe(steps=8, checkpoint_every=2, keep_checkpoints=2, validation={"every": 1, "samples": 6})
    assert main(["model", "train", path, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    records = metrics(tmp_path / "run")
    relative = [
        sum(record["validation"][task] / records[0]["validation"][task] for task in record["validation"]) / 4
        for record in records
    ]
    best = relative.index(min(relative)) + 1
    assert summary["score"] == pytest.approx(min(relative), rel=1e-4) and best > 1
    assert summary["best"] == str(tmp_path / "run" / "checkpoints" / f"step-{best:06d}")
    # Without a checkpoint at each of its steps the best one is there all the same.
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {f"step-{best:06d}", "step-000000", "step-000008"} <= kept and len(kept) <= 4


def test_validation_runs_every_few_steps_and_at_the_end(recipe, tmp_path):
    assert main(["model", "train", recipe(steps=5, validation={"every": 2, "samples": 3})]) == 0
    assert [record["step"] for record in metrics(tmp_path / "run") if "validation" in record] == [2, 4, 5]


def test_trackers_are_sent_the_metrics(recipe, tmp_path):
    assert main(["model", "train", recipe(steps=2, trackers=["tensorboard"])]) == 0
    held = b"".join(path.read_bytes() for path in (tmp_path / "run" / "logs").rglob("events*"))
    assert b"losses/user2item" in held and b"learning_rate" in held


def test_the_estimate_is_of_the_right_order(recipe, capsys, tmp_path):
    assert main(["model", "train", recipe(steps=6)]) == 0
    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("estimate: "))
    tokens, seconds = re.search(r"; ([\d,]+) tokens and ([\d.e-]+) s a step", said).groups()
    records = metrics(tmp_path / "run")
    assert int(tokens.replace(",", "")) == pytest.approx(records[0]["computed"], rel=0.4)
    assert 0.1 < float(seconds) / records[-1]["seconds"] < 10


# --- refusals


def refused(capsys, arguments: list[str], code: int) -> str:
    """The one line that a command says when it is refused."""
    capsys.readouterr()
    assert main(["model", "train", *arguments]) == code
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert said.out == "" and len(lines) == 1 and lines[0].startswith("recfound: ") and len(lines[0]) < 500, said.err
    return lines[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("learning_rte=1", "unknown key 'learning_rte', did you mean 'learning_rate'?"),
        ("adapter.rank=1", "unknown key 'adapter.rank'"),
        ("steps=none", "steps: Input should be a valid integer"),
        ("steps=0", "steps: Input should be greater than or equal to 1"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("seed=4294967296", "seed: Input should be less than 4294967296"),
        ("proportions.user2item=-1", "proportions.user2item: Input should be greater than or equal to 0"),
        ("proportions.user2item=.inf", "proportions.user2item: Input should be a finite number"),
        ("steps", "--set steps: expected key=value"),
        ("=3", "--set =3: expected key=value"),
        ("tasks=[a", "--set tasks=[a: the value is not valid YAML"),
        ("seed=2024-13-45", "the value is not valid YAML"),
        ("steps.of=3", "--set steps.of=3: steps is no group of keys"),
        ("tasks=[user2itm]", "task 'user2itm' is not in "),
        ("tasks=[query_rewriting]", "task 'query_rewriting' is not in "),
        ("proportions.user2itm=1", "proportions: task 'user2itm' is not trained on; the tasks are user2item"),
        ("trackers=[trackio]", "trackers: trackio is not installed; install it with: pip install trackio"),
        ("trackers=[paper]", "trackers.0: Input should be 'tensorboard'"),
        ("scheduler.kind=best", "scheduler.kind: Input should be 's2sched'"),
        ("scheduler.cap=0.01", "cap is 0.01; with 3 tasks, embedding needs one from 0.3333 to 1"),
        ("adapter.experts={embedding: 1}", "adapter: experts must give a number for each of"),
        ("adapter.target_modules=[nothing]", "adapter: "),
        ("adapter.target_modules=[embed_tokens]", "only linear layers can be adapted"),
    ],
)
def test_a_wrong_recipe_is_refused_with_code_2(recipe, capsys, tmp_path, override, words):
    assert words in refused(capsys, [recipe(), "--set", override], 2)
    assert not (tmp_path / "run").exists()


def test_overrides_reach_the_recipe(recipe):
    path = recipe()
    overridden = load_recipe(path, ["adapter.r=2", "learning_rate=2e-3", "tasks=[user2item]", "revision=null"])
    assert (overridden.adapter.r, overridden.adapter.alpha) == (2, 8)
    assert (overridden.learning_rate, overridden.tasks, overridden.revision) == (2e-3, ["user2item"], None)


def test_recipes_of_the_repository_are_valid():
    recipes = [path for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml") if "base:" in path.read_text()]
    assert len(recipes) >= 2
    for path in recipes:
        load_recipe(path)


def test_what_a_recipe_names_and_is_not_there_is_refused(recipe, base, capsys, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert "nowhere.yaml: no such recipe" in refused(capsys, [f"{nowhere}.yaml"], 2)
    assert f"{nowhere}: no such dataset folder" in refused(capsys, [recipe(data=nowhere)], 1)
    assert f"base {nowhere}: " in refused(capsys, [recipe(base=nowhere)], 1)
    assert "FlashAttention2" in refused(capsys, [recipe(attention="flash_attention_2")], 1)
    assert "has no checkpoint to resume from" in refused(capsys, [recipe(), "--resume"], 1)
    (tmp_path / "nowhere").mkdir()
    assert "the folder holds no config.json" in refused(capsys, [recipe(base=nowhere)], 1)
    assert not (tmp_path / "run").exists()


def test_a_damaged_base_is_refused(recipe, base, capsys, tmp_path):
    def damaged(name: str, change) -> str:
        shutil.copytree(base, tmp_path / name)
        change(tmp_path / name)
        return refused(capsys, [recipe(base=str(tmp_path / name))], 1)

    def cut(folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])

    def forget_tokenizer(folder: Path) -> None:
        for file in folder.glob("tokenizer*"):
            file.unlink()

    assert "base " in damaged("cut", cut)
    assert "base " in damaged("no-tokenizer", forget_tokenizer)
    assert "base " in damaged("no-weights", lambda folder: (folder / "model.safetensors").unlink())
    assert "base " in damaged("no-json", lambda folder: (folder / "config.json").write_text("{"))


def test_an_occupied_run_folder_is_refused(run, capsys):
    before = files(run)
    assert "a run is there already; continue it with --resume" in refused(capsys, [str(run / "recipe.yaml")], 2)
    assert files(run) == before


def test_a_run_is_not_resumed_with_another_recipe(run, capsys, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = files(tmp_path / "run")
    for override, words, code in (
        ("seed=1", "was drawn otherwise than this recipe draws", 1),
        ("adapter.r=2", "was drawn otherwise", 1),
        ("steps=29", "is at step 30 already, and the recipe has 29 steps", 2),
    ):
        arguments = [str(run / "recipe.yaml"), "--resume", "--set", f"out={tmp_path / 'run'}", "--set", override]
        assert words in refused(capsys, arguments, code)
        assert files(tmp_path / "run") == before


def test_a_damaged_checkpoint_is_refused(run, capsys, tmp_path):
    for name in ("training_state.json", "optimizer.safetensors", TENSORS):
        out = tmp_path / name
        shutil.copytree(run, out)
        file = out / "checkpoints" / "step-000030" / name
        file.write_bytes(file.read_bytes()[:20])
        said = refused(capsys, [str(run / "recipe.yaml"), "--resume", "--set", f"out={out}"], 1)
        assert "step-000030" in said, said


def test_a_loss_that_is_not_finite_stops_with_its_samples(settings, tmp_path, monkeypatch):
    trainer = Trainer(TrainRecipe(**settings(out=str(tmp_path), learning_rate=1e30)))
    drawn = {task: [row["id"] for row in trainer.streams[task].draw(4)] for task in EMBEDDING}
    for stream in trainer.streams.values():
        stream.cursor = 0
    with torch.no_grad():
        for parameter in trainer.trained:
            parameter.fill_(float("nan"))
    with pytest.raises(RecfoundError) as caught:
        trainer.step(1)
    ids = ", ".join(drawn["user2item"])
    assert f"step 1: the loss of user2item is nan; its samples begin {ids}; lower learning_rate" == str(caught.value)


def test_a_learning_rate_that_is_far_too_high_stops_with_code_1(recipe, capsys, tmp_path):
    capsys.readouterr()
    assert main(["model", "train", recipe(learning_rate=1e30, steps=5, checkpoint_every=1)]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("recfound: step 2: the loss of user2item is ") and "its samples begin " in last
    assert [record["step"] for record in metrics(tmp_path / "run")] == [1]


def test_a_gradient_that_is_not_finite_changes_nothing(settings, tmp_path):
    trainer = Trainer(TrainRecipe(**settings(out=str(tmp_path))))
    before = {key: tensor.clone() for key, tensor in trainer.model.adapter_tensors().items()}
    trainer.trained[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RecfoundError, match="step 1: the gradient is not finite"):
        trainer.step(1)
    assert all(torch.equal(tensor, before[key]) for key, tensor in trainer.model.adapter_tensors().items())
