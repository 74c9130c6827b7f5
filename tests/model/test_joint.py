"""The step of training: chunks, layouts and processes change no gradient; what a batch does not hold does not count."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from processes import launch
from safetensors.torch import load_file
from torch.nn import functional

from recfound_data.errors import RecfoundError
from recfound_model import task_context
from recfound_model.batches import TokenSequence, padded
from recfound_model.training.joint import AlignedPasses
from recfound_model.training.loop import Trainer
from recfound_model.training.recipe import TrainRecipe
from recfound_model.training.sharding import laid_out_as
from recfound_model.training.streams import Stream

EMBEDDING, GENERATIVE = ("user2item", "query2item", "item2item"), "sequential_recommendation"
DRAWS = {"user2item": 4, "query2item": 5, "item2item": 3, GENERATIVE: 5}


@pytest.fixture
def trainer(settings, tmp_path):
    """Makes trainers without dropout or clipping, all of the same first weights."""

    def make(**changes) -> Trainer:
        adapter = {"r": 4, "alpha": 8, "task_dim": 8, "dropout": 0.0}
        keys = {"generative_batch": 5, "max_grad_norm": 1e9, "adapter": adapter, "generative_weight": 0.5}
        return as_trained(Trainer(TrainRecipe(**settings(out=str(tmp_path / "run"), **keys) | changes)))

    return make


@torch.no_grad()
def as_trained(trainer: Trainer) -> Trainer:
    """With B = 0 no other factor has a gradient."""
    draw = torch.Generator().manual_seed(1)
    for key, tensor in trainer.model.adapter_tensors().items():
        if ".B." in key:
            tensor.copy_(laid_out_as(tensor, torch.randn(tensor.shape, generator=draw) * 0.2))
    return trainer


def draws(trainer: Trainer, counts: dict[str, int] = DRAWS) -> tuple[dict, dict]:
    drawn = {task: Stream(task, trainer.streams[task].samples, 0).draw(count) for task, count in counts.items()}
    return trainer._by_kind(drawn)


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    tensors = trainer.model.adapter_tensors()
    found = {key: tensor.grad.clone() for key, tensor in tensors.items() if tensor.grad is not None}
    trainer.model.zero_grad()
    return found


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


def slow_step(trainer: Trainer, embedding: dict, generative: dict) -> dict[str, float]:
    """The objective as it is written down: every text alone, the whole head, one backward; returns losses by task."""
    collator, model, recipe = trainer.objective.collator, trainer.model, trainer.recipe
    pairs, vectors = collator.pairs(embedding), []
    for sequence in collator.tokenize(pairs.texts):
        with task_context(model, sequence.task):
            ids = torch.tensor([sequence.ids])
            hidden = model.get_decoder()(input_ids=ids, is_causal=False, use_cache=False).last_hidden_state
        vectors.append(functional.normalize(hidden[0, sequence.marked :].mean(0), dim=0))
    anchors, documents = torch.stack(vectors[: len(pairs.tasks)]), torch.stack(vectors[len(pairs.tasks) :])
    losses: dict[str, list] = {}
    for at, task in enumerate(pairs.tasks):
        scores = documents @ anchors[at] / recipe.temperature
        allowed = [scores[j] for j in range(len(scores)) if j == pairs.positives[at] or not pairs.excluded[at, j]]
        losses.setdefault(task, []).append(torch.stack(allowed).logsumexp(0) - scores[pairs.positives[at]])
    total = torch.stack([loss for of_task in losses.values() for loss in of_task]).mean()
    tokens: dict[str, list] = {}
    for task, rows in generative.items():
        for sequence in collator.completions([(task, row) for row in rows]):
            ids = torch.tensor([sequence.ids])
            with task_context(model, task):
                logits = model(input_ids=ids).logits[0]
            each = functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
            tokens.setdefault(task, []).append(each[sequence.marked - 1 :])
    if tokens:
        every = torch.cat([loss for of_task in tokens.values() for loss in of_task])
        assert len(every) > 5
        total = total + recipe.generative_weight * every.mean()
    total.backward()
    found = {task: torch.stack(of_task).mean().item() for task, of_task in losses.items()}
    return found | {task: torch.cat(of_task).mean().item() for task, of_task in tokens.items()}


@pytest.mark.parametrize("negatives", ["same_task", "all"])
def test_a_step_equals_the_objective_as_it_is_written_down(trainer, negatives):
    whole = trainer(negatives=negatives)
    expected_losses = slow_step(whole, *draws(whole))
    expected = gradients(whole)
    assert expected.keys() == whole.model.adapter_tensors().keys()
    assert all(gradient.any() for gradient in expected.values())
    for changes in (
        {"tokens_per_forward": 10**6},
        {"tokens_per_forward": 200},
        {"tokens_per_forward": 1},  # a pass for each text
        {"tokens_per_forward": 300, "packing": True},
        {"tokens_per_forward": 200, "gradient_checkpointing": True},
    ):
        made = trainer(negatives=negatives, **changes)
        found = made.objective.backward(*draws(made))
        assert found.losses == pytest.approx(expected_losses, rel=1e-4)
        assert_same(gradients(made), expected)


def test_negatives_of_all_tasks_make_it_harder(trainer):
    losses = {}
    for negatives in ("same_task", "all"):
        made = trainer(negatives=negatives)
        losses[negatives] = made.objective.losses(*draws(made)).losses
    assert all(losses["all"][task] > losses["same_task"][task] + 0.1 for task in EMBEDDING)
    assert losses["all"][GENERATIVE] == losses["same_task"][GENERATIVE]


def test_chunks_draw_the_dropout_of_the_first_pass(trainer):
    """With dropout, chunks of GradCache are not the full batch's draws; but finite differences must agree."""
    made = trainer(adapter={"r": 4, "alpha": 8, "task_dim": 8, "dropout": 0.3}, tokens_per_forward=150)
    embedding, _ = draws(made)

    torch.manual_seed(5)
    made.objective.backward(embedding, {})
    found = gradients(made)
    # The loss that is differentiated is the mean over all pairs.
    pairs = sum(len(rows) for rows in embedding.values())
    weights = {task: len(rows) / pairs for task, rows in embedding.items()}
    key = max((key for key in found if ".B.shared" in key), key=lambda key: found[key].abs().max())
    place = divmod(int(found[key].abs().argmax()), found[key].shape[1])
    values = []
    for step in (1e-3, -1e-3):
        tensor = made.model.adapter_tensors()[key]
        with torch.no_grad():
            tensor[place] += step
        torch.manual_seed(5)
        losses = made.objective.backward(embedding, {}).losses
        values.append(sum(weights[task] * value for task, value in losses.items()))
        with torch.no_grad():
            tensor[place] -= step
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(found[key][place].item(), rel=0.02)


def test_the_head_runs_at_supervised_positions_alone(trainer):
    made = trainer()
    _, generative = draws(made)
    seen = []
    made.model.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(out.shape))
    made.objective.backward({}, generative)
    samples = [(task, row) for task, rows in generative.items() for row in rows]
    supervised = sum(len(one.ids) - one.marked for one in made.objective.collator.completions(samples))
    assert sum(shape[:-1].numel() for shape in seen) == supervised
    assert not any(".embedding" in key for key in gradients(made))


def test_losses_leave_model_gradients_and_mode_alone(trainer):
    made = trainer(adapter={"r": 4, "alpha": 8, "task_dim": 8, "dropout": 0.5})
    first, again = (made.objective.losses(*draws(made)) for _ in range(2))
    assert first == again and first.losses.keys() == DRAWS.keys()
    assert made.model.training and all(tensor.grad is None for tensor in made.trained)
    assert 0 < first.tokens <= first.computed


def test_a_token_of_a_text_sees_what_follows_it(trainer):
    made = trainer()
    embedding, _ = draws(made, {"query2item": 1})
    sequence = made.objective.collator.tokenize(made.objective.collator.pairs(embedding).texts)[0]
    embedded = []
    for token in (7, 70):
        # The first token after the prompt is pooled alone; with causal attention the last one could not matter.
        ids = [*sequence.ids[:-1], token]
        layout = made.objective._layout([type(sequence)("query2item", ids, sequence.marked)])
        layout.marked[:, sequence.marked + 1 :] = False
        with torch.no_grad():
            embedded.append(made.objective._encode([layout]))
    assert (embedded[0] - embedded[1]).abs().max() > 1e-3


def test_a_loss_that_is_not_finite_names_the_task_and_its_samples(trainer):
    made = trainer()
    with torch.no_grad():
        for parameter in made.trained:
            parameter.fill_(float("nan"))
    embedding, generative = draws(made)
    ids = ", ".join(row["id"] for row in embedding["user2item"])
    with pytest.raises(RecfoundError) as caught:
        made.objective.backward(embedding, generative)
    assert str(caught.value) == f"the loss of user2item is nan; its samples begin {ids}; lower learning_rate"
    with pytest.raises(RecfoundError, match=f"the loss of {GENERATIVE} is nan"):
        made.objective.losses({}, generative)


# --- processes


@pytest.mark.parametrize(("most", "lengths"), [(100, [1, 2, 1, 1]), (1, [1] * 5), (10**6, [5])])
def test_chunks_are_cut_by_the_largest_passes_of_any_process(most, lengths):
    layouts = [padded([TokenSequence("query2item", [1] * length, 1)], 0) for length in (3, 9, 1, 2, 2)]
    chunks = AlignedPasses(layouts, real=3, sizes=[60, 50, 40, 200, 10]).chunks(most)
    assert [len(chunk) for chunk in chunks] == lengths
    assert [layout for chunk in chunks for layout in chunk] == layouts


WORKER = """
import json, sys, torch, yaml
sys.path.insert(0, sys.argv[2])
from test_joint import as_trained, draws
from recfound_model.training.joint import sum_gradients
from recfound_model.training.loop import Trainer
from recfound_model.training.recipe import TrainRecipe
from safetensors.torch import save_file

torch.set_num_threads(1)
folder = sys.argv[1]
with open(f"{folder}/recipe.yaml") as file:
    trainer = as_trained(Trainer(TrainRecipe(**yaml.safe_load(file))))
rank = trainer.accelerator.process_index
assert trainer.accelerator.num_processes == 2
found = trainer.objective.backward(*draws(trainer))
own = {k: t.grad.clone() for k, t in trainer.model.adapter_tensors().items() if t.grad is not None}
sum_gradients(trainer.accelerator, trainer.trained)
summed = {k: t.grad for k, t in trainer.model.adapter_tensors().items() if t.grad is not None}
save_file(own, f"{folder}/own-{rank}.safetensors")
save_file(summed, f"{folder}/summed-{rank}.safetensors")
with open(f"{folder}/losses-{rank}.json", "w") as file:
    json.dump([found.losses, found.tokens], file)
trainer.accelerator.end_training()
"""


@pytest.mark.parametrize("changes", [{}, {"negatives": "all", "tokens_per_forward": 150}], ids=["one pass", "chunks"])
def test_two_processes_give_the_gradient_of_one(trainer, tmp_path, changes):
    one = trainer(**changes)
    expected_losses = one.objective.backward(*draws(one))
    expected = gradients(one)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(one.recipe.model_dump(mode="json")))
    codes, said = launch(WORKER, [str(tmp_path), str(Path(__file__).parent)], processes=2)
    assert codes == [0, 0], said
    parts = [load_file(tmp_path / f"own-{rank}.safetensors") for rank in (0, 1)]
    for rank in (0, 1):
        losses, tokens = json.loads((tmp_path / f"losses-{rank}.json").read_text())
        assert losses == pytest.approx(expected_losses.losses, rel=1e-4) and tokens == expected_losses.tokens
        assert_same(load_file(tmp_path / f"summed-{rank}.safetensors"), expected)
    # Neither part is the whole, so both processes did some of it.
    for key, gradient in expected.items():
        if ".A.shared" in key:
            assert all((part[key] - gradient).norm() > 0.05 * gradient.norm() for part in parts), key
