"""The joint objective against slow, obvious versions of itself, and its parts against the whole of a step."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from recfound_model import task_context
from recfound_model.objective import completion_loss, info_nce, largest_remainder, mean_pool
from recfound_model.training.loop import Trainer, learning_rate
from recfound_model.training.recipe import TrainRecipe
from recfound_model.training.streams import Stream

TEMPERATURE = 0.05


def pairs(batch: int = 5, documents: int = 9, seed: int = 3) -> tuple[torch.Tensor, ...]:
    """Normalised vectors in float64, a positive each (two anchors share one), and exclusions, a positive among them."""
    draw = torch.Generator().manual_seed(seed)
    anchors = functional.normalize(torch.randn(batch, 6, generator=draw, dtype=torch.float64), dim=-1)
    docs = functional.normalize(torch.randn(documents, 6, generator=draw, dtype=torch.float64), dim=-1)
    positives = torch.tensor([0, 3, 3, 8, 1])
    excluded = torch.rand(batch, documents, generator=draw) < 0.3
    excluded[0, 0] = excluded[3, 8] = True
    excluded[1] = False
    return anchors, docs, positives, excluded


def slow_info_nce(anchors, documents, positives, excluded, temperature):
    losses = []
    for i in range(len(anchors)):
        total = 0.0
        for j in range(len(documents)):
            if j == positives[i] or not excluded[i, j]:
                total += math.exp(float(anchors[i] @ documents[j]) / temperature)
        losses.append(math.log(total) - float(anchors[i] @ documents[positives[i]]) / temperature)
    return losses


def test_info_nce_equals_double_loop():
    inputs = pairs()
    assert info_nce(*inputs, TEMPERATURE).tolist() == pytest.approx(slow_info_nce(*inputs, TEMPERATURE), rel=1e-9)


def test_excluded_documents_get_no_gradient_and_the_positive_always_does():
    anchors, documents, positives, excluded = pairs()
    documents.requires_grad_()
    for row in range(len(anchors)):
        one = slice(row, row + 1)
        loss = info_nce(anchors[one], documents, positives[one], excluded[one], TEMPERATURE)
        (gradient,) = torch.autograd.grad(loss.sum(), documents)
        for column in range(len(documents)):
            counts = column == positives[row] or not excluded[row, column]
            assert bool(gradient[column].any()) == bool(counts), (row, column)


def test_mean_pool_ignores_prompt_and_padding():
    hidden, rubbish = torch.randn(2, 5, 4), torch.randn(2, 5, 4) * 1e3
    pooled = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
    expected = torch.stack(
        [functional.normalize(hidden[0, 2:5].mean(0), dim=0), functional.normalize(hidden[1, 1:3].mean(0), dim=0)]
    )
    torch.testing.assert_close(mean_pool(hidden, pooled), expected)
    changed = torch.where(pooled.unsqueeze(-1).bool(), hidden, rubbish)
    assert torch.equal(mean_pool(changed, pooled), mean_pool(hidden, pooled))
    assert mean_pool(hidden.bfloat16(), pooled).dtype == torch.float32
    assert mean_pool(hidden, torch.zeros_like(pooled)).isfinite().all()


def test_completion_loss_is_a_sum_over_tokens():
    logits, targets = torch.randn(6, 11), torch.randint(11, (6,))
    rows = zip(logits.tolist(), targets.tolist(), strict=True)
    slow = sum(math.log(sum(math.exp(score) for score in row)) - row[target] for row, target in rows)
    assert completion_loss(logits, targets).item() == pytest.approx(slow, rel=1e-5)
    assert completion_loss(logits[:0], targets[:0]).item() == 0


@pytest.mark.parametrize(
    ("weights", "total", "counts"),
    [
        ({"a": 1, "b": 1, "c": 1}, 10, {"a": 4, "b": 3, "c": 3}),  # a tie: the earlier key has the rest
        ({"a": 1, "b": 1}, 1, {"a": 1, "b": 0}),
        ({"a": 5, "b": 3, "c": 1}, 10, {"a": 6, "b": 3, "c": 1}),  # 5.56, 3.33, 1.11
        ({"a": 0, "b": 2.5, "c": 2.5}, 3, {"a": 0, "b": 2, "c": 1}),
        ({"a": 3}, 0, {"a": 0}),
    ],
)
def test_largest_remainder(weights, total, counts):
    assert largest_remainder(weights, total) == counts


def test_largest_remainder_sums_to_the_total_and_is_off_by_less_than_one():
    draw = torch.Generator().manual_seed(0)
    for total in range(1, 200):
        weights = {str(key): weight for key, weight in enumerate((torch.rand(13, generator=draw) ** 4).tolist())}
        counts = largest_remainder(weights, total)
        assert sum(counts.values()) == total
        exact = {key: weight * total / sum(weights.values()) for key, weight in weights.items()}
        assert all(abs(counts[key] - exact[key]) < 1 for key in weights)


def test_learning_rate_rises_over_the_warm_up_and_falls_to_zero_after_the_last_step():
    recipe = TrainRecipe(base="b", data="d", out="o", steps=100, warmup=0.1, learning_rate=1.0)
    rates = [learning_rate(step, recipe) for step in range(1, 102)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(1.0) and rates[-1] == 0
    falls = [early - late for early, late in pairwise(rates[10:])]
    assert falls == pytest.approx([1 / 90] * 90)
    assert learning_rate(1, recipe.model_copy(update={"warmup": 0.0})) == 1.0


# --- a step


@pytest.fixture
def trainer(settings, tmp_path):
    """Makes trainers without dropout or clipping, all of the same first weights."""

    def make(**changes) -> Trainer:
        adapter = {"r": 4, "alpha": 8, "task_dim": 8, "dropout": 0.0}
        keys = {"generative_batch": 5, "max_grad_norm": 1e9, "adapter": adapter, "generative_weight": 0.5}
        made = Trainer(TrainRecipe(**settings(out=str(tmp_path / "run"), **keys) | changes))
        with torch.no_grad():  # as if trained: with B = 0 no other factor has a gradient
            draw = torch.Generator().manual_seed(1)
            for key, tensor in made.model.adapter_tensors().items():
                if ".B." in key:
                    tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.2)
        return made

    return make


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    tensors = trainer.model.adapter_tensors()
    found = {key: tensor.grad.clone() for key, tensor in tensors.items() if tensor.grad is not None}
    assert found.keys() == tensors.keys() and all(gradient.any() for gradient in found.values())
    return found


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-5, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


def test_step_equals_one_backward_over_the_whole_batch(trainer):
    whole = trainer()
    recipe, model = whole.recipe, whole.model
    drawn = {task: Stream(task, whole.streams[task].samples, 0).draw(count) for task, count in whole.plan.items()}
    embedding, generative, tokens = [], [], 0
    for task, rows in drawn.items():
        if whole.kinds[task] == "embedding":
            embedding.append(whole.contrastive_loss(whole.collator.contrastive(task, rows)))
        else:
            batch = whole.collator.completion(task, rows)
            with task_context(model, task):
                logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            targets = batch.input_ids.masked_fill(~batch.supervised, -100)
            generative.append(
                functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), reduction="sum")
            )
            tokens += int(batch.supervised.sum())
    assert len(embedding) == 3 and len(generative) == 1 and tokens > 5
    (torch.cat(embedding).mean() + recipe.generative_weight * sum(generative) / tokens).backward()
    expected = gradients(whole)

    for rows_per_forward in (1, 8):
        stepped = trainer(rows_per_forward=rows_per_forward)
        record = stepped.step(1)
        assert_same(gradients(stepped), expected)
        for (task, rows), losses in zip(drawn.items(), [*embedding, sum(generative) / tokens], strict=True):
            assert record["losses"][task] == pytest.approx(losses.mean().item(), abs=2e-5)
            assert record["samples"][task] == len(rows)


def test_head_at_supervised_positions_equals_full_head(trainer):
    made = trainer()
    task = "sequential_recommendation"
    batch = made.collator.completion(task, made.streams[task].draw(4))
    assert 4 <= batch.supervised.sum() < batch.supervised.numel() / 4
    seen = []
    hook = made.model.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(out.shape))
    loss = made.completion_loss(batch)
    assert [shape[:-1].numel() for shape in seen] == [int(batch.supervised.sum())]
    loss.backward()
    found = {key: t.grad.clone() for key, t in made.model.adapter_tensors().items() if t.grad is not None}
    hook.remove()

    made.model.zero_grad()
    labels = batch.input_ids.masked_fill(~batch.supervised, -100)
    with task_context(made.model, task):
        full = made.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    assert loss.item() == pytest.approx(full.item() * int(batch.supervised.sum()), rel=1e-5)
    (full * batch.supervised.sum()).backward()
    expected = {key: t.grad for key, t in made.model.adapter_tensors().items() if t.grad is not None}
    assert found.keys() == expected.keys() and not any(".embedding" in key for key in found)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5)


def test_a_token_of_a_text_sees_what_follows_it(trainer):
    made = trainer()
    batch = made.collator.contrastive("query2item", made.streams["query2item"].draw(1))
    # The first token after the prompt is pooled alone; with causal attention the last one could not matter.
    first = batch.anchors.pooled.cumsum(1).eq(1) & batch.anchors.pooled.bool()
    last = batch.anchors.attention_mask.sum() - 1
    embedded = []
    for token in (7, 70):
        ids = batch.anchors.input_ids.clone()
        ids[0, last] = token
        inputs = type(batch.anchors)(ids, batch.anchors.attention_mask, first.long())
        with torch.no_grad(), task_context(made.model, "query2item"):
            embedded.append(made.embed(inputs))
    assert (embedded[0] - embedded[1]).abs().max() > 1e-3
