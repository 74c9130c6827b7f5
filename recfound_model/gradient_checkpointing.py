"""Gradient checkpointing that remembers the tasks of the forward pass.

Checkpointed layers run again in the backward pass. By then the `task_context` of their forward pass has closed or,
worse, another batch's has taken its place: an embedding and a generative forward that share one backward would both be
recomputed for the generative task. So each checkpointed call keeps the route that was active when it was made, and
recomputes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from recfound_model.routing import Route, Routing


class RoutedCall:
    """A function that always runs with the route it was made with, whenever and in whatever thread it is called."""

    def __init__(self, routing: Routing, route: Route | None, function: Callable[..., Any]) -> None:
        self.routing, self.route, self.function = routing, route, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        with self.routing.using(self.route):
            return self.function(*args, **kwargs)


class RoutedCheckpoint:
    """A checkpointing function (`torch.utils.checkpoint.checkpoint`, in any guise) that carries the route along."""

    def __init__(self, routing: Routing, checkpoint: Callable[..., Any]) -> None:
        self.routing, self.checkpoint = routing, checkpoint

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the checkpointing function returns for `function`, with the active route bound to it."""
        # torch.compile traces the recomputation once, together with the forward pass and its route.
        if not torch.compiler.is_compiling():
            function = RoutedCall(self.routing, self.routing.route, function)
        return self.checkpoint(function, *args, **kwargs)


class CarryRoute:
    """Forward pre-hook of a module that transformers can checkpoint: sees to it that its checkpointing is routed.

    transformers 5 has several ways to switch checkpointing on (`gradient_checkpointing_enable`,
    `activation_checkpointing_enable`, on the model or on a part of it, before or after the adapter is added, by hand or
    by the Trainer), and all end in one: a `_gradient_checkpointing_func` on each layer, read when the layer runs. A
    hook looks at that attribute right before it is read, so no way in can be missed; and unlike a method replaced on an
    instance, it survives copy.deepcopy, because it is copied together with the routing it refers to.
    """

    def __init__(self, routing: Routing) -> None:
        self.routing = routing

    def __call__(self, module: Any, _: tuple[Any, ...]) -> None:
        """Replaces the module's checkpointing function, unless that is done already."""
        checkpoint = getattr(module, "_gradient_checkpointing_func", None)
        if checkpoint is not None and not isinstance(checkpoint, RoutedCheckpoint):
            module._gradient_checkpointing_func = RoutedCheckpoint(self.routing, checkpoint)


def carry_route(model: nn.Module, routing: Routing) -> None:
    """Makes every module of `model` that transformers can checkpoint recompute with the tasks of its forward pass."""
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.register_forward_pre_hook(CarryRoute(routing))
