"""Check a GPU, once, by its owner: is its path right, and how fast is it? Writes one JSON.

    python -m benchmarks.studies.gpu.gpu_check --out gpu_check.json

Needs DALI (pip install 'fourfold[cuda13]') and no data: shards are made in a temporary folder, or give --shards with
images and clips of your own. First every operation, task and restart is compared with the CPU (gpu_checks.py); only if
all agree is anything timed. Timed are decoding, each task alone, copies to the device, whole pipelines with either
backend, and what `torch.compile` makes of the tasks' arithmetic, which is a trial; sections are NVTX ranges (nsys
profile -t cuda,nvtx python -m ...). With --device cpu the same runs without a GPU but for the trial, which proves the
script and nothing else. Exit code 1 if something differs.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch._dynamo.exc import TorchDynamoException

from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.harness.turns import Job, Timed, time_in_turns
from benchmarks.profile.measure.consumers import nvtx_range, wait_for
from benchmarks.studies.gpu import gpu_checks
from benchmarks.studies.gpu.gpu_checks import Sizes, pipeline_config, pixel_arithmetic, read_samples, task_inputs
from benchmarks.studies.throughput.made_shards import make_shards
from pipelines.base.errors import UsageError
from pipelines.build import Pipeline, build_pipeline
from pipelines.decode.base import Backend, Decoded, thread_count
from pipelines.decode.choice import choose_backend
from pipelines.decode.dali import DaliBackend
from pipelines.decode.opencv import OpenCVBackend
from pipelines.tasks import TASKS
from pipelines.tasks.base import CanvasSpec

__all__ = ["STUDY", "GpuOptions", "auto_is_right", "compiled", "run", "time_jobs"]

IMAGE_TASKS = ("relative_position", "colorization", "exemplar")
MIB = 1 << 20
STEPS_PER_REPEAT = 8

Work = tuple[str, float, Callable[[], object]]
"""Unit, items a call, and the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """Device, shards and sizes of batches of the check."""

    shards: Annotated[Path | None, "folder of shards with images and clips; left out, some are made"] = None
    device: Annotated[Literal["cuda", "cpu"], "cpu proves the script without a GPU"] = "cuda"
    num_repeats: Annotated[int, "of every job; fewer than 6 give no interval"] = 7
    batch_size: Annotated[int, "images of a batch"] = 256
    clip_batch_size: Annotated[int, "clips of a batch"] = 16
    canvas_px: Annotated[int, "side of a canvas"] = 256

    def __post_init__(self) -> None:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("torch sees no GPU here; --device cpu proves the script without one.")


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


def pipeline_jobs(shards: Path, device: torch.device, sizes: Sizes, stack: ExitStack) -> dict[str, Work]:
    """Run pipelines: the image tasks from one decode, and motion segmentation, with either backend."""
    jobs: dict[str, Work] = {}
    for backend in ("dali", "opencv"):
        for label, tasks, unit, count in (
            ("image tasks", IMAGE_TASKS, "samples", sizes.batch_size),
            ("motion_segmentation", ("motion_segmentation",), "clips", sizes.clip_batch_size),
        ):
            # Nothing is remembered, so that clips are labelled anew each time.
            options = {name: {"remembered_clips": 0} if name == "motion_segmentation" else {} for name in tasks}
            config = pipeline_config(shards, sizes, options, backend=backend)
            pipeline = stack.enter_context(build_pipeline(config, seed=0, device=device))
            # What was prepared while another job ran is taken, too, but does not count.
            steps = partial(_take, pipeline, config.prefetch_batches + 1 + STEPS_PER_REPEAT)
            jobs[f"pipeline {label}, {backend}"] = unit, count * STEPS_PER_REPEAT, steps
    return jobs


def _take(pipeline: Pipeline, num_steps: int) -> None:
    for _ in islice(pipeline, num_steps):
        pass


def copies_per_step(shards: Path, device: torch.device, sizes: Sizes) -> list[dict[str, Any]]:
    """Return what the CUDA profiler saw copied in a step of the image tasks with DALI. Only exemplar's `eigh` may send
    some bytes to the host: whether it failed."""
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


def auto_is_right(timings: Mapping[str, Timed], device: torch.device) -> dict[str, Any]:
    """Return what `backend: auto` picks here, and which backend is the faster one, for images and for clips."""
    choice = choose_backend("auto", device)
    faster = {
        what: max(("dali", "opencv"), key=lambda name: timings[f"{what}, {name}"].median_per_s)
        for what in ("decode images", "decode clips", "pipeline image tasks", "pipeline motion_segmentation")
    }
    return {"choice": choice.name, "reason": choice.reason, "faster": faster}


def measure(options: GpuOptions) -> dict[str, Any]:
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    canvas = CanvasSpec(canvas_px=options.canvas_px)
    sizes = Sizes(batch_size=options.batch_size, clip_batch_size=options.clip_batch_size, canvas=canvas)
    with temporary_folder() as folder:
        return run(options.shards or make_shards(folder), device, sizes, options.num_repeats)


def run(shards: Path, device: torch.device, sizes: Sizes, num_repeats: int) -> dict[str, Any]:
    """Return checks, then timings, then copies; without timings if a check fails."""
    checks = []
    for check in gpu_checks.check_all(shards, device, sizes):
        verdict = "ok" if check.is_ok else "DIFFERS"
        say(f"{check.name}: {check.found:.4g} {check.unit}, {check.allowed:g} allowed: {verdict}")
        checks.append(asdict(check) | {"is_ok": check.is_ok})
    results: dict[str, Any] = {"checks": checks, "num_failed": sum(not check["is_ok"] for check in checks)}
    # How fast a wrong path is, nobody needs to know.
    if results["num_failed"]:
        return results
    timings: dict[str, Timed] = {}
    # Group by group, closed in between: pipelines that are open hold threads, and memory of the device.
    for jobs_of in (decode_jobs, pipeline_jobs):
        with ExitStack() as stack:
            timings |= time_jobs(jobs_of(shards, device, sizes, stack), device, num_repeats)
    timings |= time_jobs(task_jobs(shards, device, sizes) | copy_jobs(device, sizes), device, num_repeats)
    results["timings"] = [timing.row() for timing in timings.values()]
    results["auto"] = auto_is_right(timings, device)
    results["copies"] = copies_per_step(shards, device, sizes) if device.type == "cuda" else []
    # Last, because no task needs it: that it fails is worth knowing, and no reason to lose the rest.
    try:
        results["compiled"] = list(compiled(device, sizes, num_repeats)) if device.type == "cuda" else []
    except TorchDynamoException as error:
        results["compiled"] = f"torch.compile failed: {error}"
        print(results["compiled"], file=sys.stderr)
    return results


STUDY = Study(
    module="benchmarks.studies.gpu.gpu_check",
    kind="gpu_check",
    label="DALI on a device",
    description=__doc__,
    options=GpuOptions,
    measure=measure,
    is_failed=lambda results: bool(results["num_failed"]),
    packages=("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    inputs={"made shards": "benchmarks/studies/throughput/made_shards.py"},
)

if __name__ == "__main__":
    STUDY.main()
