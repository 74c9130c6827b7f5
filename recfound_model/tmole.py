"""TMoLE: a task-wise mixture of low-rank experts on the linear layers of a frozen base model.

    g_t = softmax(R z_t + b + m_t)
    y   = W0 x + (alpha / r) * sum_e g_t[e] * B_e A_e x

The sum over experts is computed as one product, `((x A^T) * G) B^T`, with A and B stacked over the experts that the
batch's tasks can use (see `routing`). A, B, R and b are one Parameter a *group* of experts: a batch of embedding tasks
leaves the generative group's gradients None, so that no optimizer moves them, not even by decay or momentum.

PEFT's own machinery matches target modules, freezes the base and switches the adapter off; nothing of it is patched.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.tasks.catalogue import TASKS, Kind
from recfound_model.adapter_config import TmoleConfig
from recfound_model.adapter_files import (
    LETTERS,
    check_tensors,
    embedding_key,
    factor_key,
    fingerprint,
    open_adapter,
    write_adapter,
)
from recfound_model.gradient_checkpointing import carry_route
from recfound_model.routing import (
    GROUPS,
    Route,
    Routing,
    TaskEmbeddings,
    add_low_rank_update,
    gates,
    gates_of_rows,
    spread,
)

ADAPTER_NAME = "default"
"""PEFT keys everything by the name of an adapter. There is one here, and its name is not in the files."""


def dropout_noise(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """Independent draws of 0 with probability p and of 1 / (1 - p) otherwise, on the CPU.

    Sixteen random bits decide on each element, four elements to a call of the generator: a third of the time of
    `Tensor.bernoulli_`. p is rounded to a multiple of 2^-16, and the mean is exactly 1 for the rounded one.

    Returns:
        A tensor of `shape`, from torch's global generator.
    """
    size, dropped = math.prod(shape), min(round(p * 2**16), 2**16 - 1)
    bits = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:size]
    return (bits >= dropped - 2**15).view(shape).to(dtype).mul_(2**16 / (2**16 - dropped))


class InputDropout(nn.Dropout):
    """Dropout that costs less on a CPU, where drawing the mask takes longer than a product with an expert.

    Other devices and compiled code draw it fast already.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The input with elements dropped, in training; else the input itself."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        return input * dropout_noise(input.shape, self.p, input.dtype)


class TmoleExperts(nn.Module):
    """The experts and the router of one linear layer, by group.

    For a group of E_g experts: A [E_g r, in], B [out, E_g r], R [E_g, d], b [E_g]. Always float32: over a bfloat16 base
    the steps of a usual learning rate would be lost in rounding.
    """

    def __init__(self, in_features: int, out_features: int, config: TmoleConfig) -> None:
        super().__init__()
        self.r, self.scale = config.r, config.scale
        self.dropout = InputDropout(config.dropout)
        self.A, self.B, self.R, self.b = (nn.ParameterDict() for _ in LETTERS)
        for group in (g for g in GROUPS if config.experts[g]):
            experts = config.experts[group]
            # Kaiming on the stack is Kaiming on each expert: it depends on the number of inputs only. B = 0: the
            # adapted model starts as the base.
            self.A[group] = nn.init.kaiming_uniform_(torch.empty(experts * config.r, in_features), a=5**0.5)
            self.B[group] = torch.zeros(out_features, experts * config.r)
            self.R[group] = torch.randn(experts, config.task_dim)
            self.b[group] = torch.zeros(experts)

    def forward(self, x: Tensor, y: Tensor, route: Route, z: Tensor) -> Tensor:
        """Adds what the experts say to the frozen layer's output.

        Args:
            x: [batch, ..., in] the layer's input.
            y: [batch, ..., out] the frozen layer's output.
            route: the tasks of the batch.
            z: [len(route.tasks), d] their embeddings.

        Returns:
            [batch, ..., out], in the dtype of y.
        """
        A, R, b = (torch.cat([stack[group] for group in route.groups]) for stack in (self.A, self.R, self.b))
        B = torch.cat([self.B[group] for group in route.groups], dim=1)
        # A model may be spread over devices; the route's tensors are on one of them.
        mask, index = (None if t is None else t.to(R.device) for t in (route.mask, route.index))
        G = spread(gates(R, b, z.to(R.device), mask), self.r) * self.scale
        if index is not None:
            G = gates_of_rows(G, index, x.shape)
        # Under autocast the products choose their own dtype, and a float32 copy of the input would only cost memory.
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(A.dtype)
        return add_low_rank_update(y, self.dropout(x), A, B, G)


class TmoleLinear(nn.Module, BaseTunerLayer):
    """A frozen linear layer plus its experts; which of them are used is read from the model's shared `routing`."""

    adapter_layer_names = ("tmole",)

    def __init__(self, base_layer: nn.Linear, config: TmoleConfig, routing: Routing) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.routing = routing
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.tmole = nn.ModuleDict({ADAPTER_NAME: TmoleExperts(self.in_features, self.out_features, config)})

    @property
    def experts(self) -> TmoleExperts:
        """The experts and the router of this layer."""
        experts = self.tmole[ADAPTER_NAME]
        assert isinstance(experts, TmoleExperts)
        return experts

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[batch, ..., in] -> [batch, ..., out], in the base layer's own dtype.

        Raises:
            RecfoundError: no task was named (see `task_context`).
            UsageError: one task a row was named, and the rows do not match.
        """
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        route = self.routing.current()
        updated: Tensor = self.experts(x, result, route, self.routing.z_of(route))
        return updated


class TmoleModel(BaseTuner):
    """A base model with TMoLE on its target layers. Calls, and attributes that it lacks, go to the base.

    On several processes: `DistributedDataParallel(model, find_unused_parameters=True)`, because the parameters of other
    tasks and kinds take no part in a pass; what no process used keeps gradient None. Or `fully_shard` on each layer of
    the base and then on this model, whose own parameters are the task embeddings, so that it is the one to call; the
    base may be of another dtype than the adapter. FSDP2 sums over the processes whatever gradients there are, in their
    order: with it, all processes must use the same tasks in a pass, or one embedding is given another one's gradient,
    and nothing says so.
    """

    prefix = "tmole"
    tuner_layer_cls = TmoleLinear
    target_module_mapping: dict[str, list[str]] = {}  # no defaults by architecture: targets are explicit
    uses_shared_state = True

    def _pre_injection_hook(self, model: nn.Module, config: TmoleConfig, adapter_name: str) -> None:  # noqa: ARG002
        self.task_embeddings = TaskEmbeddings(config.kinds, config.task_dim)
        self.routing = Routing(config.kinds, config.experts, self.task_embeddings)

    def _prepare_model(self, peft_config: TmoleConfig, model: nn.Module) -> None:
        # Before any layer is replaced, so that a wrong target leaves the base as it was.
        for name, module in model.named_modules():
            if name and self._check_target_module_exists(peft_config, name) and not isinstance(module, nn.Linear):
                raise UsageError(
                    f"target_modules matches {name}, a {type(module).__name__}: only linear layers can be adapted"
                )

    def _create_and_replace(
        self,
        peft_config: TmoleConfig,
        adapter_name: str,  # noqa: ARG002
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,  # noqa: ARG002
        parameter_name: str | None = None,  # noqa: ARG002
    ) -> None:
        assert isinstance(target, nn.Linear)
        layer = TmoleLinear(target, peft_config, self.routing)
        self._replace_module(parent, target_name, layer, target)  # moves the experts to the target's device, too

    def _post_injection_hook(self, model: nn.Module, config: TmoleConfig, adapter_name: str) -> None:  # noqa: ARG002
        device = next(layer.base_layer.weight.device for _, layer in self.adapted_layers())
        if device.type != "meta":
            self.task_embeddings.to(device)
        carry_route(model, self.routing)

    @property
    def tmole_config(self) -> TmoleConfig:
        """The adapter's configuration (`.config` is the base model's)."""
        config = self.peft_config[ADAPTER_NAME]
        assert isinstance(config, TmoleConfig)
        return config

    def adapted_layers(self) -> list[tuple[str, TmoleLinear]]:
        """(path in the base model, layer) of every adapted linear."""
        return [(name, module) for name, module in self.model.named_modules() if isinstance(module, TmoleLinear)]

    def adapter_tensors(self) -> dict[str, Tensor]:
        """The trained tensors under the names that they have in a file (see `adapter_files`), not copied."""
        tensors = {embedding_key(task): self.task_embeddings[task] for task in self.tmole_config.kinds}
        for path, layer in self.adapted_layers():
            for letter in LETTERS:
                for group, tensor in getattr(layer.experts, letter).items():
                    tensors[factor_key(path, letter, group)] = tensor
        return dict(sorted(tensors.items()))

    @torch.no_grad()
    def load_adapter_tensors(self, tensors: Mapping[str, Tensor], origin: str = "the adapter") -> None:
        """Copies tensors named as in a file into the model.

        Raises:
            RecfoundError: names or shapes are not exactly those of this model; nothing was copied.
        """
        own = self.adapter_tensors()
        check_tensors(f"{origin} on {type(self.model).__name__}", own, tensors)
        for key, tensor in own.items():
            tensor.copy_(tensors[key])

    @torch.no_grad()
    def add_task(self, name: str, kind: Kind | None = None, like: str | None = None) -> None:
        """Adds a task to a trained adapter; what the model computes for its other tasks stays the same to the bit.

        Its embedding is drawn as those of a new adapter with one more task are (from torch's global generator), or is
        a copy of another task's. All else that the task uses, the experts and routers of its kind, is there already.
        `tmole_config` follows: its `initialization` becomes a hash of the old one and the new embedding. An optimizer
        that was made before does not know the new parameter: make it anew, or give it a group with the parameter
        `model.task_embeddings[name]`.

        Args:
            name: of the catalogue, or one's own.
            kind: of the task; known names, and those that are `like` another, bring it with them.
            like: a task of the same kind whose embedding the new one starts from.

        Raises:
            ValueError: the name cannot be one, is taken, or does not go with the kind.
            UnknownTaskError: a name that is not in the catalogue and comes without a kind, or an unknown `like`.
            UsageError: `like` is of another kind.
        """
        config = self.tmole_config
        if like is not None and kind is None and name not in TASKS:
            kind = config.kind_of(like)
        kinds = config.kinds_with(name, kind)
        if like is not None and config.kind_of(like) != kinds[name]:
            raise UsageError(
                f"{name!r} is {kinds[name]} and cannot start from {like!r}, which is {config.kind_of(like)}"
            )
        some = self.task_embeddings[next(iter(config.kinds))]
        if like is not None:
            z = self.task_embeddings[like]
        else:
            z = nn.init.xavier_normal_(torch.empty(len(kinds), config.task_dim))[-1]
        self.task_embeddings.put(name, z.to(some.device))
        self.task_embeddings[name].requires_grad_(some.requires_grad)
        self.routing.kinds[name] = kinds[name]
        config.tasks = kinds
        config.initialization = fingerprint({embedding_key(name): z}, descends_from=config.initialization)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the adapter's folder, whole or not at all; the base model is not in it.

        Raises:
            RecfoundError: the folder holds files that are not an adapter's.
        """
        write_adapter(save_directory, self.tmole_config, self.adapter_tensors())


def add_tmole(base_model: nn.Module, config: TmoleConfig) -> TmoleModel:
    """Puts a freshly drawn TMoLE adapter on a base model, in place, and freezes the base.

    The draw takes torch's global random state: the same seed gives the same adapter.

    Args:
        base_model: any module with linear layers.
        config: left as it is; the model's own copy has base and initialisation filled in.

    Raises:
        UsageError: the base already has an adapter, or a target is not a linear layer.
        ValueError: no target was found (PEFT's own error, which lists them).
    """
    model = _inject(base_model, config)
    model.tmole_config.initialization = fingerprint(model.adapter_tensors())
    return model


def load_tmole(base_model: nn.Module, source: str | Path, revision: str | None = None) -> TmoleModel:
    """Puts a saved adapter on a base model, in place; in evaluation mode.

    Args:
        base_model: the model that the adapter was trained on, of the same class.
        source: the adapter's folder, or the id of its repository on the Hub.
        revision: branch, tag or commit of the repository.

    Raises:
        RecfoundError: a file is missing or damaged, or adapter and model do not fit to the last tensor.
    """
    with open_adapter(source, revision) as adapter:
        tensors = {key: adapter.tensor(key) for key in adapter.keys}
        config = adapter.config
    # What is drawn here is overwritten below, and opening an adapter must not change a run's random numbers.
    with torch.random.fork_rng(devices=[]):
        try:
            model = _inject(base_model, config)
        except ValueError as error:
            raise RecfoundError(f"the adapter {source} does not fit {type(base_model).__name__}: {error}") from error
    model.load_adapter_tensors(tensors, origin=f"the adapter {source}")
    return model.eval()


def _inject(base_model: nn.Module, config: TmoleConfig) -> TmoleModel:
    if any(isinstance(module, BaseTunerLayer) for module in base_model.modules()):
        raise UsageError("the base model already has an adapter in it: load a fresh one")
    config = copy.deepcopy(config)  # PEFT writes into it: "all-linear" becomes the names that it stands for
    if config.base_model_name_or_path is None:
        base_config = getattr(base_model, "config", None)
        config.base_model_name_or_path = getattr(base_config, "_name_or_path", None) or None
    model = TmoleModel(base_model, config, ADAPTER_NAME)
    # New modules are born in training mode; an adapter joins the mode of its base.
    return model.train(base_model.training)
