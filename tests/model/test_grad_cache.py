"""GradCache = full batch, dropout included, with one chunk's activations at a time."""

import pytest
import torch
from torch import nn

from recfound_model.grad_cache import RandomState, backward_in_chunks


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 4)).double()


def loss(vectors: torch.Tensor) -> torch.Tensor:
    """Ties every row to every other one."""
    scores = vectors @ vectors.T
    return torch.logsumexp(scores, dim=1).mean() - scores.diagonal().mean() / 3


def gradients(model: nn.Module) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return found


@pytest.mark.parametrize("sizes", [[10], [9, 1], [3, 3, 4], [1] * 10])
def test_chunks_give_the_gradient_of_the_whole(sizes):
    model, chunks = network(), torch.randn(10, 6, dtype=torch.float64).split(sizes)
    torch.manual_seed(1)
    whole = loss(torch.cat([model(chunk) for chunk in chunks]))
    whole.backward()
    expected = gradients(model)
    after = torch.rand(3)

    torch.manual_seed(1)
    value = backward_in_chunks(model, chunks, loss)
    assert value.item() == pytest.approx(whole.item(), rel=1e-12) and not value.requires_grad
    assert torch.equal(torch.rand(3), after)  # the second runs leave no trace in the random state
    for found, gradient in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-12)


def test_gradients_are_added_to_those_that_are_there():
    model, chunks = network().eval(), torch.randn(4, 6, dtype=torch.float64).split(2)
    backward_in_chunks(model, chunks, loss)
    once = [parameter.grad.clone() for parameter in model.parameters()]
    backward_in_chunks(model, chunks, loss)
    for found, gradient in zip(gradients(model), once, strict=True):
        torch.testing.assert_close(found, 2 * gradient)


def test_one_chunk_holds_its_activations_at_a_time():
    model, chunks = network(), torch.randn(12, 6, dtype=torch.float64).split(3)
    alive, most, runs = set(), [], []

    def encode(chunk):
        runs.append(torch.is_grad_enabled())
        out = model(chunk)
        if out.requires_grad:
            alive.add(len(runs))
            most.append(len(alive))
            run = len(runs)
            out.register_hook(lambda _: alive.discard(run))
        return out

    backward_in_chunks(encode, chunks, loss)
    assert runs == [False, False, False, True, True, True, True] and max(most) == 1


def test_replaying_goes_back_and_on():
    torch.manual_seed(3)
    state = RandomState.now()
    first, second = torch.rand(2), torch.rand(2)
    with state.replayed():
        assert torch.equal(torch.rand(2), first)
    state.set()
    assert torch.equal(torch.rand(2), first) and torch.equal(torch.rand(2), second)
