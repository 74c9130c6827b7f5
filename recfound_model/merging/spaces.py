"""All tensors of a merged adapter, in the space of factors or of products."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from recfound_model.adapter_config import TmoleConfig
from recfound_model.adapter_files import factor_key, fingerprint
from recfound_model.merging.call import Call
from recfound_model.merging.products import merge_dense, merge_in_basis
from recfound_model.merging.sources import Source, alike, over_groups, read_group
from recfound_model.routing import GROUPS

Space = Literal["factors", "delta"]


@dataclass(frozen=True)
class Truncation:
    """What cutting merged products back to the rank of an expert lost, as relative Frobenius norms.

    Attributes:
        total: over all experts of all layers together.
        worst: over the experts of the layer that lost most.
        module: that layer.
    """

    total: float
    worst: float
    module: str


@dataclass(frozen=True)
class Merged:
    """An adapter that was merged and is not written yet."""

    config: TmoleConfig
    tensors: dict[str, Tensor]
    truncation: Truncation | None


@dataclass
class _Part:
    """The merged tensors of one group, and the squared norms of a layer's truncation."""

    tensors: dict[str, Tensor]
    module: str = ""
    lost: float = 0.0
    whole: float = field(default=0.0)


def merge_sources(
    call: Call, sources: Sequence[Source], space: Space, rank: int | None = None, workers: int | None = None
) -> Merged:
    """Merge adapters in memory: the result, and a group of tensors of the inputs for each worker.

    Args:
        call: the method and what it is given.
        sources: the inputs in the call's order.
        space: of factors, or of products.
        rank: of an expert in the result, in delta space; by default that of the inputs.
        workers: threads of one core each; all cores by default. The result does not depend on them.

    Raises:
        RecfoundError: a file is damaged, or the method has no result for a tensor.
    """
    config = sources[0].config
    rank = rank or config.r
    work = _Work(call, sources, config, rank, _fold(config, rank))
    threads = 1 if call.method.random else workers or os.cpu_count() or 1
    step = work.factors if space == "factors" else work.products
    parts = list(over_groups(step, sources[0].groups(), threads))
    tensors = {key: tensor for part in parts for key, tensor in part.tensors.items()}
    if space == "factors":
        return Merged(config, tensors, None)
    changed = alike(config, r=rank, alpha=_alpha(config, rank), initialization=None)
    # Its factors are in bases of their own: nothing but what descends from them can be merged with them.
    changed.initialization = fingerprint(tensors, descends_from=config.initialization)
    return Merged(changed, tensors, _truncation(parts))


def _alpha(config: TmoleConfig, rank: int) -> int:
    """Return the alpha that comes nearest to the same scale at another rank."""
    return max(1, round(config.alpha * rank / config.r))


def _fold(config: TmoleConfig, rank: int) -> float:
    """Return what B takes over of the scale, since alpha is a whole number."""
    return config.scale / (_alpha(config, rank) / rank)


def _truncation(parts: Sequence[_Part]) -> Truncation:
    layers = [part for part in parts if part.module]
    worst = max(layers, key=_relative)
    total = _Part({}, "", sum(part.lost for part in layers), sum(part.whole for part in layers))
    return Truncation(_relative(total), _relative(worst), worst.module)


def _relative(part: _Part) -> float:
    return math.sqrt(part.lost / part.whole) if part.whole else 0.0


@dataclass(frozen=True)
class _Work:
    """What threads do with the keys of a group."""

    call: Call
    sources: Sequence[Source]
    config: TmoleConfig
    rank: int
    fold: float

    @torch.no_grad()
    def factors(self, keys: list[str]) -> _Part:
        found = read_group(self.sources, keys)
        return _Part({key: self.call.merge(key, found.pop(key)) for key in keys})

    @torch.no_grad()
    def products(self, keys: list[str]) -> _Part:
        found = read_group(self.sources, keys)
        module = next((key.split(".tmole.A.")[0] for key in keys if ".tmole.A." in key), "")
        part = _Part({}, module)
        for group in (group for group in GROUPS if module and self.config.experts[group]):
            self._group(part, group, found)
        part.tensors |= {key: self.call.merge(key, tensors) for key, tensors in found.items()}
        return part

    def _group(self, part: _Part, group: str, found: dict[str, list[Tensor]]) -> None:
        """Move one group's A and B from what was read to what is merged."""
        keys = [factor_key(part.module, letter, group) for letter in "AB"]
        r, count = self.config.r, self.config.experts[group]
        As = [tensor.split(r) for tensor in found.pop(keys[0])]
        Bs = [tensor.split(r, dim=1) for tensor in found.pop(keys[1])]
        merge_products = merge_in_basis if self.call.in_basis else merge_dense
        experts = []
        for e in range(count):
            name = f"{part.module}.tmole.{group}.{e}"
            experts.append(
                merge_products(
                    [A[e] for A in As],
                    [B[e] for B in Bs],
                    lambda products, name=name: self.call.merge(name, products),  # type: ignore[misc]
                    self.rank,
                )
            )
            part.lost, part.whole = part.lost + experts[-1].lost, part.whole + experts[-1].whole
        part.tensors[keys[0]] = torch.cat([expert.A for expert in experts])
        part.tensors[keys[1]] = torch.cat([expert.B * self.fold for expert in experts], dim=1)
