"""Peak memory of a training step, predicted from shapes before anything is allocated.

Counted: parameters, gradients, running averages of the optimizers, the batch, and everything autograd keeps from the
forward pass for the backward pass, each storage once. Not counted: workspaces of convolutions and the allocator's
blocks, so that a GPU needs somewhat more.
"""

import copy
from dataclasses import dataclass

import torch

from pipelines.tasks.base import TaskBatch
from training.model import Model

__all__ = ["StepMemory", "step_memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMemory:
    """Bytes of one task's step, by what they hold."""

    parameter_bytes: int
    """Parameters and buffers of the whole model."""
    gradient_bytes: int
    """Gradients of what the task trains."""
    optimizer_bytes: int
    """Running averages of all tasks' optimizers, which stay in memory between steps."""
    activation_bytes: int
    """What the forward pass keeps for the backward pass; grows with the batch."""
    batch_bytes: int

    @property
    def total_bytes(self) -> int:
        parts = self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes
        return parts + self.activation_bytes + self.batch_bytes


def step_memory(model: Model, batch: TaskBatch, *, averages_per_weight: int = 1) -> StepMemory:
    """Return the memory of a step on one task's batch. Only shapes are looked at: the batch may be on device "meta".

    averages_per_weight: 1 for rmsprop without momentum, 2 for adamw and rmsprop with momentum.
    """
    shapes = copy.deepcopy(model).to("meta")
    # Autocast casts that device "meta" does not know; bf16 activations are half of this.
    shapes.precision = "fp32"
    shapes.train()
    batch = batch.to(torch.device("meta"))
    own = {id(tensor) for tensor in (*shapes.parameters(), *shapes.buffers())}
    batch_tensors = [batch.inputs, batch.weight, *batch.target.values()]
    # Storages are kept alive while they are counted, or an address could come twice.
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in own:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = shapes(batch)
    del loss
    of_batch = {tensor.untyped_storage()._cdata for tensor in batch_tensors}
    of_model = {tensor.untyped_storage()._cdata for tensor in (*shapes.parameters(), *shapes.buffers())}
    activations = sum(storage.nbytes() for key, storage in kept.items() if key not in of_batch | of_model)
    trained = _bytes_of(shapes.parameters_of(batch.task))
    per_task = sum(_bytes_of(shapes.parameters_of(task)) for task in shapes.heads)
    return StepMemory(
        parameter_bytes=_bytes_of([*shapes.parameters(), *shapes.buffers()]),
        gradient_bytes=trained,
        optimizer_bytes=averages_per_weight * per_task,
        activation_bytes=activations,
        batch_bytes=_bytes_of(batch_tensors),
    )


def _bytes_of(tensors: list[torch.Tensor] | list[torch.nn.Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
