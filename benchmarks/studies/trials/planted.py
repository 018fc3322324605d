"""Planted bottlenecks: settings, data, and slow devices in the place of fast ones for the time of a block.

With them it can be counted how often the profiler names the right stage.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.profile.measure.consumers import sleep_until
from pipelines.read.reader import SampleReader
from pipelines.targets.motion.dense_flow import FarnebackFlow
from pipelines.tasks.base import TaskBatch

__all__ = ["PLANTS", "Plant", "blocking_transfer", "slow_farneback", "stalling_reads", "throttled_reads"]

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A planted bottleneck. stage: what the verdict must name. settings: overrides of the profile. slow: a slow device,
    given the folder of shards. needs: the pipelines it is planted in, by name in profile_trials.BASES. is_oversized: on
    images that are larger than needed."""

    name: str
    stage: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    slow: Callable[[Path], AbstractContextManager[None]] = field(default=lambda folder: nullcontext())
    needs: str = "images"
    is_oversized: bool = False


def throttled_reads(folder: Path, bytes_per_s: float) -> AbstractContextManager[None]:
    """Slow down the reading of a folder's shards to that many bytes per second."""
    read = SampleReader.read

    def slow(self: SampleReader, row: int) -> memoryview:
        start_s = time.perf_counter()
        view = read(self, row)
        if is_inside(self, folder):
            # Counted from the start of the read, so that the real disk's time is part of it.
            sleep_until(start_s + len(view) / bytes_per_s)
        return view

    return in_place_of(SampleReader, "read", slow)


def stalling_reads(folder: Path, every: int, seconds: float) -> AbstractContextManager[None]:
    """Delay one of every `every` samples of a folder by that time, as a connection that is opened anew does."""
    read = SampleReader.read
    counts: WeakKeyDictionary[SampleReader, int] = WeakKeyDictionary()

    def slow(self: SampleReader, row: int) -> memoryview:
        if is_inside(self, folder):
            # Per reader: a count over all lanes and pipelines would shift the stalls from run to run.
            counts[self] = counts.get(self, 0) + 1
            if counts[self] % every == 0:
                sleep_until(time.perf_counter() + seconds)
        return read(self, row)

    return in_place_of(SampleReader, "read", slow)


def blocking_transfer(bytes_per_s: float) -> AbstractContextManager[None]:
    """Send batches to the device at that many bytes per second; the sender waits."""
    to = TaskBatch.to

    def slow(self: TaskBatch, device: torch.device | str) -> TaskBatch:
        sleep_until(time.perf_counter() + num_bytes(self) / bytes_per_s)
        return to(self, device)

    return in_place_of(TaskBatch, "to", slow)


def slow_farneback(times: int) -> AbstractContextManager[None]:
    """Compute Farnebäck's flow so many times, and keep the last. RAFT is as slow, but would take minutes of a trial."""
    pair_flow = FarnebackFlow.pair_flow

    def slow(self: FarnebackFlow, first_HW: Bytes, later_HW: Bytes) -> Floats:
        return [pair_flow(self, first_HW, later_HW) for _ in range(times)][-1]

    return in_place_of(FarnebackFlow, "pair_flow", slow)


def num_bytes(batch: TaskBatch) -> int:
    return sum(tensor.nbytes for tensor in (batch.inputs, batch.weight, *batch.target.values()))


def is_inside(reader: SampleReader, folder: Path) -> bool:
    return any(path.is_relative_to(folder) for path in reader.paths[:1])


@contextmanager
def in_place_of(owner: type, name: str, function: Callable[..., object]) -> Iterator[None]:
    """Replace a method for the time of the block."""
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)


PLANTS: tuple[Plant, ...] = (
    Plant(name="nothing", stage="cores"),
    Plant(name="throttled reads", stage="read", slow=partial(throttled_reads, bytes_per_s=20e6)),
    Plant(name="oversized images", stage="decode", is_oversized=True),
    Plant(name="a decode per task", stage="decode", settings={"pipeline.share_decode": False}, needs="several"),
    Plant(
        name="slow flow engine",
        stage="motion_segmentation",
        settings={"pipeline.tasks.motion_segmentation.engine": "farneback"},
        slow=lambda folder: slow_farneback(6),
        needs="clips",
    ),
    Plant(name="one thread", stage="threads", settings={"pipeline.num_threads": 1}, needs="decoding"),
    Plant(name="slow step", stage="step", settings={"device_samples_per_s": 120.0}),
    Plant(
        name="small prefetch",
        stage="prefetch",
        settings={"pipeline.prefetch_batches": 1, "device_samples_per_s": 350.0},
        slow=partial(stalling_reads, every=256, seconds=0.3),
    ),
    Plant(name="blocking transfer", stage="transfer", slow=lambda folder: blocking_transfer(200e6)),
)
