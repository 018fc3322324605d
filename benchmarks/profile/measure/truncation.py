"""A pipeline's samples/s as it grows: reading alone, with decoding, with one task after the other.

Each is the real pipeline cut off behind a stage, at several thread counts, in turns. What a stage costs the whole is
what is lost where it comes in: an answer that needs neither clocks nor a model.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness.turns import turns
from benchmarks.profile.measure.windows import Bench
from benchmarks.profile.profile_config import ProfileConfig, changed
from pipelines.build import Pipeline
from pipelines.decode.base import Decoded
from pipelines.decode.clip_planes import NUM_COLORS, chosen_frames
from pipelines.tasks.base import Geometry, Task, TaskBatch

__all__ = ["Truncated", "measure_truncated", "truncated"]

READ, DECODE = "read", "decode"
NUM_TURNS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated:
    """A pipeline that ends with a stage and has no consumer. values: samples/s of every turn."""

    num_threads: int
    last_stage: str
    values: tuple[float, ...]

    @property
    def samples_per_s(self) -> float:
        return statistics.median(self.values)


def measure_truncated(config: ProfileConfig, seconds: float) -> tuple[Truncated, ...]:
    """Measure all stages at all of `config.threads`, in turns. Takes about `seconds`, and a step more for each."""
    cells = {f"{n} {stage}": (n, stage) for n in config.threads for stage in (READ, DECODE, *config.pipeline.tasks)}
    values: dict[str, list[float]] = {name: [] for name in cells}
    with ExitStack() as stack:
        benches = {
            count: stack.enter_context(Bench(changed(config, {"pipeline.num_threads": count}), has_consumer=False))
            for count in config.threads
        }
        for _, name in turns(cells, NUM_TURNS):
            count, stage = cells[name]
            with truncated(benches[count].pipeline, stage):
                values[name].append(benches[count].turn(seconds / NUM_TURNS / len(cells)).samples_per_s)
    return tuple(
        Truncated(num_threads=count, last_stage=stage, values=tuple(values[name]))
        for name, (count, stage) in cells.items()
    )


@contextmanager
def truncated(pipeline: Pipeline, last_stage: str) -> Iterator[None]:
    """Cut off a paused pipeline behind a stage, for the time of the block.

    last_stage: "read", "decode" or a task; the tasks before it stay. Tasks that are left out still draw, and black
    pixels take the place of decoded ones."""
    tasks, sources = pipeline.maker.tasks, [source.source for source in pipeline.maker.sources.values()]
    names, whole, backends = list(tasks), dict(tasks), [source.backend for source in sources]
    kept = names[: names.index(last_stage) + 1] if last_stage in names else []
    # Left-out tasks must draw as before: geometry is part of reading, and its cost stays in all of the stages.
    try:
        tasks.update({name: _NoTask(task) for name, task in whole.items() if name not in kept})
        if last_stage == READ:
            for source in sources:
                source.backend = _BlackPixels(source.backend.name)
        yield
    finally:
        tasks.update(whole)
        for source, backend in zip(sources, backends, strict=True):
            source.backend = backend


class _NoTask(Task):
    """An empty batch in the place of a task's."""

    def __init__(self, task: Task) -> None:
        self.config, self.canvas, self._task = task.config, task.canvas, task
        self.source = task.source  # type: ignore[misc]

    @property
    def canvas_px(self) -> int:
        return self._task.canvas_px

    def draw(self, rng: Any) -> Geometry:
        return self._task.draw(rng)

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        # Nothing to make, hold or copy: the stages before it are all that remains.
        empty = torch.empty(0)
        return TaskBatch(task=self._task.name, inputs=empty, target={}, weight=empty, keys=tuple(keys))

    def spec(self, batch_size: int) -> Mapping[str, Any]:
        return {}


class _BlackPixels:
    """A backend that decodes nothing; its pixels are made once for each shape."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pixels: dict[tuple[int, ...], torch.Tensor] = {}

    def canvases(self, encoded: Any, boxes_B4: Any, flips_B: Any, canvas_px: int) -> Decoded:
        return self._black(len(encoded), canvas_px, canvas_px, 3)

    def canvases_of_sizes(
        self, encoded: Any, boxes_B4: Any, flips_B: Any, sizes_px: Sequence[int]
    ) -> tuple[Decoded, ...]:
        return tuple(self._black(len(encoded), size_px, size_px, 3) for size_px in sizes_px)

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
            # Made once, since filling them would cost what is to be left out.
            self._pixels[shape] = torch.zeros(shape, dtype=torch.uint8)
        return Decoded(pixels=self._pixels[shape], failures=[])
