"""A method with all that it is given, checked before anything is read, and what it does to one tensor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mergekit.merge_methods import merge_tensors
from torch import Tensor

from recfound_data.errors import RecfoundError, UsageError
from recfound_model.merging.methods import Method, method_named, per_input

PAPER_DENSITY = 0.8
# Squares of 2**30 times a weight are still far from what float32 can hold.
_MOST_SCALING = 30


@dataclass(frozen=True)
class Call:
    """A method and what it is given.

    Attributes:
        method: see `Method`.
        weights: one an adapter; None where the method has none.
        parameters: mergekit's, weights and what is left to its defaults apart.
        base: the place of mergekit's base among the inputs, None without one.
        seed: of what is drawn.
    """

    method: Method
    weights: tuple[float, ...] | None
    parameters: Mapping[str, Any]
    base: int | None
    seed: int

    @property
    def in_basis(self) -> bool:
        """Whether the method may run on coordinates in an orthonormal basis instead."""
        return self.method.isometric(self.parameters)

    def merge(self, key: str, tensors: Sequence[Tensor]) -> Tensor:
        """Return the merged tensor, which shares no memory with its inputs.

        It depends on the inputs, the call and, where something is drawn, on `key`: not on what was merged before, nor
        on the state of torch's random numbers, which stays as it was. Draws are torch's global ones, so random methods
        must not run in several threads at a time.

        Args:
            key: the tensor's name.
            tensors: one an input, of one shape and dtype.

        Raises:
            RecfoundError: the method has no finite result for these tensors.
        """
        if not self.method.random:
            merged = self._merged(key, tensors)
        else:
            # Only the generator that mergekit draws from: manual_seed would start accelerators, too.
            state = torch.default_generator.get_state()
            try:
                torch.default_generator.manual_seed(_seed_of(self.seed, key))
                merged = self._merged(key, tensors)
            finally:
                torch.default_generator.set_state(state)
        if not merged.isfinite().all():
            raise RecfoundError(f"{self.method.name} gives numbers that are not finite for {key}; use another method")
        return merged.clone() if any(_share(merged, tensor) for tensor in tensors) else merged

    def _merged(self, key: str, tensors: Sequence[Tensor]) -> Tensor:
        if self.method.own_scale:
            scale = self._scale(tensors)
            if scale is None:  # nothing to interpolate between; multislerp would divide by the norm
                return tensors[0 if self.base is None else self.base]
            return self._raw(key, [tensor * scale for tensor in tensors]) / scale
        if self.method.ranks_rows and tensors[0].shape[-1] == 1:
            # A row of one value has no ranks.
            rows = [tensor.reshape(-1) for tensor in tensors]
            return self._raw(key, rows, keep_all=len(rows[0]) == 1).view_as(tensors[0])
        return self._raw(key, tensors)

    def _raw(self, key: str, tensors: Sequence[Tensor], keep_all: bool = False) -> Tensor:
        parameters = dict(self.parameters)
        changed = [at for at in range(len(tensors)) if at != self.base]
        if self.weights is not None and self.method.weighted:
            parameters["weight"] = dict(zip(changed, self.weights, strict=True))
        for name, value in self.parameters.items():
            if per_input(self.method.parameters[name]):
                parameters[name] = dict.fromkeys(changed, value)
        if keep_all:
            parameters["density"] = dict.fromkeys(changed, 1.0)
        try:
            merged: Tensor = merge_tensors(tensors, self.method.kernel, parameters=parameters, base_index=self.base)
        except ValueError as error:
            raise RecfoundError(f"{self.method.name} cannot merge {key}: {error}") from None
        return merged

    def _scale(self, tensors: Sequence[Tensor]) -> float | None:
        """Return the power of two that brings the largest input, or change, to values of about 1; None if all are 0."""
        origin = None if self.base is None or self.method.base == "first" else tensors[self.base]
        sizes = [torch.linalg.vector_norm(t if origin is None else t - origin).item() for t in tensors]
        size = max(sizes) / math.sqrt(tensors[0].numel())
        if size == 0:
            return None
        return 2.0 ** max(-_MOST_SCALING, min(_MOST_SCALING, -math.frexp(size)[1]))


def checked_call(
    name: str,
    adapters: int,
    base: bool,
    weights: Sequence[float] | None,
    density: float | None,
    parameters: Mapping[str, Any] | None,
    seed: int,
) -> Call:
    """Return a call of a method by name, for a number of adapters and perhaps a base behind them.

    Raises:
        UsageError: there is no such method, or it does not take what is given.
    """
    method = method_named(name)
    _check_inputs(method, adapters, base)
    given = dict(parameters or {})
    if density is not None:
        if not method.density:
            raise UsageError(f"{name} has no density: leave it out")
        if "density" in given:
            raise UsageError("density is given twice")
        given["density"] = density
    elif method.density:
        given.setdefault("density", PAPER_DENSITY)
    shares = _checked_weights(method, adapters, weights)
    if name == "slerp":
        if shares is not None and "t" in given:
            raise UsageError("slerp: give weights or t, not both")
        if "t" not in given:
            given["t"] = 0.5 if shares is None else shares[1] / sum(shares)
    read = {key: method.parsed(key, value) for key, value in given.items()}
    missing = [key for key in method.required if key not in read]
    if missing:
        raise UsageError(
            f"{name} needs {missing[0]}, for which there is no default: give --parameter {missing[0]}=VALUE "
            f"(in Python, parameters={{{missing[0]!r}: VALUE}})"
        )
    # The base stands behind the adapters; where mergekit merely calls one of two so, that is the first.
    place = adapters if base else 0 if method.base == "first" else None
    call = Call(method, shares, read, place, seed)
    _try_out(call, adapters + base)
    return call


def _check_inputs(method: Method, adapters: int, base: bool) -> None:
    if method.base == "first":
        if adapters + base != 2:
            raise UsageError(f"{method.name} merges exactly two adapters, not {adapters + base}")
        return
    if method.base == "refused" and base:
        raise UsageError(f"{method.name} does not use a base: leave it out")
    if method.base == "required" and not base:
        raise UsageError(f"{method.name} merges changes, measured from an initial adapter: give that one as base")
    # Beside a base, one adapter's change is something to merge; without one, there is nothing to do with one adapter.
    least = method.least if base or method.most == 1 else max(2, method.least)
    if adapters < least or (method.most is not None and adapters > method.most):
        count = {1: "one", 2: "two"}.get(least, str(least))
        wanted = f"exactly {count}" if method.most == least else f"{count} or more"
        raise UsageError(f"{method.name} merges {wanted} adapters{' beside a base' if base else ''}, not {adapters}")


def _checked_weights(method: Method, adapters: int, weights: Sequence[float] | None) -> tuple[float, ...] | None:
    if weights is None:
        # A sum of 1: methods that do not divide by it then give a mean of the changes and not their sum.
        return (1 / adapters,) * adapters if method.weighted else None
    if not method.weighted and method.name != "slerp":
        raise UsageError(f"{method.name} has no weights: leave them out")
    chosen = tuple(float(weight) for weight in weights)
    if len(chosen) != adapters:
        raise UsageError(f"{len(chosen)} weights were given for {adapters} adapters")
    if len(chosen) == 1 and method.name == "slerp":
        raise UsageError("slerp beside a base takes t and no weights")
    if not all(math.isfinite(weight) and weight >= 0 for weight in chosen) or sum(chosen) == 0:
        raise UsageError(f"weights must be numbers of at least 0 and not all 0, not {list(chosen)}")
    return chosen


def _try_out(call: Call, inputs: int) -> None:
    """Let mergekit refuse parameters that do not go together on tensors of four values."""
    try:
        call.merge("any tensor", [torch.arange(4.0).view(2, 2) + at for at in range(inputs)])
    except RecfoundError as error:
        raise UsageError(str(error)) from None


def _seed_of(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "big")


def _share(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
