"""Synced norms in float64: the weights after 20 steps on 2 and 4 ranks are those of one. In float32, rounding differs.

Weights there that differ by 1e-7 change relative position's gradient by 2e-6, but in one batch of 30 by 3e-3, as where
a number crosses the 0 of a ReLU: its head normalises single numbers of few rows.
"""

from pathlib import Path

import pytest
import torch
from torch import distributed

from tests.made.rank_processes import play
from tests.training.ranks.test_equal_results import trained
from training.parallel import Ranks
from training.updates.step import Way

pytestmark = pytest.mark.slow

ROWS = 16
"""Of 4 rows, every step multiplies a difference by ten or more."""
TOLERANCE = 1e-9
WORLD_SIZES = (1, 2, 4)
WAYS: tuple[Way, ...] = ("per_task", "summed")


def all_runs(rank: int, folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    # Losses and norms compute in float32 at least, of bf16 inputs: here in float64.
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    groups = {world_size: distributed.new_group(list(range(world_size))) for world_size in WORLD_SIZES}
    for world_size in WORLD_SIZES:
        if rank >= world_size:
            continue
        ranks = Ranks(rank=rank, world_size=world_size, group=groups[world_size])  # type: ignore[arg-type]
        for way in WAYS:
            weights = trained(ranks, norm="synced", way=way, rows=ROWS)["weights"]
            if rank == 0:
                torch.save(weights, folder / f"{way}-{world_size}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    play(all_runs, max(WORLD_SIZES), folder)
    return folder


@pytest.mark.parametrize("world_size", WORLD_SIZES[1:])
@pytest.mark.parametrize("way", WAYS)
def test_the_weights_are_those_of_one_rank(folder: Path, way: Way, world_size: int) -> None:
    alone, together = (torch.load(folder / f"{way}-{size}.pt", weights_only=True) for size in (1, world_size))
    for key, value in alone.items():
        assert value.dtype in (torch.float64, torch.int64)
        torch.testing.assert_close(together[key], value, rtol=0, atol=TOLERANCE)
