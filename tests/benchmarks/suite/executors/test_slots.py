"""Slots with made-up GPUs: which stage would see which."""

import pytest

from benchmarks.suite.executors import slots
from benchmarks.suite.executors.slots import Slot, choose_jobs, slots_of, visible_gpus


def test_gpus_are_numbered_from_0_or_have_the_names_that_the_variable_gives() -> None:
    assert visible_gpus({}, count=3) == ("0", "1", "2")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2, 5"}, count=2) == ("2", "5")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b,MIG-c"}, count=1) == ("MIG-a",)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, count=0) == ()


def test_one_job_per_gpu_and_without_gpus_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_jobs(("0", "1", "2", "3")) == 4
    monkeypatch.setattr(slots, "num_cores", lambda: 8)

    class Memory:
        total = 13 * 2**30

    monkeypatch.setattr(slots.psutil, "virtual_memory", Memory)
    assert choose_jobs(()) == 3
    Memory.total = 2**30
    assert choose_jobs(()) == 1


def test_slots_share_cores_and_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "num_cores", lambda: 8)
    assert slots_of(2, ("0", "1")) == [Slot("0", 4), Slot("1", 4)]
    assert [slot.gpu for slot in slots_of(3, ("4", "7"))] == ["4", "7", "4"]
    assert slots_of(16, ()) == [Slot(None, 1)] * 16


def test_a_slot_sets_what_torch_reads() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "0,1"}
    Slot("1", 4).apply(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "4"}
    Slot(None, 2).apply(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "2"}
