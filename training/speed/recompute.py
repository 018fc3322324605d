"""Activation checkpointing of residual units: their inner activations are computed again in the backward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recomputed(unit: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return `unit(x)`, keeping x alone for the backward pass. Gradients and running statistics are those of `unit`."""

    def contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        return nullcontext(), _still_statistics(unit)

    # No random numbers in a unit: nothing to put back before it is computed again.
    output: torch.Tensor = checkpoint(unit, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return output


@contextmanager
def _still_statistics(unit: nn.Module) -> Iterator[None]:
    """Let batch norms leave their running statistics alone: the first pass has moved them already."""
    norms = [one for one in unit.modules() if isinstance(one, nn.BatchNorm2d)]
    before = [(one.running_mean, one.running_var, one.num_batches_tracked) for one in norms]
    # Copies, and not nothing: autograd wants as many tensors to be saved as in the first pass.
    for norm in norms:
        for name in STATISTICS:
            setattr(norm, name, getattr(norm, name).clone())
    try:
        yield
    finally:
        for norm, values in zip(norms, before, strict=True):
            for name, value in zip(STATISTICS, values, strict=True):
                setattr(norm, name, value)
