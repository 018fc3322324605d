"""Votes of all ranks to stop and to save, in messages that no step waits for.

A rank that stops alone, or saves alone, leaves the others waiting. So each rank casts its votes after a step, and all
read the sums one step later, when they have long arrived. The messages are between CPUs: a step need not wait for the
device.
"""

from collections.abc import Sequence

import torch
from torch import distributed

from training.parallel import Ranks, rank_message

__all__ = ["RankVotes"]


class RankVotes:
    """Votes of one run. All ranks must build it, and call `read` and `cast` in turn; of one rank, votes count at once.

    Raises FourfoldError if a rank is gone.
    """

    def __init__(self, ranks: Ranks, num_flags: int) -> None:
        self._world_size, self._num_flags = ranks.world_size, num_flags
        self._work: distributed.Work | None = None
        self._votes = torch.zeros(num_flags)
        # Of its own, also on a CPU: its messages must not come between those of a step.
        self._group: distributed.ProcessGroup | None = None
        if ranks.world_size > 1:
            with rank_message():
                self._group = distributed.new_group(backend="gloo")  # type: ignore[assignment]

    def read(self, own: Sequence[bool]) -> list[bool]:
        """Return for each flag whether any rank had it set when votes were last cast; of one rank, `own`."""
        if self._world_size == 1:
            return list(own)
        if self._work is None:
            return [False] * self._num_flags
        with rank_message():
            self._work.wait()
        return [vote > 0 for vote in self._votes.tolist()]

    def cast(self, own: Sequence[bool]) -> None:
        """Send this rank's flags, to be read after the next step. Returns at once."""
        if self._world_size == 1:
            return
        self._votes = torch.tensor([float(flag) for flag in own])
        with rank_message():
            self._work = distributed.all_reduce(self._votes, group=self._group, async_op=True)
