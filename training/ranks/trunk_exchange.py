"""Trunk updates of groups of ranks, each of which trains other tasks, added up every N steps.

Every group moves the trunk with its own tasks' optimizers. At an exchange the trunk becomes what it was at the one
before, plus the sum of the groups' moves. With N = 1 that is `updates: summed`: all tasks' gradients are
of the same weights.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from training.parallel import Ranks

__all__ = ["TrunkExchange"]


class TrunkExchange:
    """Exchange of one run. everyone: all ranks. num_own: ranks of this rank's group, which move the trunk alike.

    means: buffers that become their mean over groups instead (running statistics). Costs a copy of the trunk.
    """

    def __init__(
        self,
        trunk: Sequence[nn.Parameter],
        means: Sequence[torch.Tensor],
        everyone: Ranks,
        *,
        num_own: int,
        num_groups: int,
        every: int,
    ) -> None:
        self._trunk: list[torch.Tensor] = list(trunk)
        self._means, self._everyone = list(means), everyone
        self._num_own, self._num_groups, self._every = num_own, num_groups, every
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Take the trunk as it is now for what all groups start from: the same weights on all ranks."""
        self._start = [parameter.detach().clone() for parameter in self._trunk]
        self._has_moved: list[bool] = []

    def note(self, has_moved: bool) -> None:
        """Note after each step whether this group's tasks moved the trunk in it."""
        self._has_moved.append(has_moved)

    @torch.no_grad()
    def combine(self, decay: Callable[[list[bool]], None]) -> None:
        """Add up the moves of all groups.

        decay: called with the trunk as it was at the start, and for each step since whether any group moved it. All
        ranks must call this after the same step. Raises FourfoldError if a rank is gone.
        """
        # 1. One message. All ranks of a group have made the same moves, and each sends its share of them.
        moves = torch._foreach_sub(self._trunk, self._start)
        moved = torch.zeros(self._every, device=self._trunk[0].device)
        moved[: len(self._has_moved)] = torch.tensor(self._has_moved, dtype=moved.dtype)
        shares = [(move / self._num_own).flatten() for move in moves]
        shares += [(mean / (self._num_own * self._num_groups)).flatten() for mean in self._means]
        flat = torch.cat([*shares, moved])
        self._everyone.add_up(flat)
        *parts, moved = torch.split(flat, [*(share.numel() for share in shares), self._every])
        # 2. The trunk becomes the decayed start plus all moves; means are means already.
        totals = [part.view_as(one) for part, one in zip(parts, [*self._trunk, *self._means], strict=True)]
        num_trunk = len(self._trunk)
        torch._foreach_copy_(self._trunk, self._start)
        decay([count > 0 for count in moved.tolist()[: len(self._has_moved)]])
        torch._foreach_add_(self._trunk, totals[:num_trunk])
        if self._means:
            torch._foreach_copy_(self._means, totals[num_trunk:])
        self.restart()
