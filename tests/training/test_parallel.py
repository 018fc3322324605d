"""One process without a group, the choice of a device, and of a number of threads."""

import pytest
import torch

from pipelines.base.errors import UsageError
from training.parallel import Ranks, choose_device, cpu_threads, joined_ranks


def test_one_process_needs_no_group() -> None:
    with joined_ranks("cpu") as (ranks, device):
        assert ranks == Ranks()
        assert device == torch.device("cpu")
        ranks.wait()
        assert ranks.any([True, False], device) == [True, False]
        values = torch.tensor([2.0])
        ranks.add_up(values)
        assert values.tolist() == [2.0]


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
