"""Slots of one machine: how many stages run at a time, and which GPU and how many CPU cores each has.

With GPUs: one stage per GPU. Without: one per core, as far as each has 4 GiB of memory.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.base.machine import num_cores

__all__ = ["Slot", "choose_jobs", "slots_of", "visible_gpus"]

JOB_BYTES = 4 * 2**30
DRIVERS = ("/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")
"""Of NVIDIA's driver, of Linux below Windows, and of AMD's: without one of them torch has no GPU to use."""
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Slot:
    """Place for one stage. `gpu`: value for CUDA_VISIBLE_DEVICES; None leaves that variable as it is."""

    gpu: str | None
    num_threads: int

    def apply(self, environment: dict[str, str] | None = None) -> None:
        """Set the variables that this slot needs, before CUDA starts in this process."""
        target = os.environ if environment is None else environment
        target["OMP_NUM_THREADS"] = str(self.num_threads)  # read by training and by probes
        if self.gpu is not None:
            target[GPUS_VARIABLE] = self.gpu


def visible_gpus(environment: Mapping[str, str] | None = None, count: int | None = None) -> tuple[str, ...]:
    """Return a CUDA_VISIBLE_DEVICES value for every GPU of this process. `count`: number of GPUs, for tests."""
    num_gpus = _count_gpus() if count is None else count
    given = (os.environ if environment is None else environment).get(GPUS_VARIABLE)
    # Names that the variable already has: number 0 of this process may be GPU 3, or a MIG slice.
    names = [str(number) for number in range(num_gpus)] if given is None else given.split(",")
    return tuple(name.strip() for name in names[:num_gpus])


def choose_jobs(gpus: Sequence[str]) -> int:
    """Return how many stages to run at a time: one per GPU; on a CPU one per core, if each has 4 GiB of memory."""
    if gpus:
        return len(gpus)
    return max(1, min(num_cores(), psutil.virtual_memory().total // JOB_BYTES))


def slots_of(num_jobs: int, gpus: Sequence[str]) -> list[Slot]:
    """Return `num_jobs` slots, which share the cores evenly and take the GPUs in turn."""
    num_threads = max(1, num_cores() // num_jobs)
    return [Slot(gpus[job % len(gpus)] if gpus else None, num_threads) for job in range(num_jobs)]


def _count_gpus() -> int:
    # `bench plan` should answer without torch, which takes seconds to import, on machines that have no GPU.
    if "torch" not in sys.modules and not any(Path(place).exists() for place in DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()
