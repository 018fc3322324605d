"""Measure what a stage would cost with another input or method, on this folder's own samples; nothing is written.

Smaller source images and another flow engine: each gives the cost of one stage, to be put into the model.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.profile.measure.costs import lanes, measure_costs, source_of, used_in_lanes
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.run.sample_source import canvas_boxes
from pipelines.shards.media.image_bytes import ImageForm, prepare_image

__all__ = ["cost_with_small_images", "motion_cost_with", "needed_short_side_px", "short_side_px"]

NUM_SAMPLES = 16
NUM_TURNS = 5
NUM_SIZES = 256
MOTION = "motion_segmentation"


def needed_short_side_px(config: PipelineConfig) -> int:
    """Return the short side of the smallest image whose smallest crop still has the pixels of the canvas."""
    return -int(-config.canvas_px // config.canvas_scale[0])


def short_side_px(config: PipelineConfig) -> float:
    """Return the median short side of the first images of the plan."""
    with build_pipeline(config, seed=0) as pipeline:
        source = source_of(pipeline, "image")
        rows = np.concatenate([source.plan.picks(batch).rows for batch in range(1 + NUM_SIZES // config.batch_size)])
        return float(np.median(np.minimum(source.table.width[rows], source.table.height[rows])))


def cost_with_small_images(config: PipelineConfig, short_side_px: int, device: torch.device) -> float:
    """Return CPU seconds of decoding an image that was stored at that short side."""
    with lanes(config, device) as pipelines:
        source = source_of(pipelines[0], "image")
        stored = source.read(source.plan.picks(0))[:NUM_SAMPLES]
        # By the code that builds shards, so that the bytes are those that a build would store.
        made = [prepare_image(bytes(view), ImageForm(short_side_px=short_side_px)) for view in stored]
        encoded = [memoryview(one.encoded) for one in made]
        width_B, height_B = np.array([(one.width, one.height) for one in made], np.int64).T
        # Random numbers of a fixed seed: a profile that is made again decodes the same crops.
        uniform_B4 = np.random.default_rng(0).random((len(made), 4))
        boxes_B4 = canvas_boxes(uniform_B4, width_B, height_B, config.canvas_scale, config.canvas_px)
        flips_B = uniform_B4[:, 3] < config.flip_probability
        backends = [source_of(pipeline, "image").backend for pipeline in pipelines]
        work = [partial(one.canvases, encoded, boxes_B4, flips_B, config.canvas_px) for one in backends]
        return _median_cpu_s(work, len(made))


def motion_cost_with(config: PipelineConfig, options: Mapping[str, Any], seconds: float, device: torch.device) -> float:
    """Return CPU seconds of a clip's motion target with other options of the task."""
    task = config.tasks[MOTION].model_copy(update=dict(options))
    return measure_costs(config.model_copy(update={"tasks": {MOTION: task}}), seconds, device)[MOTION].busy_s


def _median_cpu_s(work: Sequence[Callable[[], object]], num_samples: int) -> float:
    """Return CPU seconds a sample, all lanes at once; the first turn warms up."""
    uses = [used_in_lanes(work)[0] for _ in range(NUM_TURNS + 1)]
    return statistics.median(use.own_s for use in uses[1:]) / num_samples / len(work)
