"""Two processes against one with the doubled batch, and the choice of a device."""

import os
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from pipelines.base.errors import UsageError
from training.parallel import Ranks, average_gradients, choose_device, cpu_threads, joined_ranks, leave_group

NUM_STEPS = 3
ROWS = 4


def new_network() -> nn.Module:
    torch.manual_seed(0)
    # Layer norm, not batch norm: batch statistics are each rank's own.
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 1))


def all_rows() -> torch.Tensor:
    return torch.randn(NUM_STEPS, 2 * ROWS, 5, generator=torch.Generator().manual_seed(1))


def train(network: nn.Module, rows: torch.Tensor, world_size: int) -> torch.Tensor:
    optimizer = torch.optim.RMSprop(network.parameters(), lr=0.01)
    for batch in rows:
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        average_gradients(network.parameters(), world_size)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    with joined_ranks("cpu") as (ranks, device):
        assert (ranks.rank, ranks.world_size, ranks.is_first) == (rank, 2, rank == 0)
        weights = train(new_network(), all_rows()[:, rank * ROWS : (rank + 1) * ROWS], 2)
        votes = ranks.any([rank == 1, False], device)
        total = torch.tensor([1.0 + rank, 1.0])
        ranks.add_up(total)
        torch.save({"weights": weights, "votes": votes, "sum": total}, f"{folder}/rank{rank}.pt")
    leave_group()


def test_two_ranks_learn_what_one_learns_from_the_doubled_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(results[0]["weights"], results[1]["weights"])
    # Sums of 4 + 4 rows round differently from sums of 8.
    torch.testing.assert_close(results[0]["weights"], train(new_network(), all_rows(), 1), rtol=1e-4, atol=1e-5)
    assert [result["votes"] for result in results] == [[True, False], [True, False]]
    assert [result["sum"].tolist() for result in results] == [[3.0, 2.0], [3.0, 2.0]]


def test_one_process_needs_no_group() -> None:
    with joined_ranks("cpu") as (ranks, device):
        assert ranks == Ranks()
        assert device == torch.device("cpu")
        ranks.wait()
        assert ranks.any([True, False], device) == [True, False]
        values = torch.tensor([2.0])
        ranks.add_up(values)
        assert values.tolist() == [2.0]


def test_gradients_of_one_process_stay() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter, nn.Parameter(torch.ones(1))], 1)
    assert parameter.grad.tolist() == [1.0, 2.0]


def test_auto_is_the_cpu_without_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", 3) == torch.device("cpu")


def test_each_rank_gets_its_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_device("auto", 3) == torch.device("cuda:3")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="this machine has 0 CUDA devices"):
        choose_device("cuda")


def test_a_device_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="'gpu': need auto, cpu, cuda"):
        choose_device("gpu")


def test_cpu_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_one_core_is_left_to_the_pipeline(monkeypatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("training.parallel.thread_count", lambda wanted: 3)
    with cpu_threads(0):
        assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_number_of_threads_from_outside_is_kept(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    with cpu_threads(0):
        assert torch.get_num_threads() == before
