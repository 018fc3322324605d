"""One batch over several ranks: each holds a part of its rows, and losses are taken as one rank with all rows would.

Inside `shared_batch`, a loss divides by the mean over ranks of its weights and compares with the rows of all ranks. The
mean over ranks of what every rank minimises is then the loss of the whole batch, and the mean of the gradients its
gradient. Outside, as for held-out samples that one rank measures alone, a batch is whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

from training.parallel import Ranks, rank_message

__all__ = ["all_rows", "mean_over_ranks", "shared_batch", "sharing_ranks"]

# Of the process and not of the thread: backward passes on a GPU run in threads of torch, and may compute parts of the
# forward pass again.
_sharing: Ranks | None = None


@contextmanager
def shared_batch(ranks: Ranks) -> Iterator[None]:
    """Share the batches inside the block with `ranks`, which all enter it with parts of equal size."""
    global _sharing
    before, _sharing = _sharing, ranks if ranks.world_size > 1 else None
    try:
        yield
    finally:
        _sharing = before


def sharing_ranks() -> Ranks | None:
    """Return the ranks that share the present batch; None for a batch of this rank alone."""
    return _sharing


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the mean over the ranks that share the batch, of numbers that need no gradient; of one rank, `values`.

    Raises FourfoldError if a rank is gone.
    """
    if _sharing is None:
        return values
    total = values.detach().clone()
    _sharing.add_up(total)
    return total / _sharing.world_size


def all_rows(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all ranks that share the batch, in their order: (R, ...) to (world_size * R, ...).

    Gradients flow back to the rank that a row came from. Raises FourfoldError if a rank is gone.
    """
    if _sharing is None:
        return rows
    gathered: torch.Tensor = _Gathered.apply(rows, _sharing)
    return gathered


class _Gathered(torch.autograd.Function):
    """Rows of all ranks; backward, the sum over ranks of the gradients of the own ones."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks, ctx.num_rows = ranks, len(rows)
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(ranks.world_size)]
        with rank_message():
            distributed.all_gather(parts, rows.contiguous(), ranks.group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # A sum of all rows, of which one part is used, and not reduce_scatter: gloo lacks it.
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        ctx.ranks.add_up(total)
        return total[ctx.ranks.rank * ctx.num_rows :][: ctx.num_rows], None
