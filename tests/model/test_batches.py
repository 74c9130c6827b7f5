import random
from functools import partial
from itertools import pairwise, product

import pytest
import torch
import transformers
from tiny_models import adapted_model
from torch import nn
from torch.nn import functional
from transformers import modeling_flash_attention_utils as flash

from recfound_data.errors import UsageError
from recfound_model.batches import (
    MIN_FILL,
    Layout,
    TokenSequence,
    last_hidden,
    packed,
    padded,
    passes,
    pooled_means,
    predicting,
    same_sequence,
)
from recfound_model.routing import task_context

PAD = 0
TASKS = ("user2item", "sentiment_analysis", "query2item")
CONFIGS = {"Gemma3": "Gemma3Text"}
KINDS = ("Llama", "Qwen3", "Mistral", "Gemma", "GPTNeoX")


def model_of(kind: str, implementation: str = "sdpa", **settings) -> nn.Module:
    """A random model of two layers, its weights large enough for attention to matter."""
    torch.manual_seed(3)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2}
    config = getattr(transformers, f"{CONFIGS.get(kind, kind)}Config")(
        **{**sizes, **heads, "pad_token_id": PAD, **settings}
    )
    config._attn_implementation = implementation
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def sequences(lengths, seed: int = 0) -> list[TokenSequence]:
    """Random tokens that may well be the padding's own; the marked ones begin anywhere after the first."""
    draw = random.Random(seed)
    return [
        TokenSequence(TASKS[at % 3], [draw.randrange(50) for _ in range(n)], draw.randint(min(1, n - 1), n - 1))
        for at, n in enumerate(lengths)
    ]


LENGTHS = (9, 4, 12, 2, 7, 3, 5)
"""Packed: [12], [9, 3], [7, 5], [4, 2], with padding at the end of the last row."""


def of_each(values: torch.Tensor, layout: Layout) -> list[torch.Tensor]:
    """What belongs to each sequence, in the order in which the sequences were given."""
    return [values[layout.sequence == at] for at in range(len(layout.tasks))]


def assert_close(one, other, **tolerance):
    torch.testing.assert_close(one, other, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


# --- layouts


@pytest.mark.parametrize("row_tokens", [0, 5, 17, 1000])
def test_layouts_hold_every_token_where_they_say(row_tokens):
    draw = random.Random(row_tokens)
    for case in range(60):
        given = sequences([draw.randint(1, draw.choice([3, 30])) for _ in range(draw.randint(1, 25))], seed=case)
        longest = max(len(s.ids) for s in given)
        for layout in (padded(given, PAD), packed(given, PAD, row_tokens)):
            assert layout.tasks == tuple(s.task for s in given)
            assert layout.tokens == sum(len(s.ids) for s in given)
            assert layout.computed == layout.input_ids.numel()
            assert layout.fill == layout.tokens / layout.computed
            seen = 0
            for row in range(len(layout.input_ids)):
                ids, place, mine, marked = (
                    values[row].tolist()
                    for values in (layout.input_ids, layout.position_ids, layout.sequence, layout.marked)
                )
                at = 0
                while at < len(ids) and mine[at] >= 0:
                    one = given[mine[at]]
                    end = at + len(one.ids)
                    assert ids[at:end] == list(one.ids) and place[at:end] == list(range(len(one.ids)))
                    assert mine[at:end] == [mine[at]] * len(one.ids)
                    assert marked[at:end] == [token >= one.marked for token in range(len(one.ids))]
                    at, seen = end, seen + 1
                rest = len(ids) - at
                assert ids[at:] == [PAD] * rest and place[at:] == list(range(rest))
                assert mine[at:] == [-1] * rest and not any(marked[at:])
            assert seen == len(given)
        assert layout.input_ids.shape[1] <= max(longest, row_tokens)
        assert (layout.sequence >= 0).sum(1).max() == layout.input_ids.shape[1]  # no column is all padding
        rows = len(layout.input_ids)
        assert rows == len(given) or rows <= 1.5 * layout.tokens / max(longest, row_tokens) + 1  # first-fit decreasing


def test_padded_keeps_the_order_and_packed_is_packed():
    given = sequences(LENGTHS)
    plain, dense = padded(given, PAD), packed(given, PAD)
    assert plain.sequence[:, 0].tolist() == list(range(len(given))) and not plain.packed
    assert dense.packed and tuple(dense.input_ids.shape) == (4, 12)
    assert dense.sequence[:, 0].tolist() == [2, 0, 4, 1] and dense.sequence[:, -1].tolist() == [2, 5, 6, -1]
    assert tuple(packed(given, PAD, row_tokens=21).input_ids.shape) == (2, 21)
    again = packed(given, PAD)
    for name in ("input_ids", "position_ids", "sequence", "marked"):
        assert torch.equal(getattr(dense, name), getattr(again, name))
        assert getattr(dense.to("meta"), name).device.type == "meta"


# --- forward passes of bounded size


def drawn_lengths(draw: random.Random, count: int) -> list[int]:
    return [max(1, round(draw.lognormvariate(3, 0.8))) for _ in range(count)]


def in_order(lengths, max_tokens: int) -> list[list[int]]:
    """The passes of someone who does not sort: as many sequences, in the order given, as are within bounds."""
    passes: list[list[int]] = []
    for at, length in enumerate(lengths):
        longest = max([length, *(lengths[other] for other in passes[-1])]) if passes else 0
        if passes and (len(passes[-1]) + 1) * longest <= max_tokens:
            passes[-1].append(at)
        else:
            passes.append([at])
    return passes


@pytest.mark.parametrize("row_tokens", [0, 64, 10_000])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_passes_hold_every_sequence_once_within_bounds(layout, row_tokens):
    draw = random.Random(7)
    lay_out = {"padded": padded, "packed": partial(packed, row_tokens=row_tokens)}[layout]
    for _ in range(40):
        lengths, bound = drawn_lengths(draw, draw.randint(0, 90)), draw.randint(1, 600)
        groups = passes(lengths, bound, layout, row_tokens)
        assert groups == passes(lengths, bound, layout, row_tokens)
        assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
        longest = [max(lengths[at] for at in group) for group in groups]
        assert longest == sorted(longest, reverse=True)
        for number, group in enumerate(groups):
            laid_out = lay_out([TokenSequence("", [1] * lengths[at], 0) for at in group], PAD)
            width = laid_out.input_ids.shape[1]
            assert laid_out.computed <= bound or (len(group) == 1 and lengths[group[0]] > bound)
            assert layout == "packed" or laid_out.fill >= MIN_FILL
            # No pass but the last has room for one more row, unless that row would be too short for it.
            if group is not groups[-1]:
                full = laid_out.computed + width > bound - (row_tokens if layout == "packed" else 0)
                short = laid_out.tokens + longest[number + 1] < MIN_FILL * (laid_out.computed + width)
                assert full or (layout == "padded" and short)


def test_sorting_leaves_less_padding_than_the_given_order_and_packing_less_still():
    draw = random.Random(9)
    for count, bound in ((40, 256), (300, 1024), (300, 8192), (2000, 2048)):
        lengths = drawn_lengths(draw, count)
        given = sequences(lengths)
        layouts = {
            name: [lay_out([given[at] for at in group], PAD) for group in groups]
            for name, lay_out, groups in (
                ("in order", padded, in_order(lengths, bound)),
                ("sorted", padded, passes(lengths, bound, "padded")),
                ("packed", packed, passes(lengths, bound, "packed")),
            )
        }
        fill = {name: sum(lengths) / sum(one.computed for one in found) for name, found in layouts.items()}
        assert fill["in order"] < 0.7 and fill["sorted"] > 0.9 and fill["packed"] > 0.93
        assert len(layouts["packed"]) <= len(layouts["in order"])


# --- attention


@pytest.mark.parametrize("causal", [True, False])
def test_a_token_sees_its_own_sequence(causal):
    sequence = torch.tensor([[1, 1, 0, -1, -1], [2, 2, 2, 2, 3]])
    mask = same_sequence(sequence, causal)
    for row in range(2):
        for query in range(5):
            for key in range(5):
                sees = sequence[row, query] == sequence[row, key] and (key <= query or not causal)
                assert mask[row, 0, query, key] == sees


def results(model: nn.Module, layout: Layout, causal: bool) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """The hidden states of each sequence, what training reads from them, and the gradient of all parameters."""
    model.zero_grad()
    hidden = last_hidden(model, layout, causal)
    assert hidden.isfinite().all()  # of padding too: its gradient is zero times it
    if causal:
        states, targets, of = predicting(hidden, layout)
        logits = model.get_output_embeddings()(states)
        functional.cross_entropy(logits, targets, reduction="sum").backward()
        read = [torch.cat([logits[of == at], targets[of == at, None]], 1) for at in range(len(layout.tasks))]
    else:
        means = pooled_means(hidden, layout)
        (means @ means.T * torch.arange(len(means))).sum().backward()
        read = list(means)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [*of_each(hidden.detach(), layout), *read], gradients


def assert_same_results(one, other):
    for mine, its in zip(one[0], other[0], strict=True):
        assert_close(mine, its)
    assert one[1].keys() == other[1].keys() and len(one[1]) > 10
    for name, gradient in one[1].items():
        # The gradient of a key's bias is zero but for rounding: all scores of a softmax move by the same.
        bound = max(2e-5 * float(gradient.abs().max()), 1e-6)
        assert_close(other[1][name], gradient, atol=bound, msg=lambda text, name=name: f"{name}: {text}")


def alone(model: nn.Module, one: TokenSequence, causal: bool) -> torch.Tensor:
    """The hidden states of a sequence that shares the pass with nothing, without mask or positions."""
    with torch.no_grad():
        return model.get_decoder()(torch.tensor([list(one.ids)]), is_causal=causal).last_hidden_state[0]


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_padded_equals_alone(kind, implementation, causal):
    model, given = model_of(kind, implementation), sequences(LENGTHS)
    plain = results(model, padded(given, PAD), causal)
    for one, hidden in zip(given, plain[0], strict=False):
        assert_close(hidden, alone(model, one, causal))
    assert (plain[0][0] - alone(model, given[0], not causal)).abs().max() > 1e-2
    for row_tokens in (0, 21):
        assert_same_results(plain, results(model, packed(given, PAD, row_tokens), causal))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_learned_positions_start_anew_in_each_sequence(implementation):
    model, given = model_of("OPT", implementation, ffn_dim=48, word_embed_proj_dim=32), sequences(LENGTHS)
    for causal in (True, False):
        plain = results(model, padded(given, PAD), causal)
        assert_same_results(plain, results(model, packed(given, PAD), causal))


MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
WINDOWED = {
    "Mistral": {},
    "Qwen3": {"use_sliding_window": True, **MIXED},
    "Gemma2": {"query_pre_attn_scalar": 8, **MIXED},
    "Gemma3": {"query_pre_attn_scalar": 8, **MIXED},
}


@pytest.mark.parametrize("kind, implementation", [*product(WINDOWED, ["eager"]), ("Qwen3", "sdpa"), ("Gemma3", "sdpa")])
def test_sliding_windows_are_kept_or_the_layout_is_refused(kind, implementation):
    window = 9
    narrow = model_of(kind, implementation, sliding_window=window, **WINDOWED[kind])
    given = sequences(LENGTHS)
    plain = results(narrow, padded(given, PAD), causal=True)
    wide = results(model_of(kind, implementation, sliding_window=99, **WINDOWED[kind]), padded(given, PAD), causal=True)
    assert (plain[0][2] - wide[0][2]).abs().max() > 1e-4  # the window does cut the longest sequence
    assert_same_results(plain, results(narrow, packed(given, PAD), causal=True))
    for lengths in (LENGTHS, [window + 1, 2]):
        with pytest.raises(UsageError, match=f"sliding windows of {window} tokens"):
            last_hidden(narrow, packed(sequences(lengths), PAD), causal=False)
    short = [one for one in given if len(one.ids) <= window]  # one of them just as long
    for causal in (True, False):
        plain = results(narrow, padded(short, PAD), causal)
        assert_same_results(plain, results(narrow, packed(short, PAD, row_tokens=20), causal))


def test_a_window_that_no_layer_has_refuses_nothing():
    full = {"layer_types": ["full_attention"] * 2}
    model, given = model_of("Qwen3", use_sliding_window=True, sliding_window=3, **full), sequences(LENGTHS)
    plain = results(model, padded(given, PAD), causal=False)
    assert_same_results(plain, results(model, packed(given, PAD), causal=False))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_half_precision_stays_finite(implementation):
    model, given = model_of("Llama", implementation).to(torch.bfloat16), sequences(LENGTHS)
    exact = model_of("Llama", implementation)
    for causal in (True, False):
        hidden = last_hidden(model, packed(given, PAD), causal)
        assert hidden.isfinite().all() and hidden.dtype == torch.bfloat16
        means = pooled_means(hidden, packed(given, PAD))
        assert means.dtype == torch.float32
        assert_close(means, pooled_means(last_hidden(exact, packed(given, PAD), causal), packed(given, PAD)), atol=0.05)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_flash_attention_is_told_where_sequences_end(monkeypatch, causal):
    """A slow kernel in the place of the real one, which runs on GPUs only; what transformers hands it is real."""
    windows = []

    def varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, causal, max_seqlen_q, max_seqlen_k, window_size=None, **_):
        assert cu_seqlens_q.dtype == torch.int32 and torch.equal(cu_seqlens_q, cu_seqlens_k)
        assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
        windows.append(window_size)
        outputs = []
        for start, end in pairwise(cu_seqlens_q.tolist()):
            own = [t[start:end].transpose(0, 1) for t in (q, k, v)]
            own[1:] = (t.repeat_interleave(q.shape[1] // k.shape[1], 0) for t in own[1:])
            outputs.append(functional.scaled_dot_product_attention(*own, is_causal=causal).transpose(0, 1))
        return torch.cat(outputs)

    def refuse(*_, **__):
        raise AssertionError("a packed batch reached the kernel that knows no sequences")

    supported = dict.fromkeys(
        ("dropout_p", "window_size", "deterministic", "softcap", "max_seqlen_q", "max_seqlen_k", "cache_seqlens"), True
    )
    process = partial(flash._process_flash_attention_kwargs, supports_mapping=supported)
    kernels = ((refuse, varlen, refuse, flash._pad_input, flash._unpad_input), (process, process))
    monkeypatch.setattr(flash, "lazy_import_flash_attention", lambda *_: kernels)
    given = sequences(LENGTHS)
    for kind in KINDS:
        plain = results(model_of(kind), padded(given, PAD), causal)
        model = model_of(kind)
        model.config._attn_implementation = "flash_attention_2"
        assert_same_results(plain, results(model, packed(given, PAD), causal))
        assert_same_results(plain, results(model, packed(given, PAD, row_tokens=99), causal))
    assert windows == [None] * len(windows) and len(windows) == 2 * 2 * len(KINDS)


def test_what_cannot_be_packed_is_refused():
    layout = packed(sequences(LENGTHS), PAD)
    model = model_of("Llama")
    model.config._attn_implementation = "flex_attention"
    for causal in (True, False):
        with pytest.raises(UsageError, match=r"'flex_attention'.*sdpa, eager"):
            last_hidden(model, layout, causal)
    bloom = model_of("Bloom", "eager")
    with pytest.raises(UsageError, match="BloomModel takes no position_ids"):
        last_hidden(bloom, layout, causal=True)
    hybrid = model_of("Lfm2", layer_types=["conv", "full_attention"])
    with pytest.raises(UsageError, match="Lfm2Model has layers of conv"):
        last_hidden(hybrid, layout, causal=True)
    assert last_hidden(hybrid, padded(sequences(LENGTHS), PAD), causal=True).isfinite().all()


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_checkpointing_changes_no_packed_gradient(causal):
    model, layout = model_of("Llama").train(), packed(sequences(LENGTHS), PAD)
    plain = results(model, layout, causal)
    model.activation_checkpointing_enable()
    runs = []
    model.model.layers[0].self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    assert_same_results(plain, results(model, layout, causal))
    assert len(runs) == 2  # it was run again


# --- what is read from the hidden states


def test_pooled_means_are_the_means_of_marked_tokens():
    given = sequences(LENGTHS)
    for layout in (padded(given, PAD), packed(given, PAD), packed(given, PAD, row_tokens=30)):
        hidden = torch.randn(*layout.input_ids.shape, 8)
        means = pooled_means(hidden, layout)
        for at, one in enumerate(given):
            mine = hidden[layout.sequence == at][one.marked :]
            assert_close(means[at], functional.normalize(mine.mean(0), dim=0))


def test_a_mean_over_nothing_is_zero_and_has_a_finite_gradient():
    given = [TokenSequence("user2item", [3, 4], 2), TokenSequence("user2item", [5, 6, 7], 1)]
    for layout in (padded(given, PAD), packed(given, PAD)):
        hidden = torch.randn(*layout.input_ids.shape, 4, requires_grad=True)
        means = pooled_means(hidden, layout)
        assert means[0].tolist() == [0.0] * 4 and means[1].norm().item() == pytest.approx(1)
        means.square().mean().backward()
        assert hidden.grad.isfinite().all()


def test_predicting_pairs_each_marked_token_with_the_state_before_it():
    for seed, row_tokens in ((1, 0), (2, 30), (3, 1000)):
        given = sequences([1, *LENGTHS, 1, 2], seed)
        given[1] = TokenSequence(given[1].task, given[1].ids, 0)  # its first token has no state before it
        for layout in (padded(given, PAD), packed(given, PAD, row_tokens)):
            hidden = torch.randn(*layout.input_ids.shape, 4)
            states, targets, of = predicting(hidden, layout)
            expected = []
            for row in range(len(hidden)):
                for at in range(1, hidden.shape[1]):
                    number = int(layout.sequence[row, at])
                    if number < 0 or int(layout.sequence[row, at - 1]) != number:
                        continue
                    if at - layout.sequence[row].tolist().index(number) >= given[number].marked:
                        expected.append((hidden[row, at - 1], int(layout.input_ids[row, at]), number))
            assert torch.equal(states, torch.stack([state for state, _, _ in expected]))
            assert targets.tolist() == [target for _, target, _ in expected]
            assert of.tolist() == [number for _, _, number in expected]
            counted = torch.bincount(of, minlength=len(given)).tolist()
            assert counted == [len(one.ids) - max(one.marked, 1) for one in given]


# --- with TMoLE


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_packed_tasks_are_gated_a_token_as_they_are_alone(causal):
    model, given = adapted_model(), sequences(LENGTHS)
    layout = packed(given, PAD)
    with torch.no_grad():
        with task_context(model, layout.tasks, token_tasks=layout.sequence.clamp(min=0)):
            together = of_each(last_hidden(model, layout, causal), layout)
        with task_context(model, layout.tasks):
            in_rows = of_each(last_hidden(model, padded(given, PAD), causal), padded(given, PAD))
        for one, hidden, row in zip(given, together, in_rows, strict=True):
            with task_context(model, one.task):
                assert_close(hidden, alone(model, one, causal), atol=1e-4)
            assert_close(row, hidden, atol=1e-4)
            with task_context(model, "user2item" if one.task != "user2item" else "query2item"):
                assert (hidden - alone(model, one, causal)).abs().max() > 1e-2
