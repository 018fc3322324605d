"""What only a GPU can tell: how busy NVML saw it while the pipeline ran, and which kernels of a step took longest.

Nothing here is measured without one; the values are then None and (), shown as "not measured".
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["GpuWatch", "Kernel", "top_kernels", "watched"]

EVERY_S = 0.05
NUM_KERNELS = 10


@dataclass(slots=True)
class GpuWatch:
    """Samples of NVML, filled while `watched` runs: share of time in which any kernel ran, 0 to 1."""

    busy_ratios: list[float] = field(default_factory=list)
    note: str = "no GPU"

    @property
    def busy_ratio(self) -> float | None:
        return sum(self.busy_ratios) / len(self.busy_ratios) if self.busy_ratios else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel or operator by name, with its own milliseconds on the device."""

    name: str
    device_ms: float
    num_calls: int


@contextmanager
def watched(device: torch.device) -> Iterator[GpuWatch]:
    """Ask NVML for the GPU's utilisation every EVERY_S for the time of the block."""
    watch = GpuWatch()
    if device.type != "cuda":
        yield watch
        return
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
    except Exception as error:  # NVML is extra information: whatever is wrong with it must not cost the profile
        watch.note = f"NVML: {type(error).__name__}: {error}. pip install nvidia-ml-py"
        yield watch
        return
    watch.note = ""
    ended = threading.Event()
    thread = threading.Thread(target=_sample, args=(pynvml, handle, watch, ended), name="fourfold-nvml", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        pynvml.nvmlShutdown()


def _uuid(device: torch.device) -> str:
    """NVML counts all GPUs of the machine, torch only those of CUDA_VISIBLE_DEVICES; the UUID is the same for both."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _sample(nvml: Any, handle: Any, watch: GpuWatch, ended: threading.Event) -> None:
    while not ended.wait(EVERY_S):
        watch.busy_ratios.append(nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)


def top_kernels(work: Callable[[], object], device: torch.device) -> tuple[Kernel, ...]:
    """Do some work under torch's profiler; the kernels that took longest. () where the device is no GPU."""
    if device.type != "cuda":
        return ()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        work()
        torch.cuda.synchronize(device)
    return kernels_of(profiler.key_averages())


def kernels_of(events: Any) -> tuple[Kernel, ...]:
    """Those with time on the device, the longest first."""
    found = [
        Kernel(name=event.key, device_ms=event.self_device_time_total / 1e3, num_calls=event.count) for event in events
    ]
    ran = [kernel for kernel in found if kernel.device_ms > 0]
    return tuple(sorted(ran, key=lambda kernel: -kernel.device_ms)[:NUM_KERNELS])
