"""Compiled forward passes: trunk, lasso and head of a task as one graph, with kernels in a folder that runs share."""

import os
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import torch

from pipelines.tasks.base import TaskBatch
from training.model import Model
from training.updates.losses import Loss

__all__ = ["CACHE_VARIABLE", "compiled_forward", "kernel_folder", "reason_not_to_compile"]

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def kernel_folder() -> Path:
    """Return the folder of compiled kernels that all runs and suites share: $TORCHINDUCTOR_CACHE_DIR, or one below
    $FOURFOLD_CACHE (default ~/.cache/fourfold)."""
    cache = Path(os.environ.get("FOURFOLD_CACHE") or Path.home() / ".cache" / "fourfold")
    return Path(os.environ.get(CACHE_VARIABLE) or cache / "kernels")


def reason_not_to_compile(device: torch.device) -> str | None:
    """Return why `compile: auto` compiles nothing on a device; None where it does."""
    if device.type != "cuda":
        return "compiled steps were not faster on a CPU (docs/training.md)"
    from torch.utils._triton import has_triton

    return None if has_triton() else "Triton is not installed; torch's packages for Linux bring it"


def compiled_forward(model: Model, *, backend: str = "inductor") -> Callable[[TaskBatch], Loss]:
    """Return a function that does what `model` does, compiled at its first batch of every task.

    The model stays as it is: measurements that call it, and watch its modules, are not compiled. `backend`: of
    torch.compile.
    """
    # Read by torch when the first graph is compiled, so that a later change has no effect.
    os.environ.setdefault(CACHE_VARIABLE, str(kernel_folder()))
    compiled: dict[str, Callable[[TaskBatch], torch.Tensor]] = {}

    def forward(batch: TaskBatch) -> Loss:
        if batch.task not in compiled:
            # Batches of a task have one shape, and a graph of fixed shapes has the faster kernels.
            own = _with_own_code(lambda given: model.predict(given), batch.task)
            compiled[batch.task] = torch.compile(own, dynamic=False, backend=backend)
        # Before the graph looks at the norms: another task's statistics there would be a reason to compile again.
        model.trunk.use_statistics(batch.task)
        return model.loss_of(compiled[batch.task](batch), batch)

    return forward


def _with_own_code(function: Callable[[TaskBatch], torch.Tensor], name: str) -> Callable[[TaskBatch], torch.Tensor]:
    """Return a function with a code object of its own."""
    # torch keeps graphs by code object, and compares a batch with the graphs of earlier ones: looking for the pairs of
    # relative position in a batch of another task raises KeyError (torch 2.14).
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"predict_{name}")
    return FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
