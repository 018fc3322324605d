"""What a GPU owner runs once: is the GPU's path right, and how fast is it? Writes one JSON.

    python -m benchmarks.studies.gpu.gpu_check --out gpu_check.json

Needs DALI (pip install 'fourfold[cuda13]') and no data: shards are made in a temporary folder, or give --shards with
images and clips of your own. First every operation, task and restart is compared with the CPU (gpu_checks.py); only if
all agree is anything timed. Timed are decoding, each task alone, copies to the device, whole pipelines with either
backend, and what `torch.compile` makes of the tasks' arithmetic, which is a trial; sections are NVTX ranges (nsys
profile -t cuda,nvtx python -m ...). With --device cpu the same runs without a GPU but for the trial, which proves the
script and nothing else. Exit code 1 if something differs.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._dynamo.exc import TorchDynamoException

from benchmarks.results.record import Record, environment, now_utc, write_json
from benchmarks.studies.gpu.gpu_checks import (
    Sizes,
    check_all,
    pipeline_config,
    pixel_arithmetic,
    read_samples,
    task_inputs,
)
from benchmarks.studies.throughput.made_shards import make_shards
from pipelines.build import build_pipeline
from pipelines.decode.base import Backend, thread_count
from pipelines.decode.choice import choose_backend
from pipelines.decode.dali import DaliBackend
from pipelines.decode.opencv import OpenCVBackend
from pipelines.tasks import TASKS
from pipelines.tasks.base import CanvasSpec

__all__ = ["Timing", "main", "time_together"]

IMAGE_TASKS = ("relative_position", "colorization", "exemplar")
MIB = 1 << 20
STEPS_PER_REPEAT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One thing timed: `items` in each of `seconds`, one number a repeat."""

    name: str
    unit: str
    items: float
    seconds: tuple[float, ...]

    @property
    def median_per_s(self) -> float:
        return self.items / statistics.median(self.seconds)

    def row(self) -> dict[str, Any]:
        """For the record: every repeat, and the median with the quartiles around it."""
        rates = sorted(self.items / seconds for seconds in self.seconds)
        low, middle, high = np.percentile(rates, [25, 50, 75]).tolist()
        return {
            "name": self.name,
            "unit": f"{self.unit}_per_s",
            "median": middle,
            "quartile_low": low,
            "quartile_high": high,
            "values": [self.items / seconds for seconds in self.seconds],
        }


TimedWork = tuple[str, float, Callable[[], object]]
"""Unit, items a call, and the call."""


def time_together(
    jobs: Mapping[str, TimedWork],
    device: torch.device,
    num_repeats: int,
    before: Callable[[str], None] = lambda _: None,
) -> Iterator[Timing]:
    """All jobs once to warm up, then in turn, so that whatever slows the machine down slows all of them. `before`:
    called with a job's name each time, not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(-1, num_repeats):
        for name, (_, _, call) in jobs.items():
            before(name)
            with _range(name, device):
                start_s = time.perf_counter()
                call()
                _wait(device)
                if repeat >= 0:
                    seconds[name].append(time.perf_counter() - start_s)
    for name, (unit, items, _) in jobs.items():
        yield Timing(name=name, unit=unit, items=items, seconds=tuple(seconds[name]))


@contextmanager
def _range(name: str, device: torch.device) -> Iterator[None]:
    """An NVTX range on a GPU."""
    if device.type != "cuda":
        yield
        return
    _wait(device)
    with torch.cuda.nvtx.range(name):
        yield


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def decode_jobs(shards: Path, device: torch.device, sizes: Sizes, stack: ExitStack) -> dict[str, TimedWork]:
    """Both backends on the same bytes, images and clips, to the device's memory."""
    table, images = read_samples(shards, "image", sizes.batch_size)
    _, clips = read_samples(shards, "clip", sizes.clip_batch_size)
    rows = np.arange(len(images)) % len(table)
    side = np.minimum(table.width[rows], table.height[rows])
    boxes = np.stack([side * 0, side * 0, side, side], axis=1).astype(np.int32)
    canvas, num_threads, is_gpu = sizes.canvas, thread_count(0), device.type == "cuda"
    size = (canvas.num_frames, canvas.clip_height_px, canvas.clip_width_px)
    backends: dict[str, Backend] = {
        "dali": DaliBackend(device=device, num_threads=num_threads),
        "opencv": OpenCVBackend(num_threads=num_threads, pin_memory=is_gpu),
    }
    jobs: dict[str, TimedWork] = {}
    for name, backend in backends.items():
        stack.callback(backend.close)

        def decode_images(backend: Backend = backend) -> None:
            backend.canvases(images, boxes, np.zeros(len(images), bool), canvas.canvas_px).pixels.to(device)

        def decode_clips(backend: Backend = backend) -> None:
            backend.clips(clips, np.zeros(len(clips), bool), *size).pixels.to(device)

        jobs[f"decode images, {name}"] = ("images", len(images), decode_images)
        jobs[f"decode clips, {name}"] = ("clips", len(clips), decode_clips)
    return jobs


def task_jobs(shards: Path, device: torch.device, sizes: Sizes) -> dict[str, TimedWork]:
    """Each task alone, its pixels being on the device."""
    opencv = OpenCVBackend(num_threads=thread_count(0))
    jobs: dict[str, TimedWork] = {}
    for name in TASKS:
        task, pixels, geometry, keys = task_inputs(name, shards, sizes, opencv)
        there = pixels.to(device)

        def make(task: Any = task, there: Any = there, geometry: Any = geometry, keys: Any = keys) -> None:
            task.make(there, geometry, keys)

        jobs[f"task {name}"] = ("samples", len(keys), make)
    opencv.close()
    return jobs


def copy_jobs(device: torch.device, sizes: Sizes) -> dict[str, TimedWork]:
    """A batch of canvases to the device, from ordinary and from page-locked memory."""
    side = sizes.canvas.canvas_px
    batch = torch.zeros(sizes.batch_size, side, side, 3, dtype=torch.uint8)
    jobs: dict[str, TimedWork] = {
        "copy to device, pageable": ("mib", batch.nbytes / MIB, lambda: batch.to(device, copy=True))
    }
    if device.type == "cuda":
        locked = batch.pin_memory()
        jobs["copy to device, page-locked"] = ("mib", batch.nbytes / MIB, lambda: locked.to(device, non_blocking=True))
    return jobs


def pipeline_jobs(shards: Path, device: torch.device, sizes: Sizes, stack: ExitStack) -> dict[str, TimedWork]:
    """Running pipelines: the image tasks from one decode, and motion segmentation, with either backend."""
    jobs: dict[str, TimedWork] = {}
    for backend in ("dali", "opencv"):
        for label, tasks, unit, count in (
            ("image tasks", IMAGE_TASKS, "samples", sizes.batch_size),
            ("motion_segmentation", ("motion_segmentation",), "clips", sizes.clip_batch_size),
        ):
            # Nothing is remembered, so that clips are labelled anew each time.
            options = {name: {"remembered_clips": 0} if name == "motion_segmentation" else {} for name in tasks}
            config = pipeline_config(shards, sizes, options, backend=backend)
            pipeline = stack.enter_context(build_pipeline(config, seed=0, device=device))

            def steps(pipeline: Any = pipeline, num_ready: int = config.prefetch_batches + 1) -> None:
                # What was prepared while another job ran is taken, too, but does not count.
                for _ in range(num_ready + STEPS_PER_REPEAT):
                    next(pipeline)

            jobs[f"pipeline {label}, {backend}"] = (unit, count * STEPS_PER_REPEAT, steps)
    return jobs


def copies_per_step(shards: Path, device: torch.device, sizes: Sizes) -> list[dict[str, Any]]:
    """What the CUDA profiler saw copied in a step of the image tasks with DALI. To the host only exemplar's `eigh` may
    send some bytes: whether it failed."""
    config = pipeline_config(shards, sizes, {name: {} for name in IMAGE_TASKS}, backend="dali")
    with build_pipeline(config, seed=0, device=device) as pipeline:
        for _ in range(STEPS_PER_REPEAT):
            next(pipeline)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(STEPS_PER_REPEAT):
                next(pipeline)
            _wait(device)
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
    """How many times as fast `torch.compile` makes the tasks' arithmetic, and how far off in [0, 1] its results are."""
    for name, call in pixel_arithmetic(device, sizes).items():
        faster = torch.compile(call, fullgraph=True)
        apart = float((faster() - call()).abs().max())
        jobs: dict[str, TimedWork] = {name: ("samples", sizes.batch_size, call)}
        jobs[f"{name}, compiled"] = ("samples", sizes.batch_size, faster)
        plain, other = _shown(time_together(jobs, device, num_repeats))
        yield {
            "name": name,
            "largest_difference": apart,
            "times_as_fast": other.median_per_s / plain.median_per_s,
            "timings": [plain.row(), other.row()],
        }


def auto_is_right(timings: Mapping[str, Timing], device: torch.device) -> dict[str, Any]:
    """Whether what `backend: auto` picks here is the faster one, for images and for clips."""
    choice = choose_backend("auto", device)
    faster = {
        what: max(("dali", "opencv"), key=lambda name: timings[f"{what}, {name}"].median_per_s)
        for what in ("decode images", "decode clips", "pipeline image tasks", "pipeline motion_segmentation")
    }
    return {"choice": choice.name, "reason": choice.reason, "faster": faster}


def run(shards: Path, device: torch.device, sizes: Sizes, num_repeats: int) -> dict[str, Any]:
    """Checks, then timings, then copies; without timings if a check fails."""
    checks = [asdict(check) | {"is_ok": check.is_ok} for check in _shown(check_all(shards, device, sizes))]
    results: dict[str, Any] = {"checks": checks, "num_failed": sum(not check["is_ok"] for check in checks)}
    if results["num_failed"]:
        return results
    timings: dict[str, Timing] = {}
    for jobs_of in (decode_jobs, pipeline_jobs):
        with ExitStack() as stack:
            jobs = jobs_of(shards, device, sizes, stack)
            timings |= {timing.name: timing for timing in _shown(time_together(jobs, device, num_repeats))}
    jobs = task_jobs(shards, device, sizes) | copy_jobs(device, sizes)
    timings |= {timing.name: timing for timing in _shown(time_together(jobs, device, num_repeats))}
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


def _shown(items: Iterator[Any]) -> Iterator[Any]:
    """Passed on, and printed as they come: some take a while."""
    for item in items:
        if isinstance(item, Timing):
            print(f"{item.name}: {item.median_per_s:,.1f} {item.unit}/s", flush=True)
        else:
            verdict = "ok" if item.is_ok else "DIFFERS"
            print(f"{item.name}: {item.found:.4g} {item.unit}, {item.allowed:g} allowed: {verdict}", flush=True)
        yield item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="folder of shards with images and clips; left out, some are made")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--clip-batch-size", type=int, default=16)
    parser.add_argument("--canvas-px", type=int, default=256)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu proves the script without one")
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    canvas = CanvasSpec(canvas_px=options.canvas_px)
    sizes = Sizes(batch_size=options.batch_size, clip_batch_size=options.clip_batch_size, canvas=canvas)
    start_s, now = time.monotonic(), now_utc()
    with tempfile.TemporaryDirectory() as folder:
        shards = options.shards or make_shards(Path(folder))
        results = run(shards, device, sizes, options.repeats)
    config = {name: str(value) for name, value in vars(options).items()}
    record = Record(
        kind="gpu_check",
        key=now,
        label=f"DALI on {options.device}",
        date=now,
        seconds=time.monotonic() - start_s,
        environment=environment(),
        config=config,
        inputs={"shards": str(options.shards or "made by benchmarks/studies/throughput/made_shards.py")},
        results=results,
    )
    write_json(options.out, asdict(record))
    print(f"wrote {options.out}")
    sys.exit(1 if results["num_failed"] else 0)


if __name__ == "__main__":
    main()
