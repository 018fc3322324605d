"""Gradients averaged over ranks while the backward pass still computes others.

Parameters are put into buckets in the order in which their gradients come; a full bucket is sent at once. The layout
depends on the parameters alone. DistributedDataParallel lays its buckets out anew after its first step, and sums of
three or more ranks round by the layout, so that a resumed run would differ from one that was never stopped.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import distributed, nn

from training.parallel import Ranks, rank_message

__all__ = ["GradientBuckets"]

BUCKET_BYTES = 25 * 2**20
"""As in DistributedDataParallel: smaller ones start earlier, larger ones have fewer messages."""


@dataclass(slots=True)
class _Bucket:
    """Parameters that are sent in one message, and the message on its way."""

    parameters: list[nn.Parameter]
    num_missing: int = 0
    work: distributed.Work | None = None
    flat: torch.Tensor | None = None
    views: list[tuple[nn.Parameter, torch.Tensor]] = field(default_factory=list)

    def send(self, ranks: Ranks) -> None:
        """Begin to add up the gradients that are there. Those of parameters that a loss does not use are None."""
        used = [parameter for parameter in self.parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in used if parameter.grad is not None]
        if not used:
            return
        self.flat = torch.empty(sum(one.numel() for one in used), dtype=used[0].dtype, device=used[0].device)
        # Each in the order of its memory: optimizers are slower where gradients and weights differ in it.
        starts = [0]
        for one in used:
            starts.append(starts[-1] + one.numel())
        views = [
            self.flat.as_strided(one.size(), one.stride(), start) for one, start in zip(used, starts, strict=False)
        ]
        torch._foreach_copy_(views, gradients)
        self.views = list(zip(used, views, strict=True))
        with rank_message():
            self.work = distributed.all_reduce(self.flat, group=ranks.group, async_op=True)

    def receive(self, ranks: Ranks) -> None:
        """Put the means over ranks in the place of the gradients."""
        if self.work is None or self.flat is None:
            return
        with rank_message():
            self.work.wait()
        self.flat /= ranks.world_size
        for parameter, view in self.views:
            parameter.grad = view
        self.work, self.flat, self.views = None, None, []


class GradientBuckets:
    """Buckets of every task's parameters. Tasks may share parameters, as they do the trunk's."""

    def __init__(
        self, parameters: Mapping[str, Sequence[nn.Parameter]], ranks: Ranks, *, bucket_bytes: int = BUCKET_BYTES
    ) -> None:
        """`parameters` by task, in the order of the forward pass. All ranks have the same."""
        self._ranks = ranks
        self._buckets: dict[str, list[_Bucket]] = {}
        self._open: dict[nn.Parameter, _Bucket] = {}
        if ranks.world_size == 1:
            return
        self._buckets = {task: _in_buckets(own[::-1], bucket_bytes) for task, own in parameters.items()}
        for parameter in {one for own in parameters.values() for one in own}:
            parameter.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]

    @contextmanager
    def averaging(self, task: str) -> Iterator[None]:
        """Average the gradients of a task's parameters that a backward pass inside the block adds up.

        All ranks must enter it with the same task. Raises FourfoldError if a rank is gone.
        """
        buckets = self._buckets.get(task, [])
        for bucket in buckets:
            bucket.num_missing = len(bucket.parameters)
        self._open = {parameter: bucket for bucket in buckets for parameter in bucket.parameters}
        try:
            yield
        finally:
            self._open = {}
        # A bucket with a parameter that the loss did not use is sent now: the same ones on all ranks.
        for bucket in buckets:
            if bucket.work is None:
                bucket.send(self._ranks)
        for bucket in buckets:
            bucket.receive(self._ranks)

    def _arrived(self, parameter: torch.Tensor) -> None:
        bucket = self._open.get(parameter)  # type: ignore[call-overload]
        if bucket is None:
            return
        bucket.num_missing -= 1
        if bucket.num_missing == 0:
            bucket.send(self._ranks)


def _in_buckets(parameters: Sequence[nn.Parameter], bucket_bytes: int) -> list[_Bucket]:
    buckets: list[_Bucket] = []
    size = bucket_bytes
    for parameter in parameters:
        num_bytes = parameter.numel() * parameter.element_size()
        if size + num_bytes > bucket_bytes or parameter.dtype != buckets[-1].parameters[0].dtype:
            buckets.append(_Bucket([]))
            size = 0
        buckets[-1].parameters.append(parameter)
        size += num_bytes
    return buckets
