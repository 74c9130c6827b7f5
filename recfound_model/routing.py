"""The router of TMoLE: which experts a task sees, how much of each, and which tasks the running pass serves.

The first half is mathematics: pure functions on tensors. The second half is the one piece of shared state: every
adapted linear of a model holds the same `Routing`, and `task_context` says in it which tasks the rows of the batch
belong to.

Letters, as in the method's equations: E experts, r rank, d size of a task embedding, `A [E r, in]`, `B [out, E r]`,
router `R [E, d]`, router bias `b [E]`, task embedding `z [d]`, gates `g [E]` and `G [E r]`, each gate repeated r times.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.tasks.catalogue import Kind

GROUPS = ("embedding", "shared", "generative")
"""Groups of experts in the order in which they are laid out. A task sees its own kind's group and the shared one."""


class UnknownTaskError(UsageError, ValueError):
    """A task that the adapter, or the catalogue, does not have."""

    def __init__(self, task: str, known: Iterable[str]) -> None:
        known = sorted(known)
        nearest = difflib.get_close_matches(task, known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        super().__init__(f"unknown task {task!r}: {hint}Known tasks: {', '.join(known)}")


def live_groups(kinds: Iterable[Kind], experts: Mapping[str, int]) -> tuple[str, ...]:
    """Groups that at least one of `kinds` may use and that hold experts, in layout order."""
    usable = {"shared", *kinds}
    return tuple(group for group in GROUPS if group in usable and experts[group] > 0)


def gate_mask(kinds: Sequence[Kind], groups: Sequence[str], experts: Mapping[str, int]) -> Tensor:
    """The masks m_t of the router.

    Args:
        kinds: the kind of each task.
        groups: the groups whose experts the gates range over.
        experts: number of experts in each group.

    Returns:
        m: [len(kinds), experts in `groups`]; -inf where the task must not use the expert, 0 elsewhere.
    """
    rows = [
        [0.0 if group in ("shared", kind) else float("-inf") for group in groups for _ in range(experts[group])]
        for kind in kinds
    ]
    return torch.tensor(rows)


def gates(R: Tensor, b: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
    """The gates g_t = softmax(R z_t + b + m_t) of every task (RecFound, arXiv 2506.11999, task-wise router).

    Args:
        R: [E, d] router.
        b: [E] router bias.
        z: [tasks, d] task embeddings.
        mask: [tasks, E] of 0 and -inf, or None when every task may use all E experts.

    Returns:
        g: [tasks, E]; each row sums to 1.
    """
    # A product and a sum rather than `z @ R.T`: autocast would run the matrix product in bfloat16, and gates that
    # differ between training and a collapsed adapter are not worth the microsecond.
    logits = (z.unsqueeze(1) * R).sum(-1) + b
    return torch.softmax(logits if mask is None else logits + mask, dim=-1)


def spread(g: Tensor, r: int) -> Tensor:
    """Each gate repeated for the r rows of its expert: g [..., E] -> G [..., E r]."""
    return g.repeat_interleave(r, dim=-1)


def low_rank_update(x: Tensor, A: Tensor, B: Tensor, G: Tensor) -> Tensor:
    """`((x A^T) * G) B^T`, which equals `sum_e G_e B_e A_e x` in two matrix products, whatever the number of experts.

    Args:
        x: [..., in].
        A: [E r, in].
        B: [out, E r].
        G: broadcastable to [..., E r]; gates, with the scale alpha / r folded in.

    Returns:
        [..., out].
    """
    hidden = nn.functional.linear(x, A)
    return nn.functional.linear(hidden * G.to(hidden.dtype), B)


@dataclass(frozen=True)
class Route:
    """What one pass needs to know about its tasks; made once a pass, read by every layer."""

    tasks: tuple[str, ...]
    """The distinct tasks of the batch."""
    groups: tuple[str, ...]
    """The groups of experts that at least one of them uses: the others are not touched, and get no gradient."""
    rows: Tensor | None
    """[batch] index into `tasks`, or None when one task serves the whole batch."""
    mask: Tensor | None
    """[len(tasks), experts in `groups`], or None when all tasks are of one kind."""


class TaskEmbeddings(nn.Module):
    """The task embeddings z_t [d], one for the whole model.

    Each is a Parameter of its own: a task that is not in the batch then has gradient None, and neither AdamW's decay
    nor its momentum moves it. Rows of one table would be moved.
    """

    def __init__(self, tasks: Iterable[str], dim: int) -> None:
        super().__init__()
        # Sorted, so that the same seed gives the same adapter in whatever order the tasks were listed.
        names = sorted(tasks)
        table = nn.init.xavier_normal_(torch.empty(len(names), dim))
        for name, row in zip(names, table, strict=True):
            # The prefix keeps a task called "training" or "modules" from hiding an attribute of nn.Module.
            self.register_parameter(f"z_{name}", nn.Parameter(row.clone()))

    def __getitem__(self, task: str) -> Tensor:
        return self.get_parameter(f"z_{task}")

    def stack(self, tasks: Sequence[str]) -> Tensor:
        """Z: [len(tasks), d]."""
        return torch.stack([self[task] for task in tasks])


class Routing:
    """The state that all adapted linears of one model share: its tasks, their embeddings, and the route of the pass.

    A plain object whose attribute is replaced, and not a `contextvars.ContextVar`: torch.compile guards on plain
    attributes, and on CUDA the backward pass, which runs checkpointed layers again, has a thread of its own in which a
    context variable would be empty.
    """

    def __init__(self, kinds: Mapping[str, Kind], experts: Mapping[str, int], embeddings: TaskEmbeddings) -> None:
        self.kinds = dict(kinds)
        self.experts = dict(experts)
        self.embeddings = embeddings
        self.route: Route | None = None
        self._autograd_pass = -1

    def route_of(self, tasks: str | Sequence[str]) -> Route:
        """The route of a batch.

        Args:
            tasks: one name for the whole batch, or one name a row.

        Returns:
            The route, its tensors on the device of the task embeddings.

        Raises:
            UnknownTaskError: a task that the adapter does not have.
            UsageError: no task at all.
        """
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        if not names:
            raise UsageError("task_context was given an empty list: name one task a row of the batch")
        for name in names:
            if name not in self.kinds:
                raise UnknownTaskError(str(name), self.kinds)
        distinct = tuple(dict.fromkeys(names))
        kinds = [self.kinds[name] for name in distinct]
        groups = live_groups(kinds, self.experts)
        device = self.embeddings[distinct[0]].device
        rows = mask = None
        if not isinstance(tasks, str):
            rows = torch.tensor([distinct.index(name) for name in names], device=device)
        if len(set(kinds)) > 1:
            mask = gate_mask(kinds, groups, self.experts).to(device)
        return Route(distinct, groups, rows, mask)

    @contextmanager
    def using(self, route: Route | None) -> Iterator[None]:
        """Makes `route` the one that layers read, until the block ends; then the one before it is back."""
        before = self.route, self._autograd_pass
        self.route, self._autograd_pass = route, torch._C._current_graph_task_id()
        try:
            yield
        finally:
            self.route, self._autograd_pass = before

    def current(self) -> Route:
        """The route of the running pass.

        Raises:
            RecfoundError: no task was named, or the layer is run again in a backward pass by something that did not
                bring the tasks of the forward pass along.
        """
        if self.route is None:
            raise RecfoundError(
                "a TMoLE layer ran without a task, and there is no such thing as an average task: put the forward pass "
                'inside `with task_context(model, "query2item"):`, or name one task a row of the batch'
            )
        # -1 outside of a backward pass. A context opened in the forward pass may by now belong to another batch: such a
        # gradient would be wrong and nothing would say so. Compiled code does not run Python again, so it needs no
        # check.
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != self._autograd_pass:
            raise RecfoundError(
                "a TMoLE layer was run again in the backward pass by a checkpointing function that does not carry the "
                "tasks of the forward pass. Use the model's own `gradient_checkpointing_enable`, or open task_context "
                "inside of the function that is checkpointed"
            )
        return self.route


def routing_of(model: nn.Module) -> Routing:
    """The routing state of a model that has TMoLE in it: the TmoleModel, its inner base, or any wrapper of either.

    Raises:
        UsageError: the model has no TMoLE layer.
    """
    for module in model.modules():
        routing = getattr(module, "routing", None)
        if isinstance(routing, Routing):
            return routing
    raise UsageError(f"{type(model).__name__} has no TMoLE layers: add them with add_tmole or load_tmole")


@contextmanager
def task_context(model: nn.Module, tasks: str | Sequence[str]) -> Iterator[None]:
    """Says which tasks the forward passes in the block belong to; an outer context is back when the block ends.

    Args:
        model: the TmoleModel, its inner base, or a wrapper of either.
        tasks: one name, which serves batches of any size, or one name a row of the batch; kinds may be mixed.

    Raises:
        UnknownTaskError: a task that the adapter does not have.
        UsageError: the model has no TMoLE layers, or the list is empty.
    """
    routing = routing_of(model)
    with routing.using(routing.route_of(tasks)):
        yield
