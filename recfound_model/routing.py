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


def add_low_rank_update(y: Tensor, x: Tensor, A: Tensor, B: Tensor, G: Tensor) -> Tensor:
    """`y + ((x A^T) * G) B^T`, which equals `y + sum_e G_e B_e A_e x` in two products, whatever the number of experts.

    Args:
        y: [..., out] output of the frozen layer.
        x: [..., in].
        A: [E r, in].
        B: [out, E r].
        G: broadcastable to [..., E r]; gates, with the scale alpha / r folded in.

    Returns:
        [..., out], in the dtype of y.
    """
    hidden = nn.functional.linear(x, A)
    hidden = hidden * G.to(hidden.dtype)
    if y.dtype == hidden.dtype == B.dtype:
        # The second product adds to y while it writes: an intermediate [..., out], a pass over it less.
        flat = torch.addmm(y.reshape(-1, y.shape[-1]), hidden.reshape(-1, hidden.shape[-1]), B.t())
        return flat.view(y.shape)
    return y + nn.functional.linear(hidden, B).to(y.dtype)


def gates_of_rows(G: Tensor, index: Tensor, shape: torch.Size) -> Tensor:
    """The gates of each row or token, in a form that broadcasts over a layer's input.

    Args:
        G: [tasks, E r] gates of each task.
        index: [batch] or [batch, tokens], which row of `G` belongs to each row, or each token, of the batch.
        shape: of the layer's input, [batch, ..., in] or [batch, tokens, ..., in].

    Returns:
        [batch, 1, ..., E r] or [batch, tokens, 1, ..., E r].

    Raises:
        UsageError: the input has other rows or tokens than the index.
    """
    if index.shape != shape[:-1][: index.dim()]:
        named = (
            f"{index.shape[0]} tasks, one a row"
            if index.dim() == 1
            else f"one task a token for {index.shape[0]} rows of {index.shape[1]} tokens"
        )
        raise UsageError(
            f"task_context names {named}, but this layer's input has the shape {tuple(shape)}: give one task for each "
            "row of the batch, token_tasks of its shape, or a single name for all of it"
        )
    return G[index].view(*index.shape, *[1] * (len(shape) - 1 - index.dim()), -1)


@dataclass(eq=False)
class Route:
    """What one pass needs to know about its tasks; made once a pass, read by every layer.

    A compiled layer is compiled anew for other `groups` and for an `index` or a `mask` where there was none, but not
    for other tasks: their names are not looked at, and `z` is an input of the compiled graph like any other tensor.
    """

    tasks: tuple[str, ...]
    """The distinct tasks of the batch."""
    groups: tuple[str, ...]
    """The groups of experts that at least one of them uses: the others are not touched, and get no gradient."""
    index: Tensor | None
    """[batch] or [batch, tokens] index into `tasks`, or None when one task serves the whole batch."""
    mask: Tensor | None
    """[len(tasks), experts in `groups`], or None when all tasks are of one kind."""
    z: Tensor
    """[len(tasks), d] task embeddings as they were when the route was made; for compiled layers only."""


class TaskEmbeddings(nn.Module):
    """The task embeddings z_t [d], one for the whole model.

    Each is a Parameter of its own: a task that is not in the batch then has gradient None, and neither AdamW's decay
    nor its momentum moves it. Rows of one table would be moved.
    """

    def __init__(self, tasks: Iterable[str], dim: int) -> None:
        super().__init__()
        # Sorted, so that the same seed gives the same adapter in whatever order the tasks were listed.
        names = sorted(tasks)
        for name, row in zip(names, nn.init.xavier_normal_(torch.empty(len(names), dim)), strict=True):
            self.put(name, row)

    def put(self, task: str, values: Tensor) -> None:
        """Takes a task in, with the embedding `values` [d], which is copied."""
        # The prefix keeps a task called "training" or "modules" from hiding an attribute of nn.Module.
        self.register_parameter(f"z_{task}", nn.Parameter(values.detach().clone()))

    def __getitem__(self, task: str) -> Tensor:
        return self.get_parameter(f"z_{task}")

    def stack(self, tasks: Sequence[str]) -> Tensor:
        """Z: [len(tasks), d]."""
        if len(tasks) == 1:  # a view, which costs nothing and follows the embedding when an optimizer moves it
            return self[tasks[0]].unsqueeze(0)
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

    def __getstate__(self) -> dict[str, object]:
        # A copy of a model is outside of the contexts that are open for the model.
        return self.__dict__ | {"route": None, "_autograd_pass": -1}

    def route_of(self, tasks: str | Sequence[str], token_tasks: Tensor | None = None) -> Route:
        """The route of a batch.

        Args:
            tasks: one name for the whole batch, or one name a row; with `token_tasks`, the names that it counts.
            token_tasks: [batch, tokens] whole numbers, which of `tasks` each token belongs to.

        Returns:
            The route, its tensors on the device of the task embeddings.

        Raises:
            UnknownTaskError: a task that the adapter does not have.
            UsageError: no task at all, or `token_tasks` is not such a tensor.
        """
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        if not names:
            raise UsageError("task_context was given an empty list: name one task a row of the batch")
        for name in names:
            if name not in self.kinds:
                raise UnknownTaskError(str(name), self.kinds)
        device = self.embeddings[names[0]].device
        distinct = tuple(dict.fromkeys(names))
        index = None
        if token_tasks is not None:
            _check_token_tasks(token_tasks, tasks)
            # Only the tasks that a token has: the experts of the others are not to be touched.
            distinct = tuple(dict.fromkeys(names[i] for i in token_tasks.unique().tolist()))
        if len(distinct) > 1:
            # The tasks of one batch are few: a table from position in `names` to position in `distinct`.
            table = torch.tensor([distinct.index(name) if name in distinct else 0 for name in names], device=device)
            index = table if token_tasks is None else table[token_tasks.to(device).long()]
        kinds = [self.kinds[name] for name in distinct]
        groups = live_groups(kinds, self.experts)
        mask = gate_mask(kinds, groups, self.experts).to(device) if len(set(kinds)) > 1 else None
        return Route(distinct, groups, index, mask, self._compiled_input(distinct))

    def _compiled_input(self, tasks: Sequence[str]) -> Tensor:
        """`Route.z`, which complains in the backward pass if the embeddings were moved after it was made."""
        z = self.embeddings.stack(tasks)
        if len(tasks) > 1 and z.requires_grad:
            made = [self.embeddings[task]._version for task in tasks]

            def check(gradient: Tensor) -> None:  # noqa: ARG001
                if made != [self.embeddings[task]._version for task in tasks]:
                    raise RecfoundError(
                        "a compiled model used task embeddings from before the last optimizer step: with several tasks "
                        "in a batch, open task_context anew for each step"
                    )

            z.register_hook(check)
        return z

    def z_of(self, route: Route) -> Tensor:
        """[len(route.tasks), d] task embeddings of a pass, up to date."""
        # Names read while compiling would be guarded on, and every task compiled apart.
        return route.z if torch.compiler.is_compiling() else self.embeddings.stack(route.tasks)

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


def _check_token_tasks(token_tasks: Tensor, tasks: str | Sequence[str]) -> None:
    if isinstance(tasks, str):
        raise UsageError(f"token_tasks counts a list of tasks, and only {tasks!r} was named: give [{tasks!r}, ...]")
    kind = token_tasks.dtype
    if token_tasks.dim() != 2 or kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise UsageError(
            f"token_tasks must be whole numbers of shape [batch, tokens], not {kind} of {tuple(token_tasks.shape)}"
        )
    if token_tasks.numel() == 0:
        raise UsageError(f"token_tasks holds no token: its shape is {tuple(token_tasks.shape)}")
    low, high = (int(bound) for bound in token_tasks.aminmax())
    if low < 0 or high >= len(tasks):
        wrong = low if low < 0 else high
        raise UsageError(f"token_tasks holds {wrong}, but {len(tasks)} tasks are named: it counts them from 0")


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
def task_context(model: nn.Module, tasks: str | Sequence[str], token_tasks: Tensor | None = None) -> Iterator[None]:
    """Says which tasks the forward passes in the block belong to; an outer context is back when the block ends.

    Args:
        model: the TmoleModel, its inner base, or a wrapper of either.
        tasks: one name, which serves batches of any size, or one name a row of the batch; kinds may be mixed.
        token_tasks: for packed batches, [batch, tokens] whole numbers: which of `tasks` each token belongs to. Tasks
            that no token has are not touched, so give padding the number of a task that is there.

    Raises:
        UnknownTaskError: a task that the adapter does not have.
        UsageError: the model has no TMoLE layers, the list is empty, or `token_tasks` is not such a tensor.
    """
    routing = routing_of(model)
    with routing.using(routing.route_of(tasks, token_tasks)):
        yield
