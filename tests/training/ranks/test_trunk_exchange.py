"""Trunk updates of two groups, added up: by hand."""

import torch
from torch import nn

from training.parallel import Ranks
from training.ranks.trunk_exchange import TrunkExchange


class BesideAnother(Ranks):
    """First of two ranks. The other one's message is `other`."""

    def add_up(self, values: torch.Tensor) -> None:
        values += torch.tensor(self.other)  # type: ignore[attr-defined]


def test_moves_of_two_steps_are_added_to_the_decayed_start() -> None:
    trunk, mean = nn.Parameter(torch.tensor([10.0, 20.0])), torch.tensor([4.0])
    everyone = BesideAnother(world_size=2)
    # The other group moved by 1 and -2, has a running mean of 8, and moved in the second step alone.
    object.__setattr__(everyone, "other", [1.0, -2.0, 4.0, 0.0, 1.0, 0.0])
    exchange = TrunkExchange([trunk], [mean], everyone, num_own=1, num_groups=2, every=3)
    seen = []

    def decay(has_moved: list[bool]) -> None:
        seen.append(has_moved)
        trunk.mul_(0.5)

    with torch.no_grad():
        trunk += torch.tensor([3.0, 0.0])
        exchange.note(False)
        trunk += torch.tensor([0.0, 5.0])
        exchange.note(False)
    exchange.combine(decay)
    # Two steps since the last exchange, though the configuration has three: the end of a run.
    assert seen == [[False, True]]
    assert trunk.tolist() == [10 / 2 + 3 + 1, 20 / 2 + 5 - 2]
    assert mean.tolist() == [6.0]


def test_ranks_of_a_group_send_their_share() -> None:
    trunk = nn.Parameter(torch.tensor([10.0]))
    everyone = BesideAnother(world_size=2)
    # Both ranks of one group moved by 2.
    object.__setattr__(everyone, "other", [1.0, 1.0])
    exchange = TrunkExchange([trunk], [], everyone, num_own=2, num_groups=1, every=1)
    with torch.no_grad():
        trunk += 2
    exchange.note(True)
    exchange.combine(lambda has_moved: None)
    assert trunk.tolist() == [12.0]
