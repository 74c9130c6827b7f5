import copy

import pytest
import torch
from tiny_models import base_model, batch, config, randomize
from torch.utils.checkpoint import checkpoint

from recfound_data.errors import RecfoundError
from recfound_model import add_tmole, task_context
from recfound_model.tmole import TmoleModel

EMBEDDING, GENERATIVE = "user2item", "sentiment_analysis"
ENTRY_POINTS = ("gradient_checkpointing_enable", "activation_checkpointing_enable")


def three_forwards_one_backward(model: TmoleModel) -> dict[str, torch.Tensor]:
    """The gradients of a step in which an embedding pass, one of mixed rows and a packed one share one backward."""
    tokens = batch()
    model.zero_grad()
    torch.manual_seed(11)  # dropout is on: its draws must be the same, and be repeated in the recomputation
    with task_context(model, EMBEDDING):
        hidden = model.model.model(tokens, is_causal=False).last_hidden_state.mean(1)
    with task_context(model, [GENERATIVE, EMBEDDING, GENERATIVE]):
        logits = model(tokens).logits
    with task_context(model, [GENERATIVE, EMBEDDING], torch.arange(21).view(3, 7) // 5 % 2):
        packed = model(tokens).logits
    (hidden.square().sum() + logits.logsumexp(-1).mean() + packed.logsumexp(-1).mean()).backward()
    return {key: tensor.grad.clone() for key, tensor in model.adapter_tensors().items() if tensor.grad is not None}


def adapted(checkpointing=None, reentrant=False, before=False, on_base=False) -> TmoleModel:
    base = base_model()

    def enable(model):
        argument = checkpointing.replace("enable", "kwargs")
        getattr(model, checkpointing)(**{argument: {"use_reentrant": reentrant}})

    if checkpointing and before:
        enable(base)
    torch.manual_seed(2)
    model = randomize(add_tmole(base, config(dropout=0.1)))
    if checkpointing and not before:
        enable(base.model if on_base else model)
    return model.train()


def assert_same(plain: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert plain.keys() == other.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(
            other[key], gradient, rtol=1e-5, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.fixture(scope="module")
def plain():
    gradients = three_forwards_one_backward(adapted())
    routers = [g for key, g in gradients.items() if ".R." in key or ".z." in key]
    assert all(g.abs().max() > 0 for g in routers) and any(g.abs().max() > 1e-3 for g in routers)
    return gradients


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("where", ["before add_tmole", "on the adapted model", "on a part of the base"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_checkpointing_changes_no_gradient(plain, entry_point, reentrant, where):
    model = adapted(entry_point, reentrant, before=where.startswith("before"), on_base=where.endswith("base"))
    assert model.is_activation_checkpointing
    recomputed = count_layer_runs(model)
    assert_same(plain, three_forwards_one_backward(model))
    assert recomputed() == 2 * 3 * 2  # two layers, three passes, each run twice: it was checkpointed


def count_layer_runs(model: TmoleModel):
    runs = []
    for layer in model.model.model.layers:
        layer.self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    return lambda: len(runs)


def test_a_second_way_in_changes_nothing(plain):
    model = adapted(ENTRY_POINTS[1])
    three_forwards_one_backward(model)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": True})
    assert_same(plain, three_forwards_one_backward(model))
    model.activation_checkpointing_disable()
    assert_same(plain, three_forwards_one_backward(model))


def test_a_copy_recomputes_with_its_own_tasks(plain):
    model = adapted(ENTRY_POINTS[1])
    three_forwards_one_backward(model)
    twin = copy.deepcopy(model)
    with task_context(model, GENERATIVE):
        assert_same(plain, three_forwards_one_backward(twin))


@pytest.mark.parametrize("outside", [True, False])
def test_recomputation_without_the_tasks_raises_instead_of_being_wrong(outside):
    model = adapted()
    layer = model.adapted_layers()[0][1]
    x = torch.randn(2, 3, 32, requires_grad=True)
    with task_context(model, EMBEDDING):
        y = checkpoint(layer, x, use_reentrant=False)
    if outside:
        with pytest.raises(RecfoundError, match="without a task"):
            y.sum().backward()
    else:
        with task_context(model, GENERATIVE), pytest.raises(RecfoundError, match="does not carry the tasks"):
            y.sum().backward()


def test_a_context_inside_of_the_checkpointed_function_is_enough():
    model = adapted()
    layer = model.adapted_layers()[0][1].eval()
    x = torch.randn(2, 3, 32, requires_grad=True)

    def run(inputs):
        with task_context(model, EMBEDDING):
            return layer(inputs)

    (expected,) = torch.autograd.grad(run(x).sum(), x)
    with task_context(model, GENERATIVE):
        (found,) = torch.autograd.grad(checkpoint(run, x, use_reentrant=False).sum(), x)
    torch.testing.assert_close(found, expected)
