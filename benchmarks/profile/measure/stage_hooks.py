"""Changes to a pipeline that the profiler has built for itself: decoding and tasks left out, targets not cached."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from pipelines.build import Pipeline
from pipelines.decode.base import Decoded
from pipelines.decode.clip_planes import NUM_COLORS, chosen_frames
from pipelines.run.sample_source import SampleSource
from pipelines.shards.format.manifest import Kind
from pipelines.tasks.base import Geometry, Task, TaskBatch

__all__ = ["forget_targets", "sources_of", "touch", "truncated"]

PAGE_BYTES = 4096
READ = "read"


def sources_of(pipeline: Pipeline) -> Mapping[Kind, SampleSource]:
    """What reads, draws and decodes, by kind of sample."""
    return {kind: source.source for kind, source in pipeline.maker.sources.items()}


def touch(encoded: memoryview) -> None:
    """Have all pages of a file in memory: a mapped file is read only where it is looked at."""
    encoded[::PAGE_BYTES].tobytes()


def forget_targets(pipeline: Pipeline) -> None:
    """Have every target made anew, as in a first epoch: else a window over few clips would be of the second one."""
    for task in pipeline.tasks.values():
        task.targets = None


@contextmanager
def truncated(pipeline: Pipeline, last_stage: str) -> Iterator[None]:
    """A pipeline that stands still, cut off behind a stage for the time of the block: "read", "decode" or a task, of
    which all before it stay. Tasks that are left out still draw, and black pixels take the place of decoded ones."""
    maker_tasks = pipeline.maker.tasks
    tasks = list(maker_tasks)
    kept = tasks[: tasks.index(last_stage) + 1] if last_stage in tasks else []
    whole, sources = dict(maker_tasks), sources_of(pipeline).values()
    backends = [source.backend for source in sources]
    try:
        maker_tasks.update({name: _Nothing(task) for name, task in whole.items() if name not in kept})
        if last_stage == READ:
            for source in sources:
                source.backend = _Black(source.backend.name)
        yield
    finally:
        maker_tasks.update(whole)
        for source, backend in zip(sources, backends, strict=True):
            source.backend = backend


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
