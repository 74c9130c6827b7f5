"""Texts that the parity gate compares an export with the native adapter on: of the task, and not of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from recfound_data.errors import RecfoundError
from recfound_data.tasks import BUILDERS
from recfound_model.adapter_config import TmoleConfig
from recfound_model.training.streams import load_samples, split_names

TEXTS = 16
"""Of an embedding task, on each side."""
PROMPTS = 8
"""Of a generative task."""

BUILT_IN = (
    "mug",
    "Stoneware mug, 350 ml, dishwasher safe\nBy: Hearth & Clay\nCategories: Kitchen > Cups",
    "waterproof trail running shoes size 42",
    "Trail shoe, wide fit\nBy: Fellrun\nCategories: Sports > Running > Shoes\nA grippy sole for wet rock and mud.",
    "The Quiet Harbour (Paperback)\nSalt and Silver\nA History of Lighthouses",
    "usb-c cable 2m braided",
    "Kettle, 1.7 litres, stops when the water boils\nBy: Northlight",
    "Is it quiet enough for a bedroom?",
    "I returned it after a week: the zip broke and the colour had faded.",
    "Exactly as described, arrived early, my daughter loves it!",
    "Board game for 2 to 4 players, about 45 minutes\nBy: Oak & Die\nCategories: Toys > Games",
    "gift for a gardener under 30",
    "Desk lamp with three colour temperatures\nUSB charger, 65 W\nNotebook, dotted, A5",
    "Does the case fit the 2023 model? Yes, but the buttons are stiff.",
    "Wool socks, pack of 3 – grey, 38/40",
    "Café crème, 1 kg, whole beans",
)
"""Where no dataset is at hand: shop texts of several lengths, none of them of any corpus."""


@dataclass(frozen=True)
class HeldOut:
    """The texts of one task.

    Attributes:
        source: where they come from, for the report; no path.
        texts: `query` and `document` texts of an embedding task.
        prompts: conversations to be answered, of a generative task.
    """

    source: str
    texts: dict[str, list[str]] = field(default_factory=dict)
    prompts: list[list[dict[str, str]]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Texts of a side, or prompts."""
        return len(self.prompts) or min(map(len, self.texts.values()))


def held_out(
    adapter_dir: str | Path, config: TmoleConfig, tasks: Sequence[str], data: str | None = None
) -> dict[str, HeldOut]:
    """Return texts for each task: of `data` where it is given, else of the run's dataset, else built-in ones.

    Args:
        adapter_dir: the adapter's folder, or the id of its repository.
        config: the adapter's.
        tasks: some of its tasks.
        data: a dataset folder or repository, which must have all of them.

    Raises:
        RecfoundError: `data` cannot be read, or has no validation or test samples of a task.
    """
    if data is not None:
        return {task: _from_dataset(data, task, config) for task in tasks}
    run_data = _dataset_of_run(Path(adapter_dir))
    found = {}
    for task in tasks:
        try:
            found[task] = _from_dataset(run_data, task, config) if run_data else _built_in(task, config)
        except RecfoundError:  # a dataset that has changed since the run; the report names what was used
            found[task] = _built_in(task, config)
    return found


def _dataset_of_run(adapter: Path) -> str | None:
    """The dataset of the run that the adapter lies in (RUN/adapter, RUN/checkpoints/step-*), if it is a folder here."""
    for recipe in (adapter.parent / "recipe.yaml", adapter.parent.parent / "recipe.yaml"):
        if adapter.is_dir() and recipe.is_file():
            try:
                data = yaml.safe_load(recipe.read_text(encoding="utf-8"))["data"]
            except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
                continue
            if isinstance(data, str) and Path(data).is_dir():
                return data
    return None


def _from_dataset(data: str, task: str, config: TmoleConfig) -> HeldOut:
    kind = config.kind_of(task)
    splits = split_names(data, task)
    split = next((name for name in ("test", "validation") if name in splits), None)
    if split is None:
        raise RecfoundError(f"{data}: {task} has neither a test nor a validation split to compare an export on")
    samples = load_samples(data, task, kind, split)
    name = Path(data).resolve().name if Path(data).exists() else data
    source = f"{name}, {split} split"
    if kind == "embedding":
        rows = samples[_spread(len(samples), TEXTS)]
        return HeldOut(source, texts={"query": list(rows["anchor"]), "document": list(rows["positive"])})
    # Short ones: what a prompt's length adds is the base's business, and costs the most of the gate's time.
    candidates = samples[_spread(len(samples), 4 * PROMPTS)]["prompt"]
    return HeldOut(source, prompts=sorted(candidates, key=_characters)[:PROMPTS])


def _spread(rows: int, count: int) -> list[int]:
    """Places of `count` rows, evenly spaced; all where there are fewer."""
    return sorted({place * rows // count for place in range(count)}) if rows else []


def _characters(messages: Sequence[dict[str, str]]) -> int:
    return sum(len(message["content"]) for message in messages)


def _built_in(task: str, config: TmoleConfig) -> HeldOut:
    source = "built-in texts"
    if config.kind_of(task) == "embedding":
        return HeldOut(source, texts={"query": list(BUILT_IN), "document": list(reversed(BUILT_IN))})
    instruction = BUILDERS[task].phrasings[0] if task in BUILDERS else task
    return HeldOut(source, prompts=[[{"role": "user", "content": f"{instruction}\n\n{t}"}] for t in BUILT_IN[:PROMPTS]])
