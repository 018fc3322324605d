"""What only a GPU can tell is not measured without one; kernels are those with time on the device, longest first."""

from types import SimpleNamespace

import torch

from benchmarks.profile.measure.gpu import GpuWatch, kernels_of, top_kernels, watched

CPU = torch.device("cpu")


def test_without_a_gpu_nothing_is_measured_and_it_says_so() -> None:
    with watched(CPU) as watch:
        pass
    assert watch.busy_ratio is None
    assert watch.note == "no GPU"


def test_without_a_gpu_the_work_is_not_even_done() -> None:
    assert top_kernels(lambda: 1 / 0, CPU) == ()


def test_utilisation_is_the_mean() -> None:
    assert GpuWatch(busy_ratios=[0.5, 1.0]).busy_ratio == 0.75


def test_kernels() -> None:
    rows = [("copy", 500.0, 2), ("aten::mm", 0.0, 9), ("gemm", 2500.0, 3)]
    events = [SimpleNamespace(key=key, self_device_time_total=us, count=count) for key, us, count in rows]
    found = kernels_of(events)
    assert [(one.name, one.device_ms, one.num_calls) for one in found] == [("gemm", 2.5, 3), ("copy", 0.5, 2)]
    assert len(kernels_of(events * 20)) == 10
