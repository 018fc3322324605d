"""Where the profiler reaches into a pipeline: bytes from memory, tasks left out, the sources of its samples.

Each tap changes one pipeline that the profiler has built for itself, before its first step.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from pipelines.backends import Backend
from pipelines.build import Pipeline
from pipelines.reader import SampleReader
from pipelines.samples import SampleSource
from pipelines.shards.manifest import Kind
from pipelines.tasks.base import Geometry, Task, TaskBatch

__all__ = ["MemoryReader", "backend_of", "leave_out", "read_from_memory", "sources_of", "touch"]

PAGE_BYTES = 4096


def sources_of(pipeline: Pipeline) -> Mapping[Kind, SampleSource]:
    """What reads, draws and decodes, by kind of sample."""
    return {kind: source._source for kind, source in pipeline._sources.items()}


def backend_of(pipeline: Pipeline) -> Backend:
    return pipeline._backend


def touch(encoded: memoryview) -> None:
    """Have all pages of a file in memory: a mapped file is read only where it is looked at."""
    encoded[::PAGE_BYTES].tobytes()


class MemoryReader:
    """Gives the bytes of a reader from memory, those that were loaded before; others as the reader does."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader
        self._loaded: dict[int, memoryview] = {}

    def load(self, rows: Iterable[int], until_s: float) -> int:
        """Read rows into memory until a time of `perf_counter`; how many are there in all."""
        for row in rows:
            if time.perf_counter() >= until_s:
                break
            if row not in self._loaded:
                self._loaded[row] = memoryview(bytes(self._reader.read(row)))
        return len(self._loaded)

    def read(self, row: int) -> memoryview:
        found = self._loaded.get(row)
        return self._reader.read(row) if found is None else found


def read_from_memory(pipeline: Pipeline, num_steps: int, seconds: float) -> bool:
    """Load the samples of the first steps, and read them from memory from now on; whether time sufficed for all."""
    is_whole = True
    until_s = time.perf_counter() + seconds
    for source in sources_of(pipeline).values():
        rows = dict.fromkeys(row for batch in range(num_steps) for row in source.plan.picks(batch).rows.tolist())
        reader = MemoryReader(source._reader)
        is_whole &= reader.load(rows, until_s) == len(rows)
        source._reader = reader  # type: ignore[assignment]
    return is_whole


def leave_out(pipeline: Pipeline, names: Sequence[str]) -> None:
    """Tasks that draw but make nothing: what is left is read and decoded, and costs what that costs."""
    for name in names:
        pipeline.tasks[name] = _Nothing(pipeline.tasks[name])


class _Nothing(Task):
    """In the place of a task, an empty batch."""

    def __init__(self, task: Task) -> None:
        self.config, self.canvas, self._task = task.config, task.canvas, task
        self.source = task.source  # type: ignore[misc]

    def draw(self, rng: Any) -> Geometry:
        return self._task.draw(rng)

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        empty = torch.empty(0)
        return TaskBatch(task=self._task.name, inputs=empty, target={}, weight=empty, keys=tuple(keys))

    def spec(self, batch_size: int) -> Mapping[str, Any]:
        return {}
