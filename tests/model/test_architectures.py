"""TMoLE on the decoders that people use: everything that is promised of the method, on each of them."""

import pytest
import torch
from peft import PeftModel
from tiny_models import ARCHITECTURES, architecture, batch, config, randomize
from torch import nn

from recfound_model import add_tmole, collapse, load_tmole, task_context
from recfound_model.routing import gates, live_groups

EMBEDDING, OTHER_EMBEDDING, GENERATIVE = "user2item", "query2item", "sentiment_analysis"
SIZES = [
    {"experts": {"embedding": 2, "shared": 2, "generative": 2}, "r": 4, "alpha": 16},
    {"experts": {"embedding": 1, "shared": 3, "generative": 2}, "r": 3, "alpha": 2},
    {"experts": {"embedding": 3, "shared": 0, "generative": 1}, "r": 1, "alpha": 1},
]
CASES = [
    pytest.param(name, targets, SIZES[number % len(SIZES)], id=f"{name}-{'all' if targets == 'all-linear' else 'some'}")
    for number, (name, targets) in enumerate(
        (name, targets) for name, (_, own) in ARCHITECTURES.items() for targets in (own, "all-linear")
    )
]
every_case = pytest.mark.parametrize(("name", "targets", "sizes"), CASES)


def adapted(name, targets, sizes, **settings):
    return randomize(add_tmole(architecture(name), config(target_modules=targets, **sizes, **settings)))


class LoopOverExperts(nn.Module):
    """An adapted layer as the equation is written, for one task."""

    def __init__(self, layer, settings, task):
        super().__init__()
        self.layer, self.settings, self.task = layer, settings, task

    def forward(self, x):
        experts, r = self.layer.experts, self.settings.r
        groups = live_groups([self.settings.kind_of(self.task)], self.settings.experts)
        R, b = (torch.cat([stack[group] for group in groups]) for stack in (experts.R, experts.b))
        g = iter(gates(R, b, self.layer.routing.embeddings[self.task][None])[0])
        y = self.layer.base_layer(x)
        for group in groups:
            for e in range(self.settings.experts[group]):
                own = slice(e * r, (e + 1) * r)
                y = y + self.settings.alpha / r * next(g) * (x @ experts.A[group][own].T @ experts.B[group][:, own].T)
        return y


def with_loops(model, task):
    """The model's base, its adapted layers replaced by loops."""
    for path, layer in model.adapted_layers():
        model.model.set_submodule(path, LoopOverExperts(layer, model.tmole_config, task))
    return model.model


@every_case
def test_stacked_equals_loop_and_rows_and_tokens_equal_alone(name, targets, sizes):
    model, tokens = adapted(name, targets, sizes), batch(3)
    tasks = [EMBEDDING, GENERATIVE, OTHER_EMBEDDING]
    alone = []
    with torch.no_grad():
        for task in tasks:
            with task_context(model, task):
                alone.append(model(tokens).logits)
        with task_context(model, tasks):
            rows = model(tokens).logits
        with task_context(model, tasks, torch.tensor([[0], [1], [2]]).expand(3, 7)):
            token_rows = model(tokens).logits
        for row, expected in enumerate(alone):
            torch.testing.assert_close(rows[row], expected[row], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(token_rows[row], expected[row], rtol=1e-4, atol=1e-4)
        assert min((alone[0] - other).abs().max() for other in alone[1:]) > 1e-3
        base = architecture(name)(tokens).logits
        slow = with_loops(model, GENERATIVE)(tokens).logits
    assert (slow - base).abs().max() > 1e-2
    torch.testing.assert_close(alone[1], slow, rtol=1e-4, atol=1e-4)


@every_case
def test_saved_and_collapsed_equal_native(name, targets, sizes, tmp_path):
    model, tokens = adapted(name, targets, sizes), batch(3)
    model.save_pretrained(tmp_path / "adapter")
    loaded = load_tmole(architecture(name), tmp_path / "adapter")
    for task, causal in ((EMBEDDING, False), (GENERATIVE, True)):
        collapse(tmp_path / "adapter", task, tmp_path / task)
        stock = PeftModel.from_pretrained(architecture(name), str(tmp_path / task)).eval()
        with torch.no_grad(), task_context(model, task), task_context(loaded, task):
            native = model(tokens, is_causal=causal).logits
            assert torch.equal(loaded(tokens, is_causal=causal).logits, native)
            torch.testing.assert_close(stock(tokens, is_causal=causal).logits, native, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_embedding_attention_looks_both_ways_and_not_at_padding(name):
    model = adapted(name, ARCHITECTURES[name][1], SIZES[0])
    tokens = batch(2, length=6)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 100 + 2

    def hidden(ids, mask=None, **arguments):
        mask = torch.ones_like(ids) if mask is None else mask
        return model.get_decoder()(ids, attention_mask=mask, use_cache=False, **arguments).last_hidden_state

    padding = torch.full((2, 3), 7)
    there, not_there = torch.ones_like(tokens), torch.zeros_like(padding)
    with torch.no_grad(), task_context(model, EMBEDDING):
        plain, seen = hidden(tokens, is_causal=False), hidden(changed, is_causal=False)
        padded = hidden(torch.cat([tokens, padding], 1), torch.cat([there, not_there], 1), is_causal=False)
        assert (plain - seen)[:, :-1].abs().amin(1).max() > 1e-3  # every earlier position saw the last token change
        torch.testing.assert_close(padded[:, :6], plain, rtol=1e-4, atol=1e-4)
        assert torch.equal(hidden(tokens)[:, :-1], hidden(changed)[:, :-1])  # causal, when nothing is said


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_checkpointing_changes_no_gradient(name):
    def step(checkpointing):
        torch.manual_seed(4)
        model = adapted(name, ARCHITECTURES[name][1], SIZES[0], dropout=0.1).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(5)
        with task_context(model, EMBEDDING):
            pooled = model.get_decoder()(batch(), is_causal=False, use_cache=False).last_hidden_state.mean(1)
        with task_context(model, [GENERATIVE, EMBEDDING], torch.arange(21).view(3, 7) % 2):
            logits = model(batch(), use_cache=False).logits
        (pooled.square().sum() + logits.logsumexp(-1).mean()).backward()
        return {key: t.grad for key, t in model.adapter_tensors().items() if t.grad is not None}

    plain, recomputed = step(False), step(True)
    assert plain.keys() == recomputed.keys() and all(g.abs().max() > 0 for key, g in plain.items() if ".R." in key)
    for key, gradient in plain.items():
        torch.testing.assert_close(
            recomputed[key], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}"
        )
