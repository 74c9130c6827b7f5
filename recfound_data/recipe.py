"""Recipes: YAML parsed once, at the edge, into typed objects; an unknown key is refused with the nearest known one."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from recfound_data.errors import UsageError


class Strict(BaseModel):
    """A part of a recipe: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


class HistorySettings(Strict):
    """What of a user's interactions becomes histories and targets.

    Attributes:
        min_history: fewest earlier interactions that a target must have.
        max_history: most interactions that a history shows, the latest ones.
        train_targets_per_user: most training targets taken from one user, the latest ones.
        min_rating: interactions rated lower leave the history; they stay excluded as negatives.
        k_core: keep only users and items with this many interactions each, repeatedly; 0 keeps all.
    """

    min_history: int = Field(default=3, ge=1)
    max_history: int = Field(default=20, ge=1)
    train_targets_per_user: int = Field(default=1, ge=1)
    min_rating: float = 3.0
    k_core: int = Field(default=0, ge=0)


class MiningSettings(Strict):
    """Hard negatives that are searched for, in place of those that are drawn.

    Attributes:
        kind: `lexical` searches by words (BM25), `model` by embeddings of a sentence-transformers model.
        model: name on the Hub, or folder, beside the recipe or anywhere; of `kind: model` alone.
        revision: of a model on the Hub.
        depth: how many candidates are looked at for each sample; what they lack is drawn.
        skip: so many of the nearest are passed over: the nearer one is, the likelier it fits though nobody said so.
        tasks: whose negatives are mined.
    """

    kind: Literal["lexical", "model"]
    model: str | None = None
    revision: str | None = None
    depth: int = Field(default=50, ge=1, le=1_000)
    skip: int = Field(default=0, ge=0, le=1_000)
    tasks: list[Literal["query2item", "item2item"]] = ["query2item", "item2item"]

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.kind == "model") != (self.model is not None):
            raise ValueError(
                "`kind: model` needs `model`, the name of a sentence-transformers model, and no other does"
            )
        return self


class NearDuplicateSettings(Strict):
    """What counts as almost the same sample in another split, and where that is looked for.

    Attributes:
        threshold: the share of runs of five characters that two texts have in common, at least.
        tasks: where near-duplicates go; without any, all tasks but those that split a user's history by time, whose
            later histories hold the earlier ones.
    """

    threshold: float = Field(default=0.8, ge=0.3, le=1.0)
    tasks: list[str] = []

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str]) -> list[str]:
        from recfound_data.tasks import BUILDERS

        for task in tasks:
            if task not in BUILDERS:
                raise ValueError(f"there is no task {task!r}{nearest(task, BUILDERS)}")
        return tasks

    def covers(self, task: str) -> bool:
        """Return whether near-duplicates of a task go."""
        return task in self.tasks if self.tasks else task not in ("user2item", "sequential_recommendation")


class DataRecipe(Strict):
    """All that `recfound data build` needs: corpora, tasks and their settings.

    Attributes:
        seed: seeds every draw; the same recipe, inputs and seed give the same bytes.
        split: `leave_last` holds out each user's last two interactions; `global_time` cuts at two moments for all
            users, so that other users' future stays out of training too.
        corpora: one entry a corpus; `corpus` names its reader, the other keys are that reader's own.
        tasks: names of the tasks to build.
        history: see `HistorySettings`.
        negatives: negatives per embedding sample; the first is the column `negative`, the rest `more_negatives`.
        mining: see `MiningSettings`; None draws all negatives.
        near_duplicates: see `NearDuplicateSettings`; None keeps them.
        item_text_chars: longest `text` of an item, in characters, cut at a word.
        validation_share: share of groups (queries, item pairs) in validation where the corpus has no such split.
        test_share: share of groups that go to test where the corpus has no official test split.
        pairs_per_item: pairs drawn for each item, as anchor of item2item and for product_relation_prediction.
        sentiment_per_user: reviews taken from one user for sentiment_analysis.
        limits: most samples of a task by split, as `{user2item: {train: 86000, test: 4800}}`; those kept are drawn.
        rows_per_file: most rows in one Parquet file.
    """

    seed: int = 0
    split: Literal["leave_last", "global_time"] = "leave_last"
    corpora: list[dict[str, Any]] = Field(min_length=1)
    tasks: list[str] = Field(min_length=1)
    history: HistorySettings = HistorySettings()
    negatives: int = Field(default=5, ge=1, le=100)
    mining: MiningSettings | None = None
    near_duplicates: NearDuplicateSettings | None = None
    item_text_chars: int = Field(default=600, ge=40)
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    test_share: float = Field(default=0.1, gt=0, lt=0.5)
    pairs_per_item: int = Field(default=2, ge=1)
    sentiment_per_user: int = Field(default=1, ge=1)
    limits: dict[str, dict[Literal["train", "validation", "test"], Annotated[int, Field(ge=0)]]] = {}
    rows_per_file: int = Field(default=100_000, ge=1)

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str]) -> list[str]:
        from recfound_data.tasks import BUILDERS

        for task in tasks:
            if task not in BUILDERS:
                raise ValueError(
                    f"task {task!r} cannot be built{nearest(task, BUILDERS)}; known: {', '.join(BUILDERS)}"
                )
        if len(set(tasks)) != len(tasks):
            raise ValueError("a task is named twice")
        return tasks

    @field_validator("limits")
    @classmethod
    def _limited(cls, limits: dict[str, Any]) -> dict[str, Any]:
        from recfound_data.tasks import BUILDERS

        for task in limits:
            if task not in BUILDERS:
                raise ValueError(f"there is no task {task!r} to limit{nearest(task, BUILDERS)}")
        return limits


def nearest(name: str, known: Any) -> str:
    """Return `", did you mean 'x'?"` for the nearest known name, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(key) for key in known], n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, safely loaded.

    Raises:
        UsageError: the file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date
        raise UsageError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: a recipe is a mapping of keys to values, found {type(data).__name__}")
    return data


def parse(model: type[Model], data: Any, where: str) -> Model:
    """Return `data` as a `model`; `where` names the file or entry in errors.

    Raises:
        UsageError: a key is unknown, missing or has a wrong value; the message names it and the nearest known key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A key that is not known explains another that is missing.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _fields_at(model, first["loc"][:-1])
            raise UsageError(f"{where}: unknown key {key!r}{nearest(str(first['loc'][-1]), known)}") from None
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {key}: {said}" if key else f"{where}: {said}") from None


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known at a place of a model, through fields that may also be null."""
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        for kind in (annotation, *get_args(annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return list(model.model_fields)


def resolve(path: str, folder: Path, where: str) -> str:
    """Return `path` with `${NAME}` taken from the environment, relative to the recipe's folder unless a URL.

    Raises:
        UsageError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise UsageError(f"{where}: {path!r} needs the environment variable {name}, which is not set")
        return os.environ[name]

    path = re.sub(r"\$\{(\w+)\}", value, path)
    return path if "://" in path else str(folder / path)
