"""Messages between two ranks: sums, rows, buckets of gradients, votes; each against what one rank would have."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.made.rank_processes import play
from training.parallel import Ranks, joined_ranks
from training.ranks.gradient_buckets import GradientBuckets
from training.ranks.shared_batch import all_rows, mean_over_ranks, shared_batch
from training.ranks.stop_vote import RankVotes

ROWS, NUM_STEPS = 4, 3


class Network(nn.Module):
    """Two heads on one trunk, and a weight that no head uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(5, 7))
        # In the memory order of the trainer's kernels.
        self.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads = nn.ModuleDict({"a": nn.Linear(7, 1), "b": nn.Linear(7, 2)})
        self.unused = nn.Parameter(torch.ones(3))

    def parameters_of(self, task: str) -> list[nn.Parameter]:
        return [*self.trunk.parameters(), self.unused, *self.heads[task].parameters()]


def all_images() -> torch.Tensor:
    return torch.randn(NUM_STEPS, 2 * ROWS, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def gradients(ranks: Ranks, bucket_bytes: int) -> dict[str, Any]:
    """Gradients by step and task, of a loss that also compares every row with the rows of all ranks."""
    network = Network()
    tasks = ("a", "b")
    buckets = GradientBuckets({task: network.parameters_of(task) for task in tasks}, ranks, bucket_bytes=bucket_bytes)
    found = {}
    for step, images in enumerate(all_images()):
        own = images[ranks.rank * ROWS :][:ROWS] if ranks.world_size > 1 else images
        for task in tasks:
            with shared_batch(ranks), buckets.averaging(task):
                answer = network.heads[task](network.trunk(own))
                (answer @ all_rows(answer).T).square().mean().backward()
            assert network.unused.grad is None
            for name, parameter in network.named_parameters():
                if parameter.grad is not None:
                    assert parameter.grad.stride() == parameter.stride()
                    found[f"{step} {task} {name}"] = parameter.grad.clone()
                parameter.grad = None
    return found


def votes_of(ranks: Ranks) -> list[list[bool]]:
    """Rank 1 asks to stop after step 2, and rank 0 to save after step 4."""
    votes, found = RankVotes(ranks, 2), []
    for step in range(1, 7):
        own = [step >= 2 and ranks.rank == 1, step == 4 and ranks.rank == 0]
        found.append(votes.read(own))
        votes.cast(own)
    return found


def two_ranks(rank: int, folder: Path) -> None:
    with joined_ranks("cpu") as (ranks, device):
        assert (ranks.rank, ranks.world_size, ranks.is_first) == (rank, 2, rank == 0)
        total = torch.tensor([1.0 + rank, 1.0])
        ranks.add_up(total)
        mean_alone = mean_over_ranks(torch.tensor(1.0 + rank))
        with shared_batch(ranks):
            mean = mean_over_ranks(torch.tensor(1.0 + rank))
        found = {
            "any": ranks.any([rank == 1, False], device),
            "sum": total.tolist(),
            "mean": [mean.item(), mean_alone.item()],
            "votes": votes_of(ranks),
            "many buckets": gradients(ranks, 64),
            "one bucket": gradients(ranks, 2**20),
        }
        torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    play(two_ranks, 2, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_sums_and_means_are_over_ranks_that_share(found: list[dict[str, Any]]) -> None:
    assert [one["any"] for one in found] == [[True, False]] * 2
    assert [one["sum"] for one in found] == [[3.0, 2.0]] * 2
    assert [one["mean"] for one in found] == [[1.5, 1.0], [1.5, 2.0]]


def test_votes_are_read_one_step_later_by_both(found: list[dict[str, Any]]) -> None:
    stop, save = zip(*found[0]["votes"], strict=True)
    assert stop == (False, False, True, True, True, True)
    assert save == (False, False, False, False, True, False)
    assert found[0]["votes"] == found[1]["votes"]


def test_votes_of_one_rank_count_at_once() -> None:
    votes = RankVotes(Ranks(), 2)
    assert votes.read([True, False]) == [True, False]
    votes.cast([False, False])
    assert votes.read([False, True]) == [False, True]


@pytest.mark.parametrize("layout", ["many buckets", "one bucket"])
def test_gradients_are_those_of_the_whole_batch(found: list[dict[str, Any]], layout: str) -> None:
    expected = gradients(Ranks(), 64)
    assert len(expected) == NUM_STEPS * 2 * 6
    for one in found:
        assert set(one[layout]) == set(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(one[layout][name], gradient, rtol=1e-5, atol=1e-6)
