"""What a recipe says about how many samples of each task a step holds, made into the scheduler that decides it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from recfound_data.errors import UsageError
from recfound_data.tasks.catalogue import Kind
from recfound_model.scheduling.scheduler import FixedShares, SampleScheduler
from recfound_model.training.recipe import TrainRecipe
from recfound_model.training.spans import ITEM_SPANS


def totals(recipe: TrainRecipe) -> dict[Kind, int]:
    """Return how many samples of each kind a step holds."""
    return {"embedding": recipe.embedding_batch, "generative": recipe.generative_batch}


def make_scheduler(recipe: TrainRecipe, kinds: Mapping[str, Kind], sizes: Mapping[str, int]) -> FixedShares:
    """Return what decides how many samples of each task a step holds.

    Args:
        recipe: of the run.
        kinds: task -> its kind, spans of items among them.
        sizes: task -> number of its training samples.

    Raises:
        UsageError: the recipe's proportions name a task that is not trained on, or no task has a sample in a step.
    """
    settings = recipe.scheduler
    tasks = [task for task in kinds if task != ITEM_SPANS]
    unknown = [task for task in recipe.proportions if task not in tasks]
    if unknown:
        raise UsageError(f"proportions: task {unknown[0]!r} is not trained on; the tasks are {', '.join(tasks)}")
    groups: dict[str, dict[str, int]] = {}
    for kind, total in totals(recipe).items():
        members = {task: sizes[task] for task in kinds if kinds[task] == kind}
        if total and any(recipe.proportions.get(task, size) for task, size in members.items()):
            groups[kind] = members
    if not groups:
        raise UsageError("nothing to train: no task of the recipe has a sample in a step; raise the batch sizes")
    weights = {task: recipe.proportions.get(task, size) for own in groups.values() for task, size in own.items()}
    if ITEM_SPANS in weights:
        others = sum(weights[task] for task in groups["embedding"] if task != ITEM_SPANS)
        weights[ITEM_SPANS] = others * recipe.item_spans / (1 - recipe.item_spans)
    prior = weights if recipe.proportions or recipe.item_spans else None
    if settings.kind != "s2sched":
        flattening = {"proportional": 1.0, "uniform": math.inf, "temperature": settings.temperature}
        return FixedShares(groups, prior=prior, temperature=flattening[settings.kind])
    return SampleScheduler(
        groups,
        warmup=math.ceil(settings.warmup * recipe.steps),
        window=settings.window,
        tau=settings.tau,
        prior=prior,
        temperature=settings.temperature,
        cap=settings.cap,
        plateau=settings.plateau,
    )
