"""Measure what a stage would cost with another input or method, on this folder's own samples; nothing is written.

Smaller source images, another backend, another clip codec, another flow engine, cached targets: each gives the cost of
one stage, to be put into the model.
"""

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import av
import numpy as np
import torch

from benchmarks.profile.measure.costs import lanes, measure_costs, source_of, used_in_lanes
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.decode.base import BackendName
from pipelines.run.sample_source import canvas_boxes
from pipelines.shards.media.clip_bytes import ClipForm, Codec, encode_clip
from pipelines.shards.media.image_bytes import ImageForm, prepare_image
from pipelines.tasks import TASKS

__all__ = [
    "cost_with_backend",
    "cost_with_codec",
    "cost_with_small_images",
    "cost_with_targets_cached",
    "motion_cost_with",
    "needed_short_side_px",
    "recoded_clip",
    "short_side_px",
]

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


def recoded_clip(encoded: bytes | memoryview, codec: Codec) -> bytes:
    """Return the same frames in another codec."""
    with av.open(io.BytesIO(encoded), mode="r") as container:
        frames = list(container.decode(container.streams.video[0]))
    # FFmpeg's MJPEG encoder takes pixels of the full range, VP9 those of the limited range of video.
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    return encode_clip([frame.reformat(format=pixel_format) for frame in frames], ClipForm(codec=codec))


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
        backends = [pipeline.maker.backend for pipeline in pipelines]
        work = [partial(one.canvases, encoded, boxes_B4, flips_B, config.canvas_px) for one in backends]
        return _median_cpu_s(work, len(made))


def cost_with_codec(config: PipelineConfig, codec: Codec, device: torch.device) -> float:
    """Return CPU seconds of decoding a clip that was stored in that codec."""
    size = config.canvas
    with lanes(config, device) as pipelines:
        source = source_of(pipelines[0], "clip")
        stored = source.read(source.plan.picks(0))[: NUM_SAMPLES // 2]
        encoded = [memoryview(recoded_clip(view, codec)) for view in stored]
        # No clip's target is known: all planes are decoded, as in a first epoch.
        frames = np.zeros(len(encoded), np.bool_), size.num_frames, size.clip_height_px, size.clip_width_px
        work = [partial(one.maker.backend.clip_planes, encoded, *frames) for one in pipelines]
        return _median_cpu_s(work, len(encoded))


def cost_with_backend(config: PipelineConfig, backend: BackendName, seconds: float, device: torch.device) -> float:
    """Return CPU seconds of making a canvas with that backend."""
    # Image tasks alone: clips would be decoded and timed as well, for a number that is not used.
    images = {name: task for name, task in config.tasks.items() if TASKS[name].source == "image"}
    only = config.model_copy(update={"backend": backend, "tasks": images})
    return measure_costs(only, seconds, device)["decode image"].busy_s


def motion_cost_with(config: PipelineConfig, options: Mapping[str, Any], seconds: float, device: torch.device) -> float:
    """Return CPU seconds of a clip's motion target with other options of the task."""
    return measure_costs(_only_motion(config, options), seconds, device)[MOTION].busy_s


def cost_with_targets_cached(config: PipelineConfig, device: torch.device) -> tuple[float, float]:
    """Return CPU seconds of decoding a clip whose motion target is in the cache, and of its part of the batch."""
    only = _only_motion(config, {"remembered_clips": 2 * config.clip_batch_size})
    decodes: list[Callable[[], object]] = []
    makes: list[Callable[[], object]] = []
    with lanes(only, device, is_cached=True) as pipelines:
        for pipeline in pipelines:
            source, make = source_of(pipeline, "clip"), pipeline.maker.make
            make(MOTION, source.load(0, [MOTION])[0][MOTION])  # computes and caches the targets of the first batch
            # Loaded again: of a clip whose target is cached fewer frames are decoded, so that its pixels have another
            # shape.
            makes.append(partial(make, MOTION, source.load(0, [MOTION])[0][MOTION]))
            picks = source.plan.picks(0)
            decodes.append(partial(source.decode, source.read(picks), source.draw(picks, [MOTION])))
        count = config.clip_batch_size
        return _median_cpu_s(decodes, count), _median_cpu_s(makes, count)


def _only_motion(config: PipelineConfig, options: Mapping[str, Any]) -> PipelineConfig:
    return config.model_copy(update={"tasks": {MOTION: config.tasks[MOTION].model_copy(update=dict(options))}})


def _median_cpu_s(work: Sequence[Callable[[], object]], num_samples: int) -> float:
    """Return CPU seconds a sample, all lanes at once; the first turn warms up."""
    uses = [used_in_lanes(work)[0] for _ in range(NUM_TURNS + 1)]
    return statistics.median(use.own_s for use in uses[1:]) / num_samples / len(work)
