"""Which backend is used and why, and what failed rows show."""

import os

import numpy as np
import pytest
import torch

from pipelines.base.errors import UsageError
from pipelines.base.thread_pool import ThreadPool
from pipelines.decode.base import fill_failed, thread_count
from pipelines.decode.choice import CPU_ADVANTAGE, choose_backend, open_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def no_dali():
    raise UsageError("DALI cannot be loaded")


def test_auto_on_the_cpu_is_opencv():
    choice = choose_backend("auto", CPU)
    assert choice.name == "opencv"
    assert choice.reason == f"device is cpu, where OpenCV {CPU_ADVANTAGE}"


def test_auto_on_a_gpu_is_dali_where_it_loads(monkeypatch):
    monkeypatch.setattr("pipelines.decode.dali.require_dali", lambda: None)
    assert choose_backend("auto", CUDA).name == "dali"


def test_auto_on_a_gpu_without_dali_is_opencv_and_says_why(monkeypatch):
    monkeypatch.setattr("pipelines.decode.dali.require_dali", no_dali)
    choice = choose_backend("auto", CUDA)
    assert (choice.name, choice.reason) == ("opencv", "DALI cannot be loaded")


def test_dali_asked_for_and_missing_is_an_error(monkeypatch):
    monkeypatch.setattr("pipelines.decode.dali.require_dali", no_dali)
    with pytest.raises(UsageError, match="DALI"):
        choose_backend("dali", CPU)


def test_opencv_asked_for_needs_no_dali(monkeypatch):
    monkeypatch.setattr("pipelines.decode.dali.require_dali", no_dali)
    choice = choose_backend("opencv", CUDA)
    backend = open_backend(choice, device=CPU, threads=ThreadPool(1))
    assert (choice.reason, backend.name) == ("asked for", "opencv")
    backend.close()


@pytest.mark.parametrize(
    ("failed", "expected"),
    [([], [0, 1, 2, 3]), ([1], [0, 2, 2, 3]), ([3], [0, 1, 2, 0]), ([0, 1, 3], [2, 2, 2, 2]), ([0, 1, 2, 3], [0] * 4)],
)
def test_failed_rows_show_the_next_good_row(failed, expected):
    for rows in (np.arange(4), torch.arange(4)):
        fill_failed(rows, failed)
        assert rows.tolist() == expected


def test_thread_count_is_what_was_asked_or_the_cores_allowed(monkeypatch):
    assert thread_count(3) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert thread_count(0) == 3
