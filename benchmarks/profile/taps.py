"""Where the profiler reaches into a pipeline: decoding and tasks left out, the sources of its samples.

Each tap changes one pipeline that the profiler has built for itself, before its first step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pipelines.backends import Backend, Decoded
from pipelines.build import Pipeline
from pipelines.clip_planes import NUM_COLORS, chosen_frames
from pipelines.samples import SampleSource
from pipelines.shards.manifest import Kind
from pipelines.tasks.base import Geometry, Task, TaskBatch

__all__ = ["backend_of", "forget_targets", "leave_out", "leave_out_decoding", "sources_of", "touch"]

PAGE_BYTES = 4096


def sources_of(pipeline: Pipeline) -> Mapping[Kind, SampleSource]:
    """What reads, draws and decodes, by kind of sample."""
    return {kind: source._source for kind, source in pipeline._sources.items()}


def backend_of(pipeline: Pipeline) -> Backend:
    return pipeline._backend


def touch(encoded: memoryview) -> None:
    """Have all pages of a file in memory: a mapped file is read only where it is looked at."""
    encoded[::PAGE_BYTES].tobytes()


def forget_targets(pipeline: Pipeline) -> None:
    """Have every target made anew, as in a first epoch: else a window over few clips would be of the second one."""
    for task in pipeline.tasks.values():
        task.targets = None


def leave_out_decoding(pipeline: Pipeline) -> None:
    """Black pixels in place of decoded ones: what is left is read and drawn."""
    for source in sources_of(pipeline).values():
        source._backend = _Black(source._backend.name)


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


class _Black:
    """In the place of a backend."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pixels: dict[tuple[int, ...], torch.Tensor] = {}

    def canvases(self, encoded: Any, boxes_B4: Any, flips_B: Any, canvas_px: int) -> Decoded:
        return self._black(len(encoded), canvas_px, canvas_px, 3)

    def clips(self, encoded: Any, flips_B: Any, num_frames: int, height_px: int, width_px: int) -> Decoded:
        return self._black(len(encoded), num_frames, height_px, width_px, 3)

    def clip_planes(
        self, encoded: Any, flips_B: Any, num_frames: int, height_px: int, width_px: int, first_only_B: Any = None
    ) -> Decoded:
        return self._black(len(encoded), NUM_COLORS + len(chosen_frames(num_frames)), height_px, width_px)

    def close(self) -> None:
        pass

    def _black(self, *shape: int) -> Decoded:
        if shape not in self._pixels:
            self._pixels[shape] = torch.zeros(shape, dtype=torch.uint8)
        return Decoded(pixels=self._pixels[shape], failures=[])
