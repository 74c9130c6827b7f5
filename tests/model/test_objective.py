"""The parts of the joint objective against slow, obvious versions of themselves."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from recfound_model.objective import info_nce, token_losses
from recfound_model.training.loop import learning_rate
from recfound_model.training.recipe import TrainRecipe

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


def slow_info_nce(anchors, documents, positives, excluded, temperature, weights=None):
    losses, weights = [], weights or [1.0] * len(documents)
    for i in range(len(anchors)):
        total = 0.0
        for j in range(len(documents)):
            if j == positives[i] or not excluded[i, j]:
                total += math.exp(float(anchors[i] @ documents[j]) / temperature) / weights[j]
        right = math.exp(float(anchors[i] @ documents[positives[i]]) / temperature) / weights[positives[i]]
        losses.append(math.log(total) - math.log(right))
    return losses


def test_info_nce_equals_double_loop():
    inputs = pairs()
    assert info_nce(*inputs, TEMPERATURE).tolist() == pytest.approx(slow_info_nce(*inputs, TEMPERATURE), rel=1e-9)


def test_what_comes_often_weighs_less():
    inputs = pairs()
    weights = [float(1 + place % 3) for place in range(len(inputs[1]))]
    found = info_nce(*inputs, TEMPERATURE, torch.tensor(weights, dtype=torch.float64).log())
    assert found.tolist() == pytest.approx(slow_info_nce(*inputs, TEMPERATURE, weights), rel=1e-9)
    alike = info_nce(*inputs, TEMPERATURE, torch.full((len(inputs[1]),), 3.0))
    assert alike.tolist() == pytest.approx(info_nce(*inputs, TEMPERATURE).tolist(), rel=1e-9)


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


def test_token_losses_are_those_of_each_token():
    logits, targets = torch.randn(6, 11), torch.randint(11, (6,))
    rows = zip(logits.tolist(), targets.tolist(), strict=True)
    slow = [math.log(sum(math.exp(score) for score in row)) - row[target] for row, target in rows]
    assert token_losses(logits, targets).tolist() == pytest.approx(slow, rel=1e-5)
    assert token_losses(logits[:0], targets[:0]).shape == (0,)
    assert token_losses(logits.bfloat16(), targets).dtype == torch.float32


def test_learning_rate_rises_over_the_warm_up_and_falls_to_zero_after_the_last_step():
    recipe = TrainRecipe(base="b", data="d", out="o", steps=100, warmup=0.1, learning_rate=1.0)
    rates = [learning_rate(step, recipe) for step in range(1, 102)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(1.0) and rates[-1] == 0
    falls = [early - late for early, late in pairwise(rates[10:])]
    assert falls == pytest.approx([1 / 90] * 90)
    assert learning_rate(1, recipe.model_copy(update={"warmup": 0.0})) == 1.0
