"""What a merge was made of, for its folder and for the person who asked for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recfound_model.merging.spaces import Space, Truncation

REPORT = "merge_report.json"


@dataclass(frozen=True)
class Ingredient:
    """An adapter that went into a merge.

    Attributes:
        name: of its folder, or its repository.
        sha256: of its file of tensors.
        weight: that it was given, None where the method has no weights.
    """

    name: str
    sha256: str
    weight: float | None


@dataclass(frozen=True)
class Candidate:
    """An adapter that a soup was chosen from.

    Attributes:
        name: of its folder, or its repository.
        rank: average rank of its validation losses among the single adapters; 1 is best.
        chosen: whether it is in the soup.
    """

    name: str
    rank: float
    chosen: bool


@dataclass(frozen=True)
class MergeReport:
    """What a merge was made of.

    Attributes:
        path: the folder that was written; the file there leaves it out.
        method: mergekit's name.
        space: `factors` or `delta`.
        inputs: what was merged.
        base: the adapter that changes were measured from.
        parameters: what the method was given beside weights; all else is mergekit's default.
        seed: of what was drawn, None where nothing was.
        rank: of an expert.
        truncation: what delta space lost, None in factor space and for a soup of one.
        candidates: what a soup was chosen from; empty where nothing was selected.
        losses: a soup's validation losses, by task.
    """

    path: Path
    method: str
    space: Space
    inputs: tuple[Ingredient, ...]
    base: Ingredient | None
    parameters: Mapping[str, Any]
    seed: int | None
    rank: int
    truncation: Truncation | None
    candidates: tuple[Candidate, ...]
    losses: Mapping[str, float]

    def write(self, folder: Path) -> None:
        """Write `merge_report.json`, which depends on what was merged and not on where it lies."""
        facts = {key: value for key, value in asdict(self).items() if key != "path"}
        (folder / REPORT).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        names = ", ".join(one.name if one.weight is None else f"{one.name} ({one.weight:.3g})" for one in self.inputs)
        since = f", changes since {self.base.name}" if self.base else ""
        chosen = f", chosen of {len(self.candidates)} by validation losses" if self.candidates else ""
        said = f"{self.path}: {self.method} of {names}{chosen}{since}, in the space of {_SPACES[self.space]}."
        if self.truncation is not None:
            cut = self.truncation
            said += (
                f" Rank {self.rank} an expert loses {cut.total:.2%} of the merged updates, "
                f"{cut.worst:.2%} in {cut.module}."
            )
        return said


_SPACES: dict[Space, str] = {"factors": "factors", "delta": "products"}
