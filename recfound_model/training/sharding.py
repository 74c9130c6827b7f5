"""A model whose layers are spread over the processes (FSDP2), for a base that does not fit into one accelerator.

Of every layer, frozen weights and adapter alike, each process holds a part. A layer gathers the rest when it runs, and
sums the gradients of its adapter over the processes after its backward pass. What is outside of the layers, that is the
token embeddings, the last norm, the head and the task embeddings, is whole on every process.

FSDP2 sums whatever gradients a layer has, in their order. So the processes must run passes of the same kind in the same
order, with and without gradient, which `JointObjective` sees to: then a layer has used the same groups of experts
everywhere. The task embeddings, which differ from process to process, are not FSDP2's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm
from transformers.modeling_layers import GradientCheckpointingLayer

from recfound_data.errors import UsageError
from recfound_model.adapter_files import part_of
from recfound_model.tmole import TmoleModel


def require_processes(accelerator: Accelerator) -> None:
    """Refuse to spread a base over one process.

    Raises:
        UsageError: there is only one.
    """
    if accelerator.num_processes == 1:
        raise UsageError(
            "sharding: fsdp2 spreads the base over several processes, and there is one; start the run with "
            "`accelerate launch` or `torchrun`, or set sharding to none"
        )


def shard(model: TmoleModel, accelerator: Accelerator) -> None:
    """Spread a model's layers over the processes, in place; each part moves to its process's device.

    All processes call it with the same weights. An optimizer must be made after it.

    Raises:
        UsageError: the base has no layers that are known as such.
    """
    decoder = model.get_decoder()
    layers = list(_layers(decoder))
    if not layers:
        raise UsageError(f"sharding: {type(decoder).__name__} has no layers that can be told apart; set it to none")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for layer in layers:
        sharded = fully_shard(layer, mesh=mesh)
        # Each process has its part of one loss: the parts are added, not averaged.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)
    # With a common root, a layer's weights are gathered while the one before it still runs.
    fully_shard(decoder, mesh=mesh, ignored_params={p for p in decoder.parameters() if not isinstance(p, DTensor)})


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules that transformers can checkpoint, which are a decoder's layers."""
    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from _layers(child)


def own_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, not copied; of a tensor that is not sharded, all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes that this process holds of tensors."""
    return sum(own_part(tensor).nbytes for tensor in tensors)


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Return whole tensors, those that are sharded on the CPU; all processes call it.

    Args:
        tensors: of the same names on all processes, in the same order.
        keep: false where nothing is to be returned: a process that only contributes.
    """
    found = {}
    for key, tensor in tensors.items():
        whole = tensor.detach()
        if isinstance(whole, DTensor):
            whole = whole.full_tensor().cpu() if keep else whole.full_tensor()
        if keep:
            found[key] = whole
    return found


def laid_out_as(own: Tensor | None, tensor: Tensor) -> Tensor:
    """Return a whole tensor, the same on all processes, sharded as `own` is; where `own` is not, as it was."""
    if not isinstance(own, DTensor):
        return tensor
    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def parameter_groups(tensors: Mapping[str, Tensor], factors: Mapping[Any, float]) -> list[dict[str, Any]]:
    """Return an adapter's tensors as groups for an optimizer, each with the `factor` of its learning rate.

    Kernels over many tensors take sharded ones or whole ones, so that a group has either.

    Args:
        tensors: as the adapter's `adapter_tensors` names them.
        factors: by part of the adapter, see `part_of`; 1 where a part has none.
    """
    found: dict[tuple[float, bool], list[Tensor]] = {}
    for key, tensor in tensors.items():
        found.setdefault((factors.get(part_of(key), 1.0), isinstance(tensor, DTensor)), []).append(tensor)
    return [
        {"params": held, "factor": factor} | ({"foreach": True} if sharded else {})
        for (factor, sharded), held in found.items()
    ]


def clip_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale gradients so that their norm, over all parameters and processes, is at most `max_norm`.

    Returns:
        The norm that they had; it is not finite where one of them is not.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts = [own_part(g) for g in gradients if isinstance(g, DTensor)]
    whole = [g for g in gradients if not isinstance(g, DTensor)]
    # Whole gradients are the same on all processes, and must count once.
    norm = get_total_norm(whole).to(accelerator.device)
    if parts:
        norm = torch.hypot(norm, reduce(get_total_norm(parts).square(), "sum").sqrt())
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    with torch.no_grad():
        for gradient in (*whole, *parts):
            gradient.mul_(factor)
    return float(norm)
