"""fourfold's own pipeline over its shards, with either backend. Only the boxes are given instead of drawn."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.loaders.setting import Batch, Batches, Loader, Setting
from pipelines.build import Pipeline, PipelineConfig, build_pipeline
from pipelines.decode.base import BackendName
from pipelines.read.sample_plan import PickedSamples
from pipelines.run.sample_source import Drawn
from pipelines.tasks import CanvasSpec, Geometry, TaskBatch
from pipelines.tasks.colorization import Colorization, ColorizationConfig

__all__ = ["open_dali", "open_opencv"]

TASK = "colorization"


class PixelsAlone(Colorization):
    """Stand-in for the task that returns the canvases unchanged, uint8 RGB (B, S, S, 3)."""

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        weight = torch.ones(len(keys))
        return TaskBatch(task=TASK, inputs=pixels, target={}, weight=weight, keys=tuple(keys), geometry=geometry)


class FourfoldLoader(Loader):
    """One pipeline for all passes. Each pass restores it to the pass's first step, which empties its queue."""

    def __init__(self, setting: Setting, backend: BackendName) -> None:
        self._setting, self._boxes_N4 = setting, setting.boxes()
        self._config = PipelineConfig.model_validate(
            {
                "images": setting.folder,
                "tasks": {TASK: {}},
                "canvas_px": setting.canvas_px,
                "batch_size": setting.batch_size,
                "backend": backend,
                "num_threads": setting.num_cores,
                # By default a few images may fail; here every sample must come.
                "max_failure_ratio": 0.0,
            }
        )
        self._pipeline = self._open()

    def _open(self) -> Pipeline:
        pipeline = build_pipeline(self._config, seed=0)
        pipeline.maker.tasks[TASK] = PixelsAlone(ColorizationConfig(), CanvasSpec(canvas_px=self._setting.canvas_px))
        source: Any = pipeline.maker.sources["image"].source
        # The pipeline's own draw still runs, so that its time is part of what is measured.
        draw = source.draw

        def draw_given_boxes(picks: PickedSamples, names: Sequence[str]) -> Drawn:
            """Crop samples, whose key is their number, to that row of the given boxes; mirror none."""
            drawn: Drawn = draw(picks, names)
            rows = [int(key) for key in source.keys(picks)]
            return replace(
                drawn, common=drawn.common | {"flip": np.zeros(len(rows), bool), "box": self._boxes_N4[rows]}
            )

        source.draw = draw_given_boxes
        return pipeline

    def start(self, epoch: int) -> Batches:
        num_steps = len(self._boxes_N4) // self._setting.batch_size
        first = epoch * num_steps
        self._pipeline.restore({"step": first, "image_batch": first, "clip_batch": 0})
        return self._steps(num_steps)

    def _steps(self, num_steps: int) -> Batches:
        for _, step in zip(range(num_steps), self._pipeline, strict=False):
            batch = step.batches[TASK]
            yield Batch([int(key) for key in batch.keys], batch.inputs)

    def let_go(self) -> None:
        """Reopen the pipeline, which maps its shards into memory for as long as it is open."""
        self._pipeline.close()
        self._pipeline = self._open()

    def close(self) -> None:
        self._pipeline.close()


open_opencv = partial(FourfoldLoader, backend="opencv")
open_dali = partial(FourfoldLoader, backend="dali")
