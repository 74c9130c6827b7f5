"""A training recipe, and the `--set key=value` overrides of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from recfound_data.errors import UsageError
from recfound_data.recipe import Strict, parse, read_yaml


class AdapterSettings(Strict):
    """The sizes of the adapter; the defaults are the paper's."""

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    experts: dict[Literal["embedding", "shared", "generative"], int] = {"embedding": 2, "shared": 2, "generative": 2}
    task_dim: int = Field(default=512, ge=1)
    target_modules: list[str] | str = ["q_proj", "k_proj", "v_proj", "o_proj"]


class SchedulerSettings(Strict):
    """How many samples of each task a step holds.

    Attributes:
        kind: `s2sched` moves the shares with the tasks' convergence; the others are fixed shares: by number of samples,
            all equal, or by number of samples to the power of 1 / temperature.
        warmup: share of the steps in which s2sched keeps the first shares.
        window: steps that slopes are fitted over, and slopes that they are compared with.
        tau: how sharply the divergence factor tells a group that stops converging.
        temperature: of the first shares; 1 is by number of samples. `uniform` needs none.
        cap: greatest share of a task inside its kind; none by default.
        plateau: a task whose relative loss changes by less a step gets the least share; none by default.
        signal: `losses` are those of the training batches, and cost nothing; `probe` measures a part of the validation
            split every few steps.
        probe_every: steps between probes.
        probe_samples: validation samples of each task in a probe.
    """

    kind: Literal["s2sched", "proportional", "uniform", "temperature"] = "s2sched"
    warmup: float = Field(default=0.1, ge=0, le=1)
    window: int = Field(default=64, ge=2)
    tau: float = Field(default=10.0, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    cap: float | None = Field(default=None, gt=0, le=1)
    plateau: float | None = Field(default=None, ge=0)
    signal: Literal["losses", "probe"] = "losses"
    probe_every: int = Field(default=32, ge=1)
    probe_samples: int = Field(default=128, ge=1)


class ValidationSettings(Strict):
    """When losses are measured on the validation split, and which checkpoints stay.

    Attributes:
        every: steps between measurements, with one after the last step; 0 for none.
        samples: validation samples of each task, the same ones each time.
    """

    every: int = Field(default=0, ge=0)
    samples: int = Field(default=64, ge=1)


class TrainRecipe(Strict):
    """All that `recfound model train` needs.

    Attributes:
        base: a folder, a repository on the Hub, or `nano`, which makes a small base from the dataset's own text.
        revision: the base's branch, tag or commit.
        data: a dataset folder or a repository on the Hub.
        data_revision: the dataset's branch, tag or commit.
        out: the run's folder.
        tasks: the tasks to train on; all of the dataset's where none are named.
        adapter: see `AdapterSettings`.
        scheduler: see `SchedulerSettings`.
        seed: seeds initialisation, order and dropout.
        steps: optimizer steps.
        embedding_batch: embedding samples a step, over all embedding tasks.
        generative_batch: generative samples a step, over all generative tasks.
        proportions: weight of a task inside its kind when training begins; the number of its training samples where not
            given. A task of weight 0 is not trained.
        item_spans: share of `embedding_batch` that is auxiliary pairs when training begins: words of an item's
            description, and its title (`spans.py`). They take the route of query2item, which must be trained.
        negatives: whose documents are an anchor's negatives: those of its own task, or all of the step.
        negatives_per_pair: hard negatives of each pair that enter the batch, besides the other pairs' documents.
        popularity_correction: take off a document's score, in the contrastive loss, the logarithm of how often it is a
            positive of its task in training; needs negatives of the same task.
        temperature: of the contrastive loss.
        generative_weight: lambda of the joint objective.
        learning_rate: its peak, reached after `warmup` of the steps, then linear to zero.
        rate_factors: what the rate is multiplied by for some of the parameters: for `gates` (R, b and the embeddings of
            tasks), or for the experts of a group.
        warmup: share of the steps.
        weight_decay: of AdamW.
        max_grad_norm: the gradient is clipped to it.
        query_tokens: longest anchor, prompt included.
        document_tokens: longest positive or negative, prompt included.
        generative_tokens: longest prompt with its completion; longer prompts lose their beginning, completions of more
            than three quarters of it their end.
        tokens_per_forward: most tokens, padding included, in one forward pass. Batches are cut into as many passes as
            that takes; it bounds memory and changes no gradient.
        packing: put several short texts into one row, rather than texts of about the same length side by side.
        precision: `bf16` runs the forward passes under autocast.
        base_dtype: the type that the frozen base is held in.
        attention: the base's attention implementation, by transformers' name, such as `flash_attention_2`.
        gradient_checkpointing: recompute layers in the backward pass, for less memory.
        sharding: `fsdp2` spreads the layers over the processes of a launcher, for a base too large for one of them.
        validation: see `ValidationSettings`.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many of the last ones stay, besides the first and the best by validation; all by default.
        plots: draw losses, shares and gates at the end.
        trackers: where accelerate sends the metrics besides `metrics.jsonl`: `tensorboard`, `wandb`, `trackio`.
    """

    base: str
    revision: str | None = None
    data: str
    data_revision: str | None = None
    out: str
    tasks: list[str] = []
    adapter: AdapterSettings = AdapterSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    seed: int = Field(default=0, ge=0, lt=2**32)
    steps: int = Field(default=307, ge=1)
    embedding_batch: int = Field(default=64, ge=0)
    generative_batch: int = Field(default=32, ge=0)
    proportions: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    item_spans: float = Field(default=0, ge=0, lt=1)
    negatives: Literal["same_task", "all"] = "same_task"
    negatives_per_pair: int = Field(default=1, ge=0)
    popularity_correction: bool = False
    temperature: float = Field(default=0.02, gt=0)
    generative_weight: float = Field(default=1.0, ge=0)
    learning_rate: float = Field(default=2e-5, gt=0)
    rate_factors: dict[
        Literal["gates", "embedding", "shared", "generative"], Annotated[float, Field(ge=0, allow_inf_nan=False)]
    ] = {}
    warmup: float = Field(default=0.03, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    query_tokens: int = Field(default=256, ge=8)
    document_tokens: int = Field(default=512, ge=8)
    generative_tokens: int = Field(default=1024, ge=8)
    tokens_per_forward: int = Field(default=8192, ge=1)
    packing: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    attention: str | None = None
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp2"] = "none"
    validation: ValidationSettings = ValidationSettings()
    checkpoint_every: int = Field(default=100, ge=1)
    keep_checkpoints: int | None = Field(default=None, ge=1)
    plots: bool = True
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = []

    @model_validator(mode="after")
    def _comparable(self) -> TrainRecipe:
        if self.popularity_correction and self.negatives != "same_task":
            raise ValueError(
                "popularity_correction: how often items are positives is not comparable across tasks; set negatives to "
                "same_task"
            )
        return self


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> TrainRecipe:
    """Return the recipe in a YAML file, with `key=value` overrides applied; values are YAML, keys may be dotted.

    Local paths are relative to the working directory, as in the shell that named the recipe.

    Raises:
        UsageError: the file, a key or a value is wrong.
    """
    data = read_yaml(Path(path))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {override}: expected key=value")
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):  # ValueError: an impossible date
            raise UsageError(f"--set {override}: the value is not valid YAML") from None
        _assign(data, key.split("."), parsed, override)
    return parse(TrainRecipe, data, str(path))


def _assign(data: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    *parents, last = keys
    for key in parents:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise UsageError(f"--set {override}: {key} is no group of keys")
    data[last] = value
