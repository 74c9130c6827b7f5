"""How long one adapted linear layer takes, forward and backward: TMoLE, a loop over experts, a plain LoRA, the base.

Every contestant holds the same frozen square linear, in float32, and gets an input that needs a gradient, as in the
middle of a model. One round runs each contestant once, in an order that turns; a ratio is the median over rounds of
(contestant / TMoLE) within a round, so that a machine that is busy for a while slows both sides of it.

    tmole       `TmoleLinear`, sizes of the paper: 2 + 2 + 2 experts, r = 16, alpha = 64, dropout 0.1, thirteen tasks
    loop live   the equation as it is written: a Python loop over the four experts that the task sees, each with its own
                A and B, a scalar gate each, dropout on the input in each expert, as stacked LoRA layers have it
    loop all    the same over all six experts, the gates of two of them being zero
    loop once   `loop live` with one dropout for all experts, as TMoLE has it
    LoRA        PEFT's `lora.Linear`, rank 64 = 16 x 4, the same scale and dropout
    base        the frozen linear alone

The column "adapter" takes the base's time off both sides: what is added to a linear, not the linear with it. The task's
context is opened outside of the clock, because a model opens it once a pass, whatever the number of its layers.

With `--variants` the layer itself is measured against other ways to write it, each of which changes one thing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from recfound_data.tasks import TASKS
from recfound_model import TmoleConfig, add_tmole, task_context
from recfound_model.routing import GROUPS, gate_mask, gates, spread
from recfound_model.tmole import TmoleLinear, dropout_noise

TASK = "user2item"
RANK, ALPHA, DROPOUT, LIVE, ALL = 16, 64, 0.1, 4, 6
TOKENS = {576: 1024, 1024: 1024, 4096: 512}

Step = Callable[[], None]


class OneLayer(nn.Module):
    """A model of a single linear layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, size] -> the same shape."""
        return self.linear(x)


class LoopOverExperts(nn.Module):
    """The equation `y = W0 x + (alpha / r) sum_e g_t[e] B_e A_e x`, one expert after the other."""

    def __init__(self, size: int, experts: int, live: int, dropout_once: bool = False) -> None:
        super().__init__()
        self.base = nn.Linear(size, size, bias=False).requires_grad_(False)
        self.A = nn.ModuleList(nn.Linear(size, RANK, bias=False) for _ in range(experts))
        self.B = nn.ModuleList(nn.Linear(RANK, size, bias=False) for _ in range(experts))
        self.router = nn.Linear(512, experts)
        self.z = nn.Parameter(torch.randn(512))
        self.dropout, self.once = nn.Dropout(DROPOUT), dropout_once
        self.register_buffer("mask", torch.tensor([0.0] * live + [float("-inf")] * (experts - live)))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, size] -> the same shape."""
        y = self.base(x)
        g = torch.softmax(self.router(self.z) + self.mask, dim=-1)
        if self.once:
            x = self.dropout(x)
        for e, (A, B) in enumerate(zip(self.A, self.B, strict=True)):
            y = y + g[e] * B(A(x if self.once else self.dropout(x))) * (ALPHA / RANK)
        return y


def lora_layer(size: int) -> nn.Module:
    """PEFT's own LoRA on the one layer, of TMoLE's total rank and scale."""
    rank = RANK * LIVE
    config = LoraConfig(
        r=rank, lora_alpha=rank * ALPHA // RANK, lora_dropout=DROPOUT, target_modules=["linear"], bias="none"
    )
    return get_peft_model(OneLayer(size), config).base_model.model.linear


def tmole_layer(size: int, opened: ExitStack) -> TmoleLinear:
    """TMoLE on the one layer; the task's context is open until `opened` closes."""
    model = add_tmole(OneLayer(size), TmoleConfig(tasks=list(TASKS), target_modules=["linear"]))
    opened.enter_context(task_context(model, TASK))
    layer = model.model.linear
    assert isinstance(layer, TmoleLinear)
    return layer


class Variant(nn.Module):
    """A TMoLE layer written otherwise; for one task a batch."""

    def __init__(
        self,
        layer: TmoleLinear,
        dropout: str = "bits",
        gate: str = "hidden",
        add: str = "addmm",
        stacks: str = "joined",
        groups: str = "live",
    ) -> None:
        super().__init__()
        self.layer, self.dropout, self.gate, self.add, self.stacks, self.groups = (
            layer, dropout, gate, add, stacks, groups,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, size] -> the same shape."""
        experts, routing = self.layer.experts, self.layer.routing
        route = routing.current()
        groups = route.groups if self.groups == "live" else GROUPS
        mask = None if self.groups == "live" else gate_mask([routing.kinds[TASK]], groups, routing.experts)
        y = self.layer.base_layer(x)
        R, b = (torch.cat([stack[group] for group in groups]) for stack in (experts.R, experts.b))
        G = spread(gates(R, b, routing.z_of(route), mask), experts.r) * experts.scale
        x = self._dropped(x) if self.dropout != "low rank" else x
        if self.stacks == "joined":
            A, B = torch.cat([experts.A[g] for g in groups]), torch.cat([experts.B[g] for g in groups], dim=1)
            return self._added(y, x, A, B, G)
        for group, part in zip(groups, G.split([experts.A[g].shape[0] for g in groups], dim=-1), strict=True):
            y = self._added(y, x, experts.A[group], experts.B[group], part)
        return y

    def _dropped(self, x: Tensor) -> Tensor:
        if self.dropout == "none":
            return x
        if self.dropout == "bits":
            return x * dropout_noise(x.shape, DROPOUT, x.dtype)
        return nn.functional.dropout(x, DROPOUT)

    def _added(self, y: Tensor, x: Tensor, A: Tensor, B: Tensor, G: Tensor) -> Tensor:
        hidden = nn.functional.linear(x, A)
        if self.dropout == "low rank":
            hidden = nn.functional.dropout(hidden, DROPOUT)
        if self.gate == "hidden":
            hidden = hidden * G
        else:
            B = B * G
        if self.add == "sum":
            return y + nn.functional.linear(hidden, B)
        flat, rows = y.flatten(0, -2), hidden.flatten(0, -2)
        if self.add == "in place":
            flat.addmm_(rows, B.t())
            return y
        return torch.addmm(flat, rows, B.t()).view(y.shape)


VARIANTS: dict[str, dict[str, str]] = {
    "torch's dropout": {"dropout": "torch"},
    "dropout on the low-rank side (another method)": {"dropout": "low rank"},
    "no dropout": {"dropout": "none"},
    "gate folded into B": {"gate": "B"},
    "product, then sum": {"add": "sum"},
    "addmm in place": {"add": "in place"},
    "a product a group, nothing joined": {"stacks": "apart"},
    "all groups, two gates zero": {"groups": "all"},
    "torch's dropout; product, then sum": {"dropout": "torch", "add": "sum"},
}


def step_of(layer: nn.Module, x: Tensor, upstream: Tensor) -> Step:
    """A forward and a backward pass through `layer`."""
    layer.train()

    def step() -> None:
        x.grad = None
        for parameter in layer.parameters():
            parameter.grad = None
        layer(x).backward(upstream)

    return step


def rounds(contestants: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Times of each contestant in interleaved rounds, which go on for `seconds` but number fifteen at least."""
    names = list(contestants)
    for step in contestants.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < end or number < 15:
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            contestants[name]()
            times[name].append(time.perf_counter() - start)
        number += 1
    return times


def contestants(size: int, variants: bool, opened: ExitStack) -> dict[str, nn.Module]:
    """The layers to measure at one size; `tmole` comes first."""
    layer = tmole_layer(size, opened)
    base = {"base": OneLayer(size).linear.requires_grad_(False)}
    if variants:
        return {"tmole": layer} | {name: Variant(layer, **changes) for name, changes in VARIANTS.items()} | base
    return {
        "tmole": layer,
        "loop live": LoopOverExperts(size, LIVE, LIVE),
        "loop all": LoopOverExperts(size, ALL, LIVE),
        "loop once": LoopOverExperts(size, LIVE, LIVE, dropout_once=True),
        "LoRA": lora_layer(size),
    } | base


def measure(size: int, seconds: float, variants: bool) -> list[str]:
    """The lines of the table for one size."""
    torch.manual_seed(0)
    tokens = TOKENS.get(size, 512)
    x = torch.randn(4, tokens // 4, size, requires_grad=True)
    upstream = torch.randn_like(x)
    with ExitStack() as opened:
        layers = contestants(size, variants, opened)
        times = rounds({name: step_of(layer, x, upstream) for name, layer in layers.items()}, seconds)
    own, base = times["tmole"], times["base"]
    lines = []
    for name, found in times.items():
        whole = statistics.median(a / b for a, b in zip(found, own, strict=True))
        adapter = statistics.median((a - c) / (b - c) for a, b, c in zip(found, own, base, strict=True))
        milliseconds = statistics.median(found) * 1e3
        size_columns = f"{torch.get_num_threads()} | {size} | {tokens}"
        lines.append(f"| {size_columns} | {name} | {milliseconds:.2f} | {whole:.2f} | {adapter:.2f} |")
    return lines


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[576, 1024, 4096], help="width of the square layer")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each size is measured")
    parser.add_argument("--variants", action="store_true", help="measure other ways to write the layer instead")
    options = parser.parse_args()
    print("| threads | d | tokens | layer | ms | time / TMoLE's | adapter / TMoLE's |")
    print("|---|---|---|---|---|---|---|")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for size in options.sizes:
            for line in measure(size, options.seconds, options.variants):
                print(line, flush=True)


if __name__ == "__main__":
    main()
