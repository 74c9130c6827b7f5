"""The merge methods that mergekit offers by name, and what each of them needs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import BasePolicy, ParameterScope, ParameterSpec
from mergekit.sparsify import SparsificationMethod
from pydantic import ValidationError

from recfound_data.errors import UsageError

Base = Literal["required", "optional", "refused", "first"]

# Those that read their inputs through norms and inner products alone, with the options that keep it so.
_ISOMETRIC: dict[str, dict[str, bool]] = {
    "linear": {},
    "task_arithmetic": {},
    "slerp": {},
    "nuslerp": {"nuslerp_flatten": True},
    "karcher": {},
    "multislerp": {},
    "model_stock": {"filter_wise": False},
    "passthrough": {},
}
# Those that give s * merged where all inputs are s times as large, but for thresholds that the smallest updates of a
# run fall below: model_stock takes changes of a norm below 1e-3 for unrelated, sce those below 1e-3 a value for equal.
_THRESHOLDS = frozenset({"karcher", "model_stock", "multislerp", "nuslerp", "sce", "slerp"})
# It draws where a tensor has more than a million values.
_SAMPLES_QUANTILES = "arcee_fusion"


@dataclass(frozen=True)
class Method:
    """One method of mergekit.

    Attributes:
        name: mergekit's name.
        kernel: mergekit's callable.
        base: whether changes are measured from an initial adapter; `first`: two adapters are merged of which mergekit
            calls one the base, and that is the first of them.
        least: fewest adapters, a base not counted.
        most: most adapters, a base not counted; None for any number.
        parameters: what may be given, by name, weights left out.
        weighted: whether the adapters have weights.
        density: whether a share of the changes is kept.
        random: whether values are drawn.
        ranks_rows: whether values are ranked among those of their row.
    """

    name: str
    kernel: Any
    base: Base
    least: int
    most: int | None
    parameters: Mapping[str, Any]
    weighted: bool
    density: bool
    random: bool
    ranks_rows: bool

    @property
    def own_scale(self) -> bool:
        """Whether inputs are brought to a common size before mergekit sees them, and the result back."""
        return self.name in _THRESHOLDS

    def isometric(self, parameters: Mapping[str, Any]) -> bool:
        """Whether the result is the same in any orthonormal basis of the inputs."""
        if self.name not in _ISOMETRIC:
            return False
        return all(parameters.get(name, value) == value for name, value in _ISOMETRIC[self.name].items())

    def parsed(self, name: str, value: Any) -> Any:
        """Return a parameter's value as mergekit reads it.

        Raises:
            UsageError: the method has no such parameter, or the value is none of its type.
        """
        if name == "weight" and self.weighted:
            raise UsageError("weight is given by weights, one number for each adapter")
        if name not in self.parameters:
            near = difflib.get_close_matches(name, self.parameters, n=1)
            meant = f", did you mean {near[0]!r}" if near else ""
            has = ", ".join(self.parameters) or "none"
            raise UsageError(f"{self.name} has no parameter {name!r}{meant}: it has {has}")
        try:
            read = self.parameters[name].validate(value)
        except ValidationError as error:
            raise UsageError(f"{self.name}: {name}: {value!r}: {error.errors()[0]['msg']}") from None
        if isinstance(read, float) and not math.isfinite(read):
            raise UsageError(f"{self.name}: {name} must be finite, not {value!r}")
        if name == "density" and not 0 < read <= 1:
            raise UsageError(f"density must lie in (0, 1], not {value!r}")
        return read

    @property
    def required(self) -> list[str]:
        """Parameters without a default of mergekit's."""
        return [name for name, spec in self.parameters.items() if spec.required]


def method_names() -> list[str]:
    """Return the names of all methods, in alphabetic order."""
    return sorted(kernel.spec.name for kernel in registered_methods())


def method_named(name: str) -> Method:
    """Return a method by name.

    Raises:
        UsageError: there is none of that name.
    """
    found = {kernel.spec.name: kernel for kernel in registered_methods()}
    if name not in found:
        raise UsageError(f"unknown merge method {name!r}: there are {', '.join(method_names())}")
    kernel = found[name]
    # task_arithmetic lists what its relatives read and it does not.
    sparse = getattr(kernel, "sparsification_method", None)
    unread = {"density", "rescale", "int8_mask"} if name == "task_arithmetic" else set()
    parameters = {spec.name: spec for spec in kernel.spec.parameters if spec.name not in {"weight", *unread}}
    base, least, most = _needs(kernel.spec.contract)
    return Method(
        name=name,
        kernel=kernel,
        base=base,
        least=least,
        most=most,
        parameters=parameters,
        weighted=any(spec.name == "weight" for spec in kernel.spec.parameters),
        density="density" in parameters,
        random=sparse in (SparsificationMethod.random, SparsificationMethod.della_magprune)
        or name == _SAMPLES_QUANTILES,
        ranks_rows=sparse == SparsificationMethod.della_magprune,
    )


def read_parameters(given: Sequence[str]) -> dict[str, Any]:
    """Return `NAME=VALUE` parameters by name; values are YAML.

    Raises:
        UsageError: one reads otherwise.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--parameter {text}: expected NAME=VALUE")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--parameter {text}: the value is not valid YAML") from None
    return found


def _needs(contract: Any) -> tuple[Base, int, int | None]:
    """Return how a contract of mergekit's reads in adapters: base, fewest and most beside it."""
    if contract.base == BasePolicy.REQUIRED and contract.max_inputs == 2:
        return "first", 2, 2
    if contract.base == BasePolicy.REQUIRED:
        most = None if contract.max_inputs is None else contract.max_inputs - 1
        return "required", max(1, contract.min_inputs - 1, contract.min_non_base or 0), most
    if contract.base == BasePolicy.OPTIONAL:
        return "optional", max(1, contract.min_non_base or 0), contract.max_non_base
    most = contract.max_inputs
    return "refused", 1 if most == 1 else 2, most


def per_input(spec: ParameterSpec) -> bool:
    """Whether a parameter of mergekit's has a value for each input."""
    return bool(spec.scope != ParameterScope.SHARED)
