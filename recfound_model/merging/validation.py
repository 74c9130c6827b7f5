"""The validation losses of adapters of one run, measured with the objective that trained them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor

from recfound_data.errors import UsageError
from recfound_model.adapter_config import TmoleConfig
from recfound_model.bases import load_base
from recfound_model.merging.sources import run_of
from recfound_model.tmole import load_tmole
from recfound_model.training.joint import make_objective
from recfound_model.training.recipe import TrainRecipe, load_recipe
from recfound_model.training.record import RECIPE
from recfound_model.training.shares import totals
from recfound_model.training.streams import (
    first_of_each,
    load_samples,
    split_names,
    task_kinds,
    training_positives,
)


class Validation:
    """A base with an adapter on it, and validation samples of each task: losses of one set of tensors after another."""

    def __init__(self, adapter: str | Path, data: str | None, samples: int) -> None:
        """Load all that is measured with.

        Args:
            adapter: one that lies in its run's folder, whose recipe says how it was trained.
            data: another dataset than the run's.
            samples: of each task, as many as it has at most.

        Raises:
            UsageError: there is no recipe, or the dataset lacks a task or its validation split.
            RecfoundError: base or data cannot be read.
        """
        run = run_of(adapter)
        if not (run / RECIPE).is_file():
            raise UsageError(
                f"{adapter}: lies in no run's folder: there is no {run / RECIPE}, which says how to measure it"
            )
        recipe = load_recipe(run / RECIPE)
        if data is not None:
            recipe = recipe.model_copy(update={"data": data, "data_revision": None})
        config = TmoleConfig.from_pretrained(adapter)
        self.kinds = {
            task: kind
            for task, kind in task_kinds(recipe.data, recipe.data_revision, list(config.kinds)).items()
            if totals(recipe)[kind] and recipe.proportions.get(task, 1)
        }
        for task in self.kinds:
            if "validation" not in split_names(recipe.data, task, recipe.data_revision):
                raise UsageError(f"{task} of {recipe.data} has no validation split to select by")
        drawn = first_of_each(
            {task: self._samples(recipe, task, "validation") for task in self.kinds}, samples, recipe.seed
        )
        self._embedding = {task: rows for task, rows in drawn.items() if self.kinds[task] == "embedding"}
        self._generative = {task: rows for task, rows in drawn.items() if self.kinds[task] == "generative"}
        training = {task: self._samples(recipe, task, "train") for task in self._embedding}
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(), mixed_precision="bf16" if recipe.precision == "bf16" else "no"
        )
        name = str(config.base_model_name_or_path)
        base, tokenizer = load_base(name, config.revision, recipe.base_dtype, recipe.attention)
        self._model = load_tmole(base, adapter).to(accelerator.device)
        known = training_positives(recipe.data, training, recipe.data_revision)
        self._objective = make_objective(recipe, self._model, tokenizer, accelerator, known)

    def _samples(self, recipe: TrainRecipe, task: str, split: str) -> Dataset:
        return load_samples(recipe.data, task, self.kinds[task], split, recipe.data_revision)

    def losses(self, tensors: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the loss of each task for an adapter's tensors.

        Raises:
            RecfoundError: a loss is not finite.
        """
        self._model.load_adapter_tensors(tensors)
        return self._objective.losses(self._embedding, self._generative).losses
