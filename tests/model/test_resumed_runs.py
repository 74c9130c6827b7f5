"""Exact resume: a run that was killed again and again ends as one that was not; a full disk harms no checkpoint."""

import json
import random
from pathlib import Path

import pytest
import yaml
from processes import launch

from recfound_model.training.checkpoints import Standing, latest_checkpoint, prune_checkpoints

STEPS = 9

# Dies by SIGKILL at the given point: before a step, or while its checkpoint is written.
TRAIN = """
import os, signal, sys
recipe, resume, die_at, while_saving = sys.argv[1], sys.argv[2] == "resume", int(sys.argv[3]), sys.argv[4] == "saving"
from recfound_data.cli import main
from recfound_model.training import checkpoints, loop

step, save = loop.Trainer.step, checkpoints.save_tensors

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def stepping(trainer, number):
    if number == die_at and not while_saving:
        die()
    return step(trainer, number)

def saving(tensors, file):
    save(tensors, file)
    if while_saving and f"step-{die_at:06d}" in str(file):
        die()

loop.Trainer.step, checkpoints.save_tensors = stepping, saving
sys.exit(main(["model", "train", recipe] + ["--resume"] * resume))
"""


def trained(folder: Path) -> dict:
    """All that two runs must have in common."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    adapter = {path.name: path.read_bytes() for path in (folder / "adapter").iterdir()}
    checkpoints = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "checkpoints").rglob("*")
        if path.is_file()
    }
    untimed = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return {"metrics": untimed, "adapter": adapter, "checkpoints": checkpoints}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "threads", "sharding"),
    [(1, 1, "none"), (1, 2, "none"), (2, 1, "none"), (2, 2, "none"), (2, 1, "fsdp2"), (3, 1, "fsdp2")],
)
def test_a_run_that_is_killed_and_resumed_ends_as_one_that_was_not(settings, tmp_path, processes, threads, sharding):
    recipes = {}
    for name in ("whole", "killed"):
        keys = settings(out=str(tmp_path / name), steps=STEPS, embedding_batch=9, checkpoint_every=2, sharding=sharding)
        keys |= {"validation": {"every": 3, "samples": 4}, "scheduler": {"warmup": 0.2, "window": 4}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(keys))
        recipes[name] = str(tmp_path / f"{name}.yaml")
    codes, said = launch(TRAIN, [recipes["whole"], "anew", "0", "no"], processes, threads)
    assert codes == [0] * processes, said

    draw = random.Random(10 * processes + threads)
    points = [(draw.randint(2, 4), "no"), (draw.choice([4, 6]), "saving"), (draw.randint(7, 9), "no")]
    begun = "anew"
    for step, where in points:
        codes, said = launch(TRAIN, [recipes["killed"], begun, str(step), where], processes, threads)
        assert codes[0] == -9, said
        assert not (tmp_path / "killed" / "adapter").exists()
        begun = "resume"
    codes, said = launch(TRAIN, [recipes["killed"], "resume", "0", "no"], processes, threads)
    assert codes == [0] * processes, said
    whole, killed = trained(tmp_path / "whole"), trained(tmp_path / "killed")
    assert len(whole["metrics"]) == STEPS and "validation" in whole["metrics"][2]
    assert whole == killed
    shares = {tuple(line["samples"].items()) for line in whole["metrics"]}
    assert len(shares) > 2  # the scheduler moved them


FULL = """
import resource, signal, sys
from recfound_data.cli import main
from recfound_model.training import loop

save = loop.save_checkpoint

def saving(run, step, state, write):
    if step == 4:  # from here on no file may grow beyond a few kilobytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    return save(run, step, state, write)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
loop.save_checkpoint = saving
sys.exit(main(["model", "train", sys.argv[1]]))
"""


def test_a_disk_that_fills_within_a_checkpoint_leaves_the_one_before(settings, tmp_path):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(settings(out=str(run), steps=6)))
    codes, said = launch(FULL, [str(recipe)])
    assert codes == [1] and "Traceback" not in said, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("recfound: ") and "step-000004" in last and "cannot be written: File too large" in last, last
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000000", "step-000002"]
    codes, said = launch(TRAIN, [str(recipe), "resume", "0", "no"])
    assert codes == [0] and "resuming at step 2" in said, said
    assert latest_checkpoint(run).name == "step-000006"


def test_what_a_killed_process_left_behind_goes(settings, tmp_path):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(settings(out=str(run), steps=4)))
    codes, said = launch(TRAIN, [str(recipe), "anew", "4", "saving"])
    assert codes == [-9], said
    assert list((run / "checkpoints").glob(".step-000004.partial-*"))
    codes, said = launch(TRAIN, [str(recipe), "resume", "0", "no"])
    assert codes == [0], said
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"step-00000{n}" for n in (0, 2, 4)]


# --- which checkpoints stay


def test_the_best_step_has_the_lowest_mean_of_relative_losses():
    standing = Standing()
    assert standing.take(10, {"a": 2.0, "b": 4.0}) and standing.score == 1
    assert not standing.take(20, {"a": 1.0, "b": 7.0})  # 0.5 and 1.75
    assert standing.take(30, {"a": 1.0, "b": 5.0})  # 0.5 and 1.25
    assert not standing.take(40, {"a": 1.0, "b": 5.0})  # no better than that
    assert standing.best == 30 and standing.score == pytest.approx(0.875)


@pytest.mark.parametrize(
    ("keep", "best", "stay"), [(1, None, [0, 50]), (2, 10, [0, 10, 40, 50]), (9, 20, [0, 10, 20, 30, 40, 50])]
)
def test_the_first_the_last_and_the_best_checkpoint_stay(tmp_path, keep, best, stay):
    for step in (0, 10, 20, 30, 40, 50):
        (tmp_path / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    prune_checkpoints(tmp_path, keep, best)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [f"step-{step:06d}" for step in stay]
