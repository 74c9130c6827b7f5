"""FSDP2: layers spread over processes change no loss, no gradient, no step and no file; what is idle stays idle."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from processes import launch
from safetensors.torch import load_file, save_file
from test_joint import DRAWS, EMBEDDING, GENERATIVE, as_trained, draws
from tiny_models import ARCHITECTURES, architecture, batch, config, randomize
from torch.distributed.tensor import DTensor

from recfound_data.cli import main
from recfound_model import add_tmole, task_context
from recfound_model.training.checkpoints import checkpoint_folder, load_checkpoint, save_checkpoint
from recfound_model.training.loop import Trainer
from recfound_model.training.recipe import TrainRecipe
from recfound_model.training.sharding import gathered, held_bytes, shard

CASES = {
    "large passes": {},
    "chunks": {"tokens_per_forward": 150, "negatives": "all"},
    "a pass for each text": {"tokens_per_forward": 1},
    "packed": {"tokens_per_forward": 150, "packing": True, "negatives_per_pair": 0},
    "bfloat16": {"tokens_per_forward": 150, "base_dtype": "bfloat16"},
    "checkpointing": {"tokens_per_forward": 150, "gradient_checkpointing": True},
}
# What steps draw: the second leaves the generative experts idle, the others leave some processes without samples.
STEPS = [DRAWS, dict.fromkeys(EMBEDDING, 2), {"query2item": 1, GENERATIVE: 1}, {GENERATIVE: 1}]
MAX_NORM = 0.5


def recipe_of(settings, folder: Path, case: str) -> dict:
    adapter = {"r": 4, "alpha": 8, "task_dim": 8, "dropout": 0.0}
    keys = settings(out=str(folder), adapter=adapter, max_grad_norm=MAX_NORM, generative_weight=0.5, weight_decay=0.1)
    return keys | {"embedding_batch": 6, "learning_rate": 1e-3} | CASES[case]


def steps_of(trainer: Trainer) -> tuple[dict, dict[str, torch.Tensor]]:
    """Losses and norms, and by step the gradients and weights after it; all processes call it."""
    said, tensors = {"norms": [], "losses": []}, {}
    for number, counts in enumerate(STEPS):
        drawn = draws(trainer, counts)
        said["losses"].append(trainer.objective.losses(*drawn).losses)
        trainer.optimizer.zero_grad(set_to_none=True)
        found = trainer.objective.backward(*drawn)
        said["losses"].append(found.losses | {"tokens": found.tokens})
        said["norms"].append(trainer._clip())
        parameters = trainer.model.adapter_tensors()
        trainer.optimizer.step()
        step = {f"gradient {number} {key}": p.grad for key, p in parameters.items() if p.grad is not None}
        step |= {f"weight {number} {key}": p for key, p in parameters.items()}
        tensors |= {key: tensor.clone() for key, tensor in gathered(step, True).items()}
    return said, tensors


def sharded_worker(folder: Path) -> None:
    """What each process does: all cases, and a checkpoint each way."""
    for number in range(len(CASES)):
        keys = yaml.safe_load((folder / f"{number}.yaml").read_text())
        trainer = as_trained(Trainer(TrainRecipe(**keys, sharding="fsdp2")))
        rank, main_process = trainer.accelerator.process_index, trainer.accelerator.is_main_process
        said, tensors = steps_of(trainer)
        held = [held_bytes(layer.parameters()) for layer in trainer.model.get_decoder().layers]
        said["held"], said["sharded"] = held, sum(isinstance(p, DTensor) for p in trainer.trained)
        said["agreed"] = trainer.objective._main_ones(torch.tensor([2.5 + rank])).tolist()
        (folder / f"{number}-{rank}.json").write_text(json.dumps(said))
        save_file(tensors, folder / f"{number}-{rank}.safetensors")
    save_checkpoint(folder / "sharded", 3, trainer.state, main_process)
    load_checkpoint(checkpoint_folder(folder / "whole", 3), trainer.state)
    save_checkpoint(folder / "again", 3, trainer.state, main_process)
    trainer.accelerator.end_training()


WORKER = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
import test_sharding
getattr(test_sharding, sys.argv[2])(*map(Path, sys.argv[3:]))
"""
HERE = str(Path(__file__).parent)


def written(run: Path) -> dict[str, bytes]:
    folder = checkpoint_folder(run, 3)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)], ids=["two", "three"])
def both(request, settings, tmp_path_factory):
    """By case, what one process found without sharding, and each of several with it; the folder; a last trainer."""
    folder, expected = tmp_path_factory.mktemp("sharding"), {}
    for number, case in enumerate(CASES):
        keys = recipe_of(settings, folder / "run", case)
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(keys))
        trainer = as_trained(Trainer(TrainRecipe(**keys)))
        expected[case] = steps_of(trainer)
        held = [held_bytes(layer.parameters()) for layer in trainer.model.get_decoder().layers]
        expected[case][0]["held"] = held
    save_checkpoint(folder / "whole", 3, trainer.state, True)
    codes, said = launch(WORKER, [HERE, "sharded_worker", str(folder)], request.param)
    assert codes == [0] * request.param, said
    found = {
        case: [
            (
                json.loads((folder / f"{number}-{rank}.json").read_text()),
                load_file(folder / f"{number}-{rank}.safetensors"),
            )
            for rank in range(request.param)
        ]
        for number, case in enumerate(CASES)
    }
    return expected, found, folder, trainer


@pytest.mark.parametrize("case", [case for case in CASES if case != "bfloat16"])
def test_sharded_processes_take_the_steps_of_one(both, case):
    (expected, tensors), found = both[0][case], both[1][case]
    assert min(expected["norms"]) > MAX_NORM  # the gradient was clipped
    for said, theirs in found:
        for one, other in zip(said["losses"], expected["losses"], strict=True):
            assert one == pytest.approx(other, rel=2e-4)
        assert said["norms"] == pytest.approx(expected["norms"], rel=1e-3)
        assert theirs.keys() == tensors.keys()  # what has no gradient in one has none in the other
        for key, tensor in tensors.items():
            torch.testing.assert_close(theirs[key], tensor, rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}")


def test_a_base_in_half_precision_is_sharded_under_a_whole_adapter(both):
    (expected, tensors), found = both[0]["bfloat16"], both[1]["bfloat16"]
    for said, theirs in found:
        for one, other in zip(said["losses"][:2], expected["losses"], strict=False):
            assert one == pytest.approx(other, rel=0.02)
        assert theirs.keys() == tensors.keys()
        for key in (key for key in tensors if key.startswith("gradient 0 ")):
            assert theirs[key].dtype == torch.float32
            assert (theirs[key] - tensors[key]).norm() < 0.1 * tensors[key].norm(), key


def test_each_process_holds_its_part_of_the_layers(both):
    for case, (expected, tensors) in both[0].items():
        parts = [said["held"] for said, _ in both[1][case]]
        assert [sum(of_layer) for of_layer in zip(*parts, strict=True)] == expected["held"]
        assert all(part[0] < expected["held"][0] / len(parts) * 1.1 for part in parts)
        names = [key for key in tensors if key.startswith("weight 0 ")]
        assert all(said["sharded"] == sum(".z." not in key for key in names) for said, _ in both[1][case])


def test_processes_agree_on_losses_to_the_last_bit(both):
    for found in both[1].values():
        assert all(said["agreed"] == [2.5] and said["losses"] == found[0][0]["losses"] for said, _ in found)


def test_what_a_step_does_not_use_is_not_moved(both):
    for found in both[1].values():
        for _, tensors in found:
            names = [key.removeprefix("weight 1 ") for key in tensors if key.startswith("weight 1 ")]
            idle = [key for key in names if key.endswith((".generative", f".z.{GENERATIVE}"))]
            assert len(idle) > 10
            for key in names:
                moved = not torch.equal(tensors[f"weight 0 {key}"], tensors[f"weight 1 {key}"])
                assert moved == (key not in idle) == (f"gradient 1 {key}" in tensors), key
                # Everything had a gradient before, so there is momentum and decay that could move it.
                assert f"gradient 0 {key}" in tensors


def test_checkpoints_are_the_same_files_sharded_or_not(both):
    _, _, folder, trainer = both
    whole, sharded = written(folder / "whole"), written(folder / "sharded")
    assert whole.keys() == sharded.keys()
    assert written(folder / "again") == whole  # loaded by sharded processes and written by them
    load_checkpoint(checkpoint_folder(folder / "sharded", 3), trainer.state)
    save_checkpoint(folder / "back", 3, trainer.state, True)
    assert written(folder / "back") == sharded != whole
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(checkpoint_folder(folder / run, 3) / name) for run in ("whole", "sharded"))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-5)


def one_pass(model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    with task_context(model, "user2item"):
        hidden = model.get_decoder()(input_ids=batch(), is_causal=False, use_cache=False).last_hidden_state
    hidden.square().mean().backward()
    gradients = {key: p.grad for key, p in model.adapter_tensors().items() if p.grad is not None}
    return hidden.detach(), gathered(gradients, True)


def architectures_worker() -> None:
    accelerator = Accelerator(cpu=True)
    for name, (_, targets) in ARCHITECTURES.items():
        for checkpointing in (False, True):
            whole, sharded = (randomize(add_tmole(architecture(name), config(target_modules=targets))) for _ in "ab")
            sharded.load_adapter_tensors(whole.adapter_tensors())
            if checkpointing:
                sharded.train().activation_checkpointing_enable()
            shard(sharded, accelerator)
            (expected, gradients), (found, summed) = one_pass(whole.train()), one_pass(sharded.train())
            torch.testing.assert_close(found, expected)
            assert summed.keys() == gradients.keys()
            for key, gradient in gradients.items():
                # Both processes ran the same batch; the task embeddings are left to `sum_gradients`.
                times = 1 if ".z." in key else 2
                torch.testing.assert_close(summed[key], times * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_every_architecture_is_sharded():
    codes, said = launch(WORKER, [HERE, "architectures_worker"], 2)
    assert codes == [0, 0], said


def test_one_process_is_refused_before_the_base_is_loaded(recipe, capsys):
    assert main(["model", "train", recipe(sharding="fsdp2", base="/no/such/base")]) == 2
    assert "sharding: fsdp2 spreads the base over several processes, and there is one" in capsys.readouterr().err
