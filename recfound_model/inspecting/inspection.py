"""`recfound model inspect`: an adapter's gates, similarities, norms and spectra, as JSON and PNG."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import canonical_json, replacing
from recfound_model.adapter_config import KINDS
from recfound_model.adapter_files import AdapterReader, embedding_key, open_adapter
from recfound_model.evaluation.models import LanguageModel, open_model
from recfound_model.inspecting.measures import (
    cosines,
    effective_rank,
    expert_products,
    group_norms,
    mean_cosine,
    shares,
)
from recfound_model.plots import gate_similarity
from recfound_model.routing import live_groups
from recfound_model.run_history import adapter_gates, by_kind
from recfound_model.training.streams import load_samples, split_names, task_kinds

REPORT = "inspection.json"
MOST_TEXTS = 512
_COLUMNS = {"query": "anchor", "document": "positive"}


@dataclass(frozen=True)
class Spectrum:
    """How the embeddings of one side of a task spread.

    Attributes:
        texts: how many were embedded.
        size: of an embedding.
        split: of the dataset.
        values: singular values of the normalised embeddings, the largest first.
        mean_cosine: of every two different ones.
    """

    texts: int
    size: int
    split: str
    values: Tensor
    mean_cosine: float

    @property
    def effective_rank(self) -> float:
        """See `measures.effective_rank`."""
        return effective_rank(self.values)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "texts": self.texts,
            "size": self.size,
            "split": self.split,
            "effective_rank": self.effective_rank,
            "mean_cosine": self.mean_cosine,
            "singular_values": self.values.tolist(),
        }


@dataclass(frozen=True)
class Inspection:
    """What was found in an adapter.

    Attributes:
        adapter: its folder or repository.
        kinds: its tasks and their kinds, ordered by kind.
        layers: the adapted linears, in the order of the model.
        groups: of experts, with the number of each.
        gates: [layers, tasks, experts], 0 where a task must not use an expert.
        norms: [layers, tasks, groups], of what each group adds to a layer, the scale included.
        gate_similarity: [tasks, tasks], cosines of gates, averaged over layers.
        embedding_similarity: [tasks, tasks], cosines of task embeddings.
        spectra: by task and side; empty where no dataset was given.
    """

    adapter: str
    kinds: dict[str, str]
    layers: list[str]
    groups: dict[str, int]
    gates: Tensor
    norms: Tensor
    gate_similarity: Tensor
    embedding_similarity: Tensor
    spectra: dict[str, dict[str, Spectrum]] = field(default_factory=dict)

    @property
    def shares(self) -> Tensor:
        """The share of the groups' norms that each group carries, [layers, tasks, groups]."""
        return shares(self.norms)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; arrays have the axes that their names say."""
        found = self.shares
        return {
            "adapter": self.adapter,
            "tasks": self.kinds,
            "layers": self.layers,
            "groups": self.groups,
            "gates_by_layer_task_expert": self.gates.tolist(),
            "norms_by_layer_task_group": self.norms.tolist(),
            "norm_shares_by_layer_task_group": found.tolist(),
            "similarity": {
                "gates": self.gate_similarity.tolist(),
                "task_embeddings": self.embedding_similarity.tolist(),
            },
            "spectra": {
                task: {side: one.to_json() for side, one in sides.items()} for task, sides in self.spectra.items()
            },
        }

    def __str__(self) -> str:
        """Return a Markdown table: a row a task, means over layers."""
        mean, names = self.shares.mean(0), list(self.kinds)
        sides = list(_COLUMNS) if self.spectra else []
        columns = ["task", *(f"norm of {group}, share" for group in self.groups), "gates most like"]
        columns += [f"effective rank, {side}" for side in sides]
        lines = ["| " + " | ".join(columns) + " |", "|---|" + "--:|" * len(self.groups) + "---|" + "--:|" * len(sides)]
        for place, task in enumerate(names):
            others = self.gate_similarity[place].clone()
            others[place] = -1
            nearest = int(others.argmax())
            usable = ("shared", self.kinds[task])
            cells = [
                f"{share:.2f}" if group in usable else "–"
                for group, share in zip(self.groups, mean[place].tolist(), strict=True)
            ]
            cells.append(f"{names[nearest]} {others[nearest]:.2f}" if len(names) > 1 else "")
            for side in sides:
                one = self.spectra.get(task, {}).get(side)
                cells.append("" if one is None else f"{one.effective_rank:.1f} of {min(one.texts, one.size)}")
            lines.append(f"| {task} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def inspect_adapter(
    adapter: str | Path,
    out: str | Path,
    data: str | None = None,
    *,
    most: int | None = None,
    revision: str | None = None,
) -> Inspection:
    """Inspect an adapter, and write `inspection.json` and the plots.

    Args:
        adapter: a folder or repository.
        out: folder to write; an earlier inspection there is replaced.
        data: a dataset whose held-out texts are embedded, which needs the base model; no spectra without.
        most: texts a task and side, 512 where none is given.
        revision: of the adapter's repository.

    Raises:
        RecfoundError: adapter, base or dataset cannot be read, or embeddings are not finite.
        UsageError: `out` holds something else, or adapter and dataset share no embedding task.
    """
    # Drawing is left until there is something to draw; what can be refused is refused first.
    from recfound_model.inspecting.drawing import draw

    with replacing(Path(out), marker=REPORT) as folder:
        with open_adapter(adapter, revision) as opened:
            found = _weights(str(adapter), opened)
        if data is not None:
            found.spectra.update(_spectra(str(adapter), revision, data, found.kinds, most or MOST_TEXTS))
        for name, image in draw(found).items():
            (folder / f"{name}.png").write_bytes(image)
        (folder / REPORT).write_text(canonical_json(found.to_json()), encoding="utf-8")
    return found


def _weights(source: str, adapter: AdapterReader) -> Inspection:
    """Return what an adapter's own tensors tell."""
    config = adapter.config
    kinds = by_kind(config.kinds, config.kinds)
    groups = {group: config.experts[group] for group in live_groups(KINDS, config.experts)}
    g = adapter_gates(adapter, list(kinds))
    norms = []
    for module, own in zip(adapter.modules, g, strict=True):
        factors = adapter.factors(module, tuple(groups))
        norms.append(group_norms(own, expert_products(factors.A, factors.B, config.r), list(groups.values())))
    order = sorted(range(len(adapter.modules)), key=lambda at: _numbered(adapter.modules[at]))
    z = torch.stack([adapter.tensor(embedding_key(task)) for task in kinds])
    layers = [adapter.modules[at] for at in order]
    scaled = config.scale * torch.stack(norms)[order]
    return Inspection(source, kinds, layers, groups, g[order], scaled, gate_similarity(g), cosines(z))


def _numbered(module: str) -> list[tuple[bool, int, str]]:
    """Return what sorts `layers.10` behind `layers.2`."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in module.split(".")]


def _spectra(
    adapter: str, revision: str | None, data: str, kinds: dict[str, str], most: int
) -> dict[str, dict[str, Spectrum]]:
    have = task_kinds(data, None, ())
    tasks = [task for task, kind in kinds.items() if kind == "embedding" and task in have]
    if not tasks:
        raise UsageError(f"{adapter} and {data} have no embedding task in common: there is nothing to embed")
    model, _ = open_model(adapter, revision)
    assert isinstance(model, LanguageModel), "it was opened as an adapter before"
    found: dict[str, dict[str, Spectrum]] = {}
    for task in tasks:
        split = next((name for name in ("test", "validation") if name in split_names(data, task)), None)
        if split is None:
            raise RecfoundError(f"{data}: {task} has neither a test nor a validation split to embed")
        samples = load_samples(data, task, "embedding", split)
        for side, column in _COLUMNS.items():
            texts = list(dict.fromkeys(samples[column]))
            # Evenly over the split, whose rows are ordered by corpus.
            chosen = texts if len(texts) <= most else [texts[at * len(texts) // most] for at in range(most)]
            vectors = model.encode(task, side, chosen)
            if not torch.isfinite(vectors).all():
                raise RecfoundError(f"{adapter}: embeddings of {task} are not finite; its training diverged")
            values = torch.linalg.svdvals(vectors.double())
            one = Spectrum(len(chosen), vectors.shape[1], split, values, mean_cosine(vectors))
            found.setdefault(task, {})[side] = one
    return found
