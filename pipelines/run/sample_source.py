"""From a batch of the plan to pixels: read bytes, draw all geometry, decode. One `SampleSource` per kind of sample.

Every random number is drawn from (seed, epoch, key, task) before any pixel exists. So order, threads and backend cannot
change it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.batch_rng import BatchRng
from pipelines.decode.base import Backend, Decoded, fill_failed
from pipelines.decode.jpeg_reduction import jpeg_reduction
from pipelines.read.reader import SampleReader
from pipelines.read.sample_plan import PickedSamples, SamplePlan
from pipelines.run.stage_stats import StageClock
from pipelines.shards.format.manifest import SampleTable
from pipelines.tasks.base import CanvasSpec, Geometry, Task
from pipelines.tasks.target_cache import CachedTargets, cached_targets

__all__ = ["Drawn", "Fault", "TaskSamples", "SampleSource", "canvas_boxes"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A sample that could not be used, and why."""

    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}: {self.key}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSamples:
    """Input of one task for one batch of B samples.

    pixels: uint8 RGB canvases (B, S, S, 3), or planes of clips (B, 3 + N, H, W; see clip_planes.py). geometry: drawn
    numbers by name, leading axis B. failed: rows whose sample failed; their pixels and key are another row's.
    cached: targets found in the task's cache; None for a task without one.
    """

    pixels: torch.Tensor
    geometry: Geometry
    keys: tuple[str, ...]
    failed: tuple[int, ...]
    cached: CachedTargets | None = None

    def of_rows(self, rows: Int64s) -> "TaskSamples":
        """Return some of the rows, int64 (N,) ascending; all of them are the same object."""
        if len(rows) == len(self.keys):
            return self
        chosen = rows.tolist()
        place = {row: index for index, row in enumerate(chosen)}
        return TaskSamples(
            pixels=self.pixels[torch.from_numpy(rows).to(self.pixels.device)],
            geometry={name: values[rows] for name, values in self.geometry.items()},
            keys=tuple(self.keys[row] for row in chosen),
            failed=tuple(place[row] for row in self.failed if row in place),
            cached=self.cached and self.cached.of_rows(chosen),
        )


def canvas_boxes(
    uniform_B4: Floats, width_B: Int64s, height_B: Int64s, scale: tuple[float, float], canvas_px: int
) -> npt.NDArray[np.int32]:
    """Return random square boxes x0, y0, x1, y1 in pixels, ends excluded, inside images: int32 (B, 4).

    A box serves canvases of all sizes.

    `uniform_B4`: numbers in [0, 1) for side, x, y and flip (not used here). `width_B`, `height_B`: in pixels. `scale`:
    bounds of the side as a share of the short side.
    """
    # In large images boxes start and end at multiples of the factor by which the JPEG decoder may shrink them. Only
    # such boxes cover whole pixels of the shrunk image; any other crop would be off by a part of a pixel.
    low, high = scale
    short_B = np.minimum(width_B, height_B)
    side_B = np.clip(np.rint(short_B * (low + (high - low) * uniform_B4[:, 0])), 1, short_B)
    step_B = np.array([jpeg_reduction(side, canvas_px) for side in side_B.tolist()])
    side_B -= side_B % step_B
    x0_B = np.floor(uniform_B4[:, 1] * ((width_B - side_B) // step_B + 1)) * step_B
    y0_B = np.floor(uniform_B4[:, 2] * ((height_B - side_B) // step_B + 1)) * step_B
    return np.stack([x0_B, y0_B, x0_B + side_B, y0_B + side_B], axis=1).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Geometry of one decode of a batch, drawn before any pixel exists; every array has leading axis B.

    common: what all tasks share, by name. own: by task, then by name. cached: by task, for tasks with a target cache.
    """

    common: Geometry
    own: Mapping[str, Geometry]
    cached: Mapping[str, CachedTargets]

    def geometry_of(self, name: str) -> Geometry:
        """Return all drawn numbers of one task."""
        return self.own[name] | self.common


class SampleSource:
    """Reader and decoder of one table's batches, for all tasks that use this kind of sample.

    `load` runs the stages `read`, `draw` and `decode` and counts them; a profiler runs them one by one.
    """

    def __init__(
        self,
        table: SampleTable,
        plan: SamplePlan,
        backend: Backend,
        tasks: Mapping[str, Task],
        *,
        canvas: CanvasSpec,
        canvas_scale: tuple[float, float],
        flip_probability: float,
        share_decode: bool,
        device: torch.device,
        clocks: tuple[StageClock, StageClock],
    ) -> None:
        self.table, self.plan, self.backend = table, plan, backend
        self.reader = SampleReader(table)
        self._tasks = tasks
        self._canvas, self._canvas_scale, self._flip_probability = canvas, canvas_scale, flip_probability
        self._share_decode, self._device = share_decode, device
        self._read_clock, self._decode_clock = clocks

    def load(self, batch_index: int, names: Sequence[str]) -> tuple[dict[str, TaskSamples], list[Fault]]:
        """Return the input of each of the named tasks for one batch, and the samples that failed, in the order of rows.

        Raises DataError if a shard cannot be read.
        """
        # 1. Read: bytes are views into memory-mapped tars, so nothing is copied here.
        with self._reading():
            picks = self.plan.picks(batch_index)
            encoded = self.read(picks)
        self._read_clock.add(num_items=len(encoded))
        # 2. Decode once for all tasks, or once a task if `share_decode` is off: then each task gets a crop of its own.
        prepared: dict[str, TaskSamples] = {}
        reasons: dict[int, str] = {}
        for group in [list(names)] if self._share_decode else [[name] for name in names]:
            made, failures = self._load_group(picks, encoded, group)
            prepared |= made
            reasons |= failures
        # 3. A sample that fails for several tasks is one failure.
        self._decode_clock.add(num_failures=len(reasons))
        return prepared, [self._fault(int(picks.rows[index]), reason) for index, reason in sorted(reasons.items())]

    def keys(self, picks: PickedSamples) -> tuple[str, ...]:
        """Return the keys of a batch's samples, in order."""
        return tuple(self.table.keys[row] for row in picks.rows.tolist())

    def read(self, picks: PickedSamples) -> list[memoryview]:
        """Return the encoded image or clip of each sample, as views into mapped tars. Raises DataError."""
        return [self.reader.read(row) for row in picks.rows.tolist()]

    def draw(self, picks: PickedSamples, names: Sequence[str]) -> Drawn:
        """Draw the geometry of the named tasks, which share one decode, and look up their cached targets."""
        # Without `share_decode` there is one task here, and its name makes its crops differ from other tasks'.
        keys = self.keys(picks)
        common = self._common_geometry(picks, keys, "canvas" if self._share_decode else f"canvas {names[0]}")
        own = {name: self._task_geometry(picks, keys, name) for name in names}
        return Drawn(common=common, own=own, cached=self._cached(picks, common, names))

    def decode(self, encoded: Sequence[memoryview], drawn: Drawn) -> dict[int, Decoded]:
        """Return canvases or planes of clips on the pipeline's device, by `Task.canvas_px` of the drawn tasks.

        The copy to the device may still be running. Failures are the same in all.
        """
        is_cached_B = _is_cached_for_all(drawn.cached, list(drawn.own), len(encoded))
        sizes_px = sorted({self._tasks[name].canvas_px for name in drawn.own})
        return {
            size_px: replace(decoded, pixels=decoded.pixels.to(self._device, non_blocking=True))
            for size_px, decoded in self._decode(encoded, drawn.common, sizes_px, is_cached_B).items()
        }

    def _load_group(
        self, picks: PickedSamples, encoded: Sequence[memoryview], group: Sequence[str]
    ) -> tuple[dict[str, TaskSamples], dict[int, str]]:
        """Decode a batch once, for all tasks of the group. Returns their inputs, and reasons of failures by row."""
        # 1. Draw all random numbers before there are pixels: a backend cannot change an augmentation then. Cached
        # targets are looked up before decoding, because a clip with a known target needs only its first frame.
        with self._reading():
            keys, drawn = self.keys(picks), self.draw(picks, group)
        # 2. Decode, and start the copy to the device.
        start_s = time.perf_counter()
        decoded = self.decode(encoded, drawn)
        first = next(iter(decoded.values()))
        self._count_decoding(time.perf_counter() - start_s, first.waited_s)
        self._decode_clock.add(num_items=len(keys))
        # 3. Say of every row which sample it shows: the backend has put a good one into failed rows.
        failed = tuple(index for index, _ in first.failures)
        rows = _shown_rows(len(keys), failed)
        shown = tuple(keys[row] for row in rows)
        prepared = {
            name: TaskSamples(
                pixels=decoded[self._tasks[name].canvas_px].pixels,
                geometry=drawn.geometry_of(name),
                keys=shown,
                failed=failed,
                cached=drawn.cached[name].with_rows_of(rows, failed) if name in drawn.cached else None,
            )
            for name in group
        }
        return prepared, dict(first.failures)

    def _cached(self, picks: PickedSamples, common: Geometry, group: Sequence[str]) -> dict[str, CachedTargets]:
        """Return the cached targets of the batch by task, for the tasks that have a cache."""
        memories = {name: self._tasks[name].targets for name in group}
        # Mirrored or not is part of the address, because a mirrored clip has a mirrored target.
        addresses = list(zip(picks.rows.tolist(), common["flip"].tolist(), strict=True))
        return {name: cached_targets(memory, addresses) for name, memory in memories.items() if memory is not None}

    def _common_geometry(self, picks: PickedSamples, keys: tuple[str, ...], stream: str) -> Geometry:
        """Draw what all tasks share: "label" int64 (B,), "flip" bool (B,) and, for images, "box" int32 (B, 4)."""
        seed, epochs = self.plan.seed, picks.epochs.tolist()
        # Four numbers for clips, too, which need one: the flip keeps its place in the stream for every kind.
        uniform_B4 = BatchRng(seed, epochs, keys, stream).random(4)
        geometry: Geometry = {
            "label": self.table.label[picks.rows],
            "flip": uniform_B4[:, 3] < self._flip_probability,
        }
        if self.table.kind == "image":
            width_B, height_B = self.table.width[picks.rows], self.table.height[picks.rows]
            geometry["box"] = canvas_boxes(uniform_B4, width_B, height_B, self._canvas_scale, self._canvas.canvas_px)
        return geometry

    def _task_geometry(self, picks: PickedSamples, keys: tuple[str, ...], name: str) -> Geometry:
        return self._tasks[name].draw(BatchRng(self.plan.seed, picks.epochs.tolist(), keys, name))

    def _decode(
        self,
        encoded: Sequence[memoryview],
        common: Geometry,
        sizes_px: Sequence[int],
        is_cached_B: npt.NDArray[np.bool_],
    ) -> dict[int, Decoded]:
        if self.table.kind == "image":
            canvases = self.backend.canvases_of_sizes(encoded, common["box"], common["flip"], sizes_px)
            return dict(zip(sizes_px, canvases, strict=True))
        size = self._canvas
        frames = size.num_frames, size.clip_height_px, size.clip_width_px
        planes = self.backend.clip_planes(encoded, common["flip"], *frames, first_only_B=is_cached_B)
        return dict.fromkeys(sizes_px, planes)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Count the seconds inside as reading."""
        # One thread reads and decodes in turn, so each of the two stages waits while the other works.
        start_s = time.perf_counter()
        yield
        seconds = time.perf_counter() - start_s
        self._read_clock.add(busy_s=seconds)
        self._decode_clock.add(blocked_on_input_s=seconds)

    def _count_decoding(self, seconds: float, waited_s: float) -> None:
        """Count `seconds` of decoding, of which `waited_s` passed before a thread was free."""
        # Decoding and tasks share the threads. If none is free, the tasks, which come after, are what holds it up.
        self._decode_clock.add(busy_s=seconds - waited_s, blocked_on_output_s=waited_s)
        self._read_clock.add(blocked_on_output_s=seconds)

    def _fault(self, row: int, reason: str) -> Fault:
        shard = self.table.shards[int(self.table.shard_index[row])].name
        return Fault(shard=shard, key=self.table.keys[row], reason=reason)


def _is_cached_for_all(
    cached: Mapping[str, CachedTargets], group: Sequence[str], num_samples: int
) -> npt.NDArray[np.bool_]:
    """Return which samples have a cached target for every task of the group: bool (B,)."""
    # A task without a cache needs all frames of every clip.
    if len(cached) < len(group):
        return np.zeros(num_samples, np.bool_)
    is_cached = zip(*([target is not None for target in one.target] for one in cached.values()), strict=True)
    return np.array([all(sample) for sample in is_cached], np.bool_)


def _shown_rows(num_samples: int, failed: tuple[int, ...]) -> list[int]:
    """Return the row whose pixels each row shows: its own, or for a failed one the next good row."""
    # The row gets that sample's key, too. With its own key, exemplar would take a copy of an image for another image,
    # and so for a negative.
    shown = np.arange(num_samples)
    if len(failed) < num_samples:
        fill_failed(shown, failed)
    return shown.tolist()
