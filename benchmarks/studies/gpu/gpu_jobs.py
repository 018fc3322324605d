"""What the check of a GPU times: decoding, tasks, copies, motion masks, whole pipelines, and compiled arithmetic."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.study import say
from benchmarks.harness.turns import Job, Timed, time_in_turns
from benchmarks.profile.measure.consumers import nvtx_range, wait_for
from benchmarks.studies.gpu.gpu_checks import Sizes, pipeline_config, pixel_arithmetic, read_samples, task_inputs
from pipelines.build import Pipeline, build_pipeline
from pipelines.decode.base import Backend, Decoded, thread_count
from pipelines.decode.clip_planes import planes_of
from pipelines.decode.dali import DaliBackend
from pipelines.decode.opencv import OpenCVBackend
from pipelines.tasks import PRETEXT_TASKS, TASKS
from pipelines.tasks.motion_segmentation import MotionSegmentation, MotionSegmentationConfig

__all__ = [
    "Work",
    "compiled",
    "copies_per_step",
    "copy_jobs",
    "decode_jobs",
    "motion_jobs",
    "pipeline_jobs",
    "task_jobs",
    "time_jobs",
]

IMAGE_TASKS = ("relative_position", "colorization", "exemplar")
MIB = 1 << 20
STEPS_PER_REPEAT = 8

Work = tuple[str, float, Callable[[], object]]
"""Unit, items a call, and the call."""


def time_jobs(jobs: Mapping[str, Work], device: torch.device, num_repeats: int) -> dict[str, Timed]:
    """Time jobs in turns, each until the device has done its work, as an NVTX range on a GPU."""

    def on_device(name: str, call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with nvtx_range(name, device):
                call()
                wait_for(device)

        return run

    found = {
        name: Job(unit=unit, num_items=items, run=on_device(name, call), prepare=lambda: wait_for(device))
        for name, (unit, items, call) in jobs.items()
    }
    return time_in_turns(found, num_repeats, report=say)


def decode_jobs(shards: Path, device: torch.device, sizes: Sizes, stack: ExitStack) -> dict[str, Work]:
    """Decode by both backends on the same bytes, images and clips, to the device's memory."""
    table, images = read_samples(shards, "image", sizes.batch_size)
    _, clips = read_samples(shards, "clip", sizes.clip_batch_size)
    rows = np.arange(len(images)) % len(table)
    side = np.minimum(table.width[rows], table.height[rows])
    # The largest square, so that every image is cropped and resized whatever its shape.
    boxes = np.stack([side * 0, side * 0, side, side], axis=1).astype(np.int32)
    canvas, num_threads, is_gpu = sizes.canvas, thread_count(0), device.type == "cuda"
    size = (canvas.num_frames, canvas.clip_height_px, canvas.clip_width_px)
    backends: dict[str, Backend] = {
        "dali": DaliBackend(device=device, num_threads=num_threads),
        "opencv": OpenCVBackend(num_threads=num_threads, pin_memory=is_gpu),
    }

    def to_device(decode: Callable[..., Decoded], encoded: list[memoryview], *more: Any) -> None:
        decode(encoded, *more).pixels.to(device)

    jobs: dict[str, Work] = {}
    for name, backend in backends.items():
        stack.callback(backend.close)
        of_images = images, boxes, np.zeros(len(images), bool), canvas.canvas_px
        jobs[f"decode images, {name}"] = "images", len(images), partial(to_device, backend.canvases, *of_images)
        of_clips = clips, np.zeros(len(clips), bool), *size
        jobs[f"decode clips, {name}"] = "clips", len(clips), partial(to_device, backend.clips, *of_clips)
    return jobs


def task_jobs(shards: Path, device: torch.device, sizes: Sizes) -> dict[str, Work]:
    """Make the batch of each task alone, its pixels being on the device."""
    opencv = OpenCVBackend(num_threads=thread_count(0))
    jobs: dict[str, Work] = {}
    for name in TASKS:
        task, pixels, geometry, keys = task_inputs(name, shards, sizes, opencv)
        jobs[f"task {name}"] = "samples", len(keys), partial(task.make, pixels.to(device), geometry, keys)
    opencv.close()
    return jobs


def copy_jobs(device: torch.device, sizes: Sizes) -> dict[str, Work]:
    """Copy a batch of canvases to the device, from ordinary and from page-locked memory."""
    side = sizes.canvas.canvas_px
    batch = torch.zeros(sizes.batch_size, side, side, 3, dtype=torch.uint8)
    jobs: dict[str, Work] = {
        "copy to device, pageable": ("mib", batch.nbytes / MIB, lambda: batch.to(device, copy=True))
    }
    if device.type == "cuda":
        locked = batch.pin_memory()
        jobs["copy to device, page-locked"] = ("mib", batch.nbytes / MIB, lambda: locked.to(device, non_blocking=True))
    return jobs


def motion_jobs(shards: Path, device: torch.device, sizes: Sizes, stack: ExitStack) -> dict[str, Work]:
    """Make masks of clips whose planes lie on the device: there, or in threads of the CPU and back."""
    opencv = OpenCVBackend(num_threads=thread_count(0))
    stack.callback(opencv.close)
    _, pixels, geometry, keys = task_inputs("motion_segmentation", shards, sizes, opencv)
    planes = planes_of(pixels).to(device)
    jobs: dict[str, Work] = {}
    for label, is_there in (("on the device", True), ("in threads", False)):
        task = MotionSegmentation(MotionSegmentationConfig(device_masks=is_there), sizes.canvas)
        jobs[f"motion masks {label}"] = "clips", len(keys), partial(task.make, planes, geometry, keys)
    return jobs


def pipeline_jobs(shards: Path, device: torch.device, sizes: Sizes, stack: ExitStack) -> dict[str, Work]:
    """Run pipelines: the image tasks from one decode, motion segmentation, and all tasks, with either backend; motion
    segmentation in worker processes, too."""
    jobs: dict[str, Work] = {}
    for label, tasks, unit, count, backend, num_workers in (
        ("image tasks", IMAGE_TASKS, "samples", sizes.batch_size, "dali", 0),
        ("image tasks", IMAGE_TASKS, "samples", sizes.batch_size, "opencv", 0),
        ("motion_segmentation", ("motion_segmentation",), "clips", sizes.clip_batch_size, "dali", 0),
        ("motion_segmentation", ("motion_segmentation",), "clips", sizes.clip_batch_size, "opencv", 0),
        ("motion_segmentation, processes", ("motion_segmentation",), "clips", sizes.clip_batch_size, "opencv", -1),
        ("all tasks", PRETEXT_TASKS, "samples", sizes.batch_size + sizes.clip_batch_size, "dali", 0),
    ):
        # Nothing is remembered, so that clips are labelled anew each time.
        options = {name: {"remembered_clips": 0} if name == "motion_segmentation" else {} for name in tasks}
        config = pipeline_config(shards, sizes, options, backend=backend)
        config = config.model_copy(update={"num_workers": thread_count(0) if num_workers else 0})
        pipeline = stack.enter_context(build_pipeline(config, seed=0, device=device))
        # What was prepared while another job ran is taken, too, but does not count.
        steps = partial(_take, pipeline, config.prefetch_batches + 1 + STEPS_PER_REPEAT)
        jobs[f"pipeline {label}, {backend}"] = unit, count * STEPS_PER_REPEAT, steps
    return jobs


def _take(pipeline: Pipeline, num_steps: int) -> None:
    for _ in islice(pipeline, num_steps):
        pass


def copies_per_step(shards: Path, device: torch.device, sizes: Sizes) -> list[dict[str, Any]]:
    """Return what the CUDA profiler saw copied in a step of the image tasks with DALI. Nothing may go to the host."""
    config = pipeline_config(shards, sizes, {name: {} for name in IMAGE_TASKS}, backend="dali")
    with build_pipeline(config, seed=0, device=device) as pipeline:
        # Untimed steps first: what is copied once, later steps find on the device.
        _take(pipeline, STEPS_PER_REPEAT)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            _take(pipeline, STEPS_PER_REPEAT)
            wait_for(device)
    return [
        {
            "name": event.key,
            "copies_per_step": event.count / STEPS_PER_REPEAT,
            "ms_per_step": event.device_time_total / 1e3 / STEPS_PER_REPEAT,
        }
        for event in profile.key_averages()
        if "memcpy" in event.key.lower()
    ]


def compiled(device: torch.device, sizes: Sizes, num_repeats: int) -> Iterator[dict[str, Any]]:
    """Yield how many times as fast `torch.compile` makes the tasks' arithmetic, and how far off in [0, 1]."""
    for name, call in pixel_arithmetic(device, sizes).items():
        faster = torch.compile(call, fullgraph=True)
        apart = float((faster() - call()).abs().max())
        jobs: dict[str, Work] = {name: ("samples", sizes.batch_size, call)}
        jobs[f"{name}, compiled"] = ("samples", sizes.batch_size, faster)
        plain, other = time_jobs(jobs, device, num_repeats).values()
        yield {
            "name": name,
            "largest_difference": apart,
            "times_as_fast": other.median_per_s / plain.median_per_s,
            "timings": [plain.row(), other.row()],
        }
