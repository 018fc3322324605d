"""fourfold's own pipeline over its shards, with either backend. Only the boxes are given instead of drawn."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.loaders.loader_targets import colorization, tensors_of
from benchmarks.loaders.setting import Batch, Batches, Make, Setting
from pipelines.base.workers import Workers
from pipelines.decode.base import BackendName
from pipelines.decode.choice import choose_backend, open_backend
from pipelines.read.sample_plan import Order, Picks, SamplePlan
from pipelines.run.memory_estimate import pipeline_memory
from pipelines.run.replacement import ReplacingSource
from pipelines.run.sample_source import SampleSource
from pipelines.run.stage_stats import StageClock
from pipelines.run.step_maker import StepMaker
from pipelines.run.step_threads import StepThreads
from pipelines.run.stream import Pipeline
from pipelines.shards.format.manifest import SampleTable, load_manifest
from pipelines.tasks import CanvasSpec, Geometry, Task, TaskBatch, TaskConfig, TensorSpec
from pipelines.tasks.base import Rng

__all__ = ["open_dali", "open_opencv"]

PREFETCH_BATCHES = 2
CPU = torch.device("cpu")


class Canvas(Task):
    """The pixels as they are, uint8 RGB (B, S, S, 3): no task at all."""

    name: ClassVar[str] = "canvas"
    source: ClassVar[Literal["image", "clip"]] = "image"
    config_class: ClassVar[type[TaskConfig]] = TaskConfig

    def draw(self, rng: Rng) -> Geometry:
        return {}

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        return TaskBatch(
            task=self.name, inputs=pixels, target={}, weight=torch.ones(len(keys)), keys=tuple(keys), geometry=geometry
        )

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        side = self.canvas.canvas_px
        return {"inputs": TensorSpec(shape=(batch_size, side, side, 3), dtype=torch.uint8, low=0, high=255)}


class GivenBoxes(SampleSource):
    """Samples whose key is their number, cropped to that row of the given boxes and not mirrored."""

    def __init__(
        self, table: SampleTable, plan: SamplePlan, *, boxes_N4: npt.NDArray[np.int32], **options: Any
    ) -> None:
        super().__init__(table, plan, **options)
        self._boxes_N4 = boxes_N4

    def _common_geometry(self, picks: Picks, keys: tuple[str, ...], stream: str) -> Geometry:
        rows = [int(key) for key in keys]
        label = self.table.label[picks.rows]
        return {"label": label, "flip": np.zeros(len(rows), bool), "box": self._boxes_N4[rows]}


def open_opencv(setting: Setting) -> "FourfoldLoader":
    return FourfoldLoader(setting, "opencv")


def open_dali(setting: Setting) -> "FourfoldLoader":
    return FourfoldLoader(setting, "dali")


class FourfoldLoader:
    """One pipeline for all passes: it goes on where it is told to, and its queue is empty when a pass starts."""

    def __init__(self, setting: Setting, backend: BackendName) -> None:
        self._setting, self._backend = setting, backend
        self._table = load_manifest(setting.folder).select("image", "train")
        self._boxes_N4 = setting.boxes()
        self._pipeline = self._open()

    def _open(self) -> Pipeline:
        setting = self._setting
        tasks: dict[str, Task] = {setting.make: _task(setting.make, setting.canvas_px)}
        choice = choose_backend(self._backend, CPU)
        workers = Workers(setting.num_cores)
        backend = open_backend(choice, device=CPU, workers=workers)
        clocks = {name: StageClock(name) for name in ("read", "decode", *tasks)}
        canvas = CanvasSpec(canvas_px=setting.canvas_px)
        open_source = partial(
            GivenBoxes,
            self._table,
            boxes_N4=self._boxes_N4,
            backend=backend,
            tasks=tasks,
            canvas=canvas,
            canvas_scale=(1.0, 1.0),
            flip_probability=0.0,
            share_decode=True,
            device=CPU,
            clocks=(clocks["read"], clocks["decode"]),
        )
        order = Order([shard.num_samples for shard in self._table.shards], seed=0, stream="image")
        plan = SamplePlan(orders=(order,), seed=0, stream="image", global_batch_size=setting.batch_size)
        sizes: dict[Literal["image", "clip"], int] = {"image": setting.batch_size}
        maker = StepMaker(
            tasks=tasks,
            sources={"image": ReplacingSource(open_source, plan)},
            schedule=lambda _: (setting.make,),
            backend=backend,
            clocks=clocks,
            shard_cache=None,
            workers=workers,
        )
        return Pipeline(
            maker=maker,
            supply=StepThreads(maker, PREFETCH_BATCHES),
            backend_choice=choice,
            memory=pipeline_memory(tasks, sizes, canvas, share_decode=True, prefetch_batches=PREFETCH_BATCHES),
            labels=(),
            max_failure_ratio=0.0,
        )

    def start(self, epoch: int) -> Batches:
        num_steps = len(self._table) // self._setting.batch_size
        first = epoch * num_steps
        self._pipeline.restore({"step": first, "image_batch": first, "clip_batch": 0})
        return self._steps(num_steps)

    def _steps(self, num_steps: int) -> Batches:
        for _, step in zip(range(num_steps), self._pipeline, strict=False):
            batch = step.batches[self._setting.make]
            tensors = {"canvas": batch.inputs} if self._setting.make == "canvas" else tensors_of(batch)
            yield Batch([int(key) for key in batch.keys], tensors)

    def let_go(self) -> None:
        """Its shards are mapped into memory for as long as it is open."""
        self._pipeline.close()
        self._pipeline = self._open()

    def close(self) -> None:
        self._pipeline.close()


def _task(make: Make, canvas_px: int) -> Task:
    if make == "canvas":
        return Canvas(TaskConfig(), CanvasSpec(canvas_px=canvas_px))
    return colorization(canvas_px)
