"""Model Merge: several checkpoints of one run, or runs from one initialisation, become one adapter.

Merging is done in the space of factors, as in the paper: every A, B, R, b and z is merged by itself, with mergekit's
own methods. What is ours is to refuse adapters whose factors do not mean the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from mergekit.merge_methods import merge_state_dicts

from recfound_data.errors import RecfoundError, UsageError
from recfound_model.adapter_config import TmoleConfig
from recfound_model.adapter_files import AdapterReader, open_adapter, write_adapter

Method = Literal["linear", "ties"]
NEEDS_BASE: dict[Method, bool] = {"linear": False, "ties": True}

_SAME_FIELDS = {
    "base_model_name_or_path": "the base model",
    "revision": "the base model's revision",
    "tasks": "the tasks",
    "target_modules": "the target modules",
    "r": "the rank",
    "alpha": "alpha",
    "experts": "the experts",
    "task_dim": "the size of the task embeddings",
    "prompts": "the prompts",
    "initialization": "the initialisation",
}


def merge_adapters(
    adapters: Sequence[str | Path],
    out: str | Path,
    method: Method = "linear",
    weights: Sequence[float] | None = None,
    base: str | Path | None = None,
    density: float = 0.8,
) -> None:
    """Merges adapters into one, which is written as an adapter's folder.

    - `linear`: the weighted mean (model soups, arXiv 2203.05482).
    - `ties`: of each adapter's change since `base`, keep the largest fraction `density`, elect a sign a value, and
      average the changes of that sign (arXiv 2306.01708). The paper's choice: density 0.8, since the initial adapter.

    Memory: one adapter for the result, and one tensor of each of the others at a time.

    Args:
        adapters: two or more folders, or ids of repositories on the Hub.
        out: the folder to write.
        method: see above.
        weights: one an adapter, equal if not given; only their proportions count.
        base: the initial adapter, for methods that merge changes.
        density: `ties` only, in (0, 1].

    Raises:
        UsageError: too few adapters, a wrong number of weights, a base too many or too few, an unknown method.
        RecfoundError: the adapters do not belong together, with the reason, or one is missing or damaged.
    """
    weights = _checked_weights(adapters, method, weights, base, density)
    inputs = [*adapters] if base is None else [*adapters, base]
    # For mergekit, the input at this index is the one that changes are measured from.
    base_index = None if base is None else len(adapters)
    parameters: dict[str, Any] = {"weight": dict(enumerate(weights))}
    if method == "ties":
        parameters["density"] = density
    with ExitStack() as stack:
        readers = [stack.enter_context(open_adapter(source)) for source in inputs]
        for source, reader in zip(inputs[1:], readers[1:], strict=True):
            _check_kinship(inputs[0], readers[0], source, reader)
        merged = {}
        for key in readers[0].keys:
            # A tensor a call: mergekit's result does not depend on it, and its memory does.
            tensors = {i: {key: reader.tensor(key)} for i, reader in enumerate(readers)}
            merged.update(merge_state_dicts(tensors, method, parameters=parameters, base=base_index))
        write_adapter(out, readers[0].config, merged)


def initial_adapter(adapter: str | Path) -> Path | None:
    """The adapter as its run first drew it, for an adapter or checkpoint that still lies in its run's folder."""
    folder = Path(adapter)
    checkpoints = folder.parent if folder.parent.name == "checkpoints" else folder.parent / "checkpoints"
    first = checkpoints / "step-000000"
    return first if first.is_dir() else None


def _checked_weights(
    adapters: Sequence[str | Path],
    method: str,
    weights: Sequence[float] | None,
    base: str | Path | None,
    density: float,
) -> list[float]:
    if isinstance(adapters, str | Path) or len(adapters) < 2:
        raise UsageError("merging takes two or more adapters")
    if method not in NEEDS_BASE:
        raise UsageError(f"unknown merge method {method!r}: there are {', '.join(NEEDS_BASE)}")
    if NEEDS_BASE[method] and base is None:
        raise UsageError(f"{method} merges changes, measured from an initial adapter: give that one as base")
    if not NEEDS_BASE[method] and base is not None:
        raise UsageError(f"{method} does not use a base: leave it out")
    if not 0 < density <= 1:
        raise UsageError(f"density must lie in (0, 1], not {density}")
    chosen = [1.0] * len(adapters) if weights is None else [float(weight) for weight in weights]
    if len(chosen) != len(adapters):
        raise UsageError(f"{len(chosen)} weights were given for {len(adapters)} adapters")
    if not all(isfinite(weight) and weight >= 0 for weight in chosen) or sum(chosen) == 0:
        raise UsageError(f"weights must be numbers of at least 0 and not all 0, not {chosen}")
    return chosen


def _check_kinship(one: str | Path, first: AdapterReader, other: str | Path, second: AdapterReader) -> None:
    """Refuses two adapters whose factors cannot be merged, and says why."""
    for field, words in _SAME_FIELDS.items():
        mine, theirs = _comparable(first.config, field), _comparable(second.config, field)
        if mine != theirs:
            raise RecfoundError(f"cannot merge {one} with {other}: {words} differ ({field}: {mine!r} and {theirs!r})")
    if first.config.initialization is None:
        raise RecfoundError(
            f"cannot merge {one} with {other}: neither records the initialisation it descends from, and factors that "
            "were drawn apart do not mean the same"
        )
    if first.keys != second.keys:
        raise RecfoundError(f"cannot merge {one} with {other}: they adapt different layers of the base model")


def _comparable(config: TmoleConfig, field: str) -> Any:
    value = getattr(config, field)
    return sorted(value) if field == "target_modules" and not isinstance(value, str) else value
