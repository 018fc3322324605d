"""From a batch of the plan to pixels: read bytes, draw all geometry, decode. One `SampleSource` per kind of sample.

Every random number is drawn from (seed, epoch, key, task) before any pixel exists, so neither order nor threads nor
backend can change it.
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
from pipelines.decode.reduction import reduction
from pipelines.read.reader import SampleReader
from pipelines.read.sample_plan import Picks, SamplePlan
from pipelines.run.stage_stats import StageClock
from pipelines.shards.format.manifest import SampleTable
from pipelines.tasks.base import CanvasSpec, Geometry, Task
from pipelines.tasks.target_cache import CachedTargets, cached_targets

__all__ = ["Drawn", "Fault", "Prepared", "SampleSource", "canvas_boxes"]

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
class Prepared:
    """What one task needs to make its batch. `failed`: rows whose pixels (and key) are another sample's. `known`: for
    tasks that remember targets."""

    pixels: torch.Tensor
    geometry: Geometry
    keys: tuple[str, ...]
    failed: tuple[int, ...]
    known: CachedTargets | None = None


def canvas_boxes(
    uniform_B4: Floats, width_B: Int64s, height_B: Int64s, scale: tuple[float, float], canvas_px: int
) -> npt.NDArray[np.int32]:
    """Square boxes x0, y0, x1, y1, int32 (B, 4), inside images of the given sizes.

    `uniform_B4`: numbers in [0, 1) for side, x, y (and flip, not used here). `scale`: bounds of the side as a share
    of the short side. Of images that are much larger than the canvas, boxes start and end at multiples of the factor
    by which a decoder may reduce them.
    """
    low, high = scale
    short_B = np.minimum(width_B, height_B)
    side_B = np.clip(np.rint(short_B * (low + (high - low) * uniform_B4[:, 0])), 1, short_B)
    step_B = np.array([reduction(side, canvas_px) for side in side_B.tolist()])
    side_B -= side_B % step_B
    x0_B = np.floor(uniform_B4[:, 1] * ((width_B - side_B) // step_B + 1)) * step_B
    y0_B = np.floor(uniform_B4[:, 2] * ((height_B - side_B) // step_B + 1)) * step_B
    return np.stack([x0_B, y0_B, x0_B + side_B, y0_B + side_B], axis=1).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Geometry of one decode of a batch, drawn before any pixel exists. common: what all tasks share. own: by task.
    known: targets computed earlier, by task, for the tasks that remember them."""

    common: Geometry
    own: Mapping[str, Geometry]
    known: Mapping[str, CachedTargets]

    def geometry_of(self, name: str) -> Geometry:
        return self.own[name] | self.common


class SampleSource:
    """Pixels and geometry of batch after batch of one table, for the tasks that use this kind of sample.

    `load` runs the stages `read`, `draw` and `decode` and counts them on its clocks; a profiler runs them one by one.
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

    def load(self, batch_index: int, names: Sequence[str]) -> tuple[dict[str, Prepared], list[Fault]]:
        """What each of the named tasks needs for one batch, and the samples that failed."""
        with self._reading():
            picks = self.plan.picks(batch_index)
            encoded = self.read(picks)
        self._read_clock.add(num_items=len(encoded))
        prepared: dict[str, Prepared] = {}
        reasons: dict[int, str] = {}
        for group in [list(names)] if self._share_decode else [[name] for name in names]:
            made, failures = self._load_group(picks, encoded, group)
            prepared |= made
            reasons |= failures
        self._decode_clock.add(num_failures=len(reasons))
        return prepared, [self._fault(int(picks.rows[index]), reason) for index, reason in sorted(reasons.items())]

    def keys(self, picks: Picks) -> tuple[str, ...]:
        return tuple(self.table.keys[row] for row in picks.rows.tolist())

    def read(self, picks: Picks) -> list[memoryview]:
        """Encoded images or clips, a memoryview a sample."""
        return [self.reader.read(row) for row in picks.rows.tolist()]

    def draw(self, picks: Picks, names: Sequence[str]) -> Drawn:
        """Geometry for the named tasks, which share a decode; the first one's if every task has a decode of its own."""
        keys = self.keys(picks)
        common = self._common_geometry(picks, keys, "canvas" if self._share_decode else f"canvas {names[0]}")
        own = {name: self._task_geometry(picks, keys, name) for name in names}
        return Drawn(common=common, own=own, known=self._known(picks, common, names))

    def decode(self, encoded: Sequence[memoryview], drawn: Drawn) -> Decoded:
        """Canvases or planes of clips, on the device of the pipeline. The copy there may still be under way."""
        is_known_B = _is_known_to_all(drawn.known, list(drawn.own), len(encoded))
        decoded = self._decode(encoded, drawn.common, is_known_B)
        return replace(decoded, pixels=decoded.pixels.to(self._device, non_blocking=True))

    def _load_group(
        self, picks: Picks, encoded: Sequence[memoryview], group: Sequence[str]
    ) -> tuple[dict[str, Prepared], dict[int, str]]:
        """One decode, for all tasks of the group."""
        with self._reading():
            keys, drawn = self.keys(picks), self.draw(picks, group)
        start_s = time.perf_counter()
        decoded = self.decode(encoded, drawn)
        self._count_decoding(time.perf_counter() - start_s, decoded.waited_s)
        self._decode_clock.add(num_items=len(keys))
        failed = tuple(index for index, _ in decoded.failures)
        rows = _shown_rows(len(keys), failed)
        shown = tuple(keys[row] for row in rows)
        prepared = {
            name: Prepared(
                pixels=decoded.pixels,
                geometry=drawn.geometry_of(name),
                keys=shown,
                failed=failed,
                known=drawn.known[name].with_rows_of(rows, failed) if name in drawn.known else None,
            )
            for name in group
        }
        return prepared, dict(decoded.failures)

    def _known(self, picks: Picks, common: Geometry, group: Sequence[str]) -> dict[str, CachedTargets]:
        """By name, for the tasks that remember targets."""
        memories = {name: self._tasks[name].targets for name in group}
        addresses = list(zip(picks.rows.tolist(), common["flip"].tolist(), strict=True))
        return {name: cached_targets(memory, addresses) for name, memory in memories.items() if memory is not None}

    def _common_geometry(self, picks: Picks, keys: tuple[str, ...], stream: str) -> Geometry:
        """ "label" (B,), "flip" (B,) and, for images, "box" (B, 4)."""
        seed, epochs = self.plan.seed, picks.epochs.tolist()
        uniform_B4 = BatchRng(seed, epochs, keys, stream).random(4)
        geometry: Geometry = {
            "label": self.table.label[picks.rows],
            "flip": uniform_B4[:, 3] < self._flip_probability,
        }
        if self.table.kind == "image":
            width_B, height_B = self.table.width[picks.rows], self.table.height[picks.rows]
            geometry["box"] = canvas_boxes(uniform_B4, width_B, height_B, self._canvas_scale, self._canvas.canvas_px)
        return geometry

    def _task_geometry(self, picks: Picks, keys: tuple[str, ...], name: str) -> Geometry:
        return self._tasks[name].draw(BatchRng(self.plan.seed, picks.epochs.tolist(), keys, name))

    def _decode(self, encoded: Sequence[memoryview], common: Geometry, is_known_B: npt.NDArray[np.bool_]) -> Decoded:
        size = self._canvas
        if self.table.kind == "image":
            return self.backend.canvases(encoded, common["box"], common["flip"], size.canvas_px)
        frames = size.num_frames, size.clip_height_px, size.clip_width_px
        return self.backend.clip_planes(encoded, common["flip"], *frames, first_only_B=is_known_B)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One thread reads and decodes in turn, so each of the two stages waits while the other works."""
        start_s = time.perf_counter()
        yield
        seconds = time.perf_counter() - start_s
        self._read_clock.add(busy_s=seconds)
        self._decode_clock.add(blocked_on_input_s=seconds)

    def _count_decoding(self, seconds: float, waited_s: float) -> None:
        """What passed before a worker was free is the tasks' doing, which come after."""
        self._decode_clock.add(busy_s=seconds - waited_s, blocked_on_output_s=waited_s)
        self._read_clock.add(blocked_on_output_s=seconds)

    def _fault(self, row: int, reason: str) -> Fault:
        shard = self.table.shards[int(self.table.shard_index[row])].name
        return Fault(shard=shard, key=self.table.keys[row], reason=reason)


def _is_known_to_all(
    known: Mapping[str, CachedTargets], group: Sequence[str], num_samples: int
) -> npt.NDArray[np.bool_]:
    """bool (B,): samples whose target every task of the group knows."""
    if len(known) < len(group):
        return np.zeros(num_samples, np.bool_)
    is_known = zip(*([target is not None for target in one.target] for one in known.values()), strict=True)
    return np.array([all(sample) for sample in is_known], np.bool_)


def _shown_rows(num_samples: int, failed: tuple[int, ...]) -> list[int]:
    """A failed row shows the next good row's pixels, so it gets that row's key: tasks that look for a different
    image (exemplar's negative) must not take it for one."""
    shown = np.arange(num_samples)
    if len(failed) < num_samples:
        fill_failed(shown, failed)
    return shown.tolist()
