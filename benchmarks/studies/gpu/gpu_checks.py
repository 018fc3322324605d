"""Compare a GPU's path with the CPU's: pixels per operation, tasks given equal pixels, flow, restarts to the bit.

Everything runs on a CPU too (device "cpu": the DALI backend's CPU graph), which proves the script and no GPU.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.studies.throughput.made_shards import made_picture
from pipelines.base.rng import rng_for
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.decode.dali import DaliBackend
from pipelines.decode.opencv import OpenCVBackend
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import SampleTable, load_manifest
from pipelines.targets.color.lab import lightness
from pipelines.targets.views.view_colors import jitter_hsv_torch
from pipelines.tasks import TASKS
from pipelines.tasks.base import CanvasSpec, Geometry, Task, TaskBatch, stack_geometry
from pipelines.tasks.exemplar import DRAWN, Exemplar, ExemplarConfig

__all__ = ["Comparison", "Sizes", "checks", "pixel_arithmetic", "read_samples"]

OPERATIONS = (
    ("crop", 1.0, False, 0.5, 3.0),
    ("crop, mirrored", 1.0, True, 0.5, 3.0),
    ("shrunk by 1.14", 1.14, False, 0.6, 3.0),
    ("shrunk by 1.5", 1.5, False, 0.6, 3.0),
    ("shrunk by 2.9", 2.9, True, 0.6, 3.0),
    ("shrunk by 4", 4.0, False, 1.2, 8.0),
    ("grown by 1.5", 1 / 1.5, False, 0.5, 3.0),
)
"""Name, sides of the box as a multiple of the canvas, mirrored, and how far apart in levels the two backends may be in
the mean and at the 99th percentile."""
CLIP_TOLERANCE = (3.0, 12.0)
INPUT_TOLERANCE = 2 / 255
"""Of a task's inputs in the mean, given equal pixels."""
MAX_CHANGED_TARGETS = 2e-3
"""Share of target values that may differ, given equal pixels: colors half-way between two steps of 1/64, and with them
the weights of their bins. An H200 gave 0.0013."""
MAX_CHANGED_CELLS = 0.05
"""Of motion masks, moving or known: flow on a device is not the CPU's."""
NUM_STEPS = 8
PAN_XY = (-3.0, -2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One comparison: what was found and what is allowed, in the unit given."""

    name: str
    unit: str
    found: float
    allowed: float

    @property
    def is_ok(self) -> bool:
        return self.found <= self.allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of batches; the defaults are the paper's."""

    batch_size: int = 64
    clip_batch_size: int = 8
    canvas: CanvasSpec = field(default_factory=CanvasSpec)


def checks(shards: Path, device: torch.device, sizes: Sizes) -> dict[str, Callable[[], Iterator[Comparison]]]:
    """Return every comparison by name."""
    given = shards, device, sizes
    found: dict[str, Callable[[], Iterator[Comparison]]] = {
        "images": lambda: check_images(*given),
        "clips": lambda: check_clips(*given),
        "tasks": lambda: check_tasks(*given),
    }
    if device.type == "cuda":
        found["flow"] = lambda: iter([check_flow(device)])
    return found | {"restarts": lambda: iter([check_restarts(*given)])}


def read_samples(shards: Path, kind: str, count: int) -> tuple[SampleTable, list[memoryview]]:
    """Return the table of a kind, and its first `count` encoded samples, over again if there are fewer."""
    table = load_manifest(shards).select("image" if kind == "image" else "clip", "train")
    reader = SampleReader(table)
    return table, [reader.read(row % len(table)) for row in range(count)]


def check_images(shards: Path, device: torch.device, sizes: Sizes) -> Iterator[Comparison]:
    """Compare the DALI backend on `device` with OpenCV, operation by operation."""
    table, encoded = read_samples(shards, "image", sizes.batch_size)
    short_px = int(min(table.width[: len(encoded)].min(), table.height[: len(encoded)].min()))
    dali, opencv = DaliBackend(device=device, num_threads=2), OpenCVBackend(num_threads=2)
    for name, scale, is_mirrored, mean, p99 in OPERATIONS:
        # The box has to lie inside of the smallest image.
        canvas_px = min(sizes.canvas.canvas_px, int(short_px / scale))
        side = round(canvas_px * scale)
        boxes = np.tile(np.array([0, 0, side, side], np.int32), (len(encoded), 1))
        flips = np.full(len(encoded), is_mirrored)
        ours, theirs = (one.canvases(encoded, boxes, flips, canvas_px).pixels for one in (dali, opencv))
        yield from _levels(f"image {name}", ours, theirs, (mean, p99))
    dali.close()
    opencv.close()


def check_clips(shards: Path, device: torch.device, sizes: Sizes) -> Iterator[Comparison]:
    """Compare clips at full size and at half of it, every other one mirrored."""
    _, encoded = read_samples(shards, "clip", sizes.clip_batch_size)
    flips, canvas = np.arange(len(encoded)) % 2 == 1, sizes.canvas
    dali, opencv = DaliBackend(device=device, num_threads=2), OpenCVBackend(num_threads=2)
    for name, divisor in (("full size", 1), ("half size", 2)):
        size = (canvas.num_frames, canvas.clip_height_px // divisor, canvas.clip_width_px // divisor)
        ours, theirs = (one.clips(encoded, flips, *size).pixels for one in (dali, opencv))
        yield from _levels(f"clip {name}", ours, theirs, CLIP_TOLERANCE)
    dali.close()
    opencv.close()


def _levels(name: str, ours: torch.Tensor, theirs: torch.Tensor, allowed: tuple[float, float]) -> Iterator[Comparison]:
    apart = (ours.cpu().int() - theirs.cpu().int()).abs().numpy()
    yield Comparison(name=f"{name}, mean", unit="levels", found=float(apart.mean()), allowed=allowed[0])
    p99 = float(np.percentile(apart, 99))
    yield Comparison(name=f"{name}, 99th percentile", unit="levels", found=p99, allowed=allowed[1])


def check_tasks(shards: Path, device: torch.device, sizes: Sizes) -> Iterator[Comparison]:
    """Compare each task's batch on the device with that on the CPU, from the same pixels and geometry."""
    opencv = OpenCVBackend(num_threads=2)
    for name in TASKS:
        task, pixels, geometry, keys = task_inputs(name, shards, sizes, opencv)
        cpu, ours = task.make(pixels, geometry, keys), task.make(pixels.to(device), geometry, keys).to("cpu")
        apart = float((cpu.inputs - ours.inputs).abs().mean())
        yield Comparison(name=f"{name} inputs, mean", unit="of [0, 1]", found=apart, allowed=INPUT_TOLERANCE)
        allowed = MAX_CHANGED_CELLS if name == "motion_segmentation" else MAX_CHANGED_TARGETS
        yield Comparison(name=f"{name} targets", unit="share", found=_changed(cpu, ours), allowed=allowed)
    opencv.close()


def task_inputs(
    name: str, shards: Path, sizes: Sizes, opencv: OpenCVBackend
) -> tuple[Task, torch.Tensor, Geometry, tuple[str, ...]]:
    """Return a task with its default options, and a batch of pixels on the CPU for it."""
    task = TASKS[name](TASKS[name].config_class(), sizes.canvas)
    count = sizes.batch_size if task.source == "image" else sizes.clip_batch_size
    table, encoded = read_samples(shards, task.source, count)
    # Numbered, so that a sample which comes again is drawn anew.
    keys = tuple(f"{table.keys[row % len(table)]}-{row}" for row in range(count))
    geometry = stack_geometry([task.draw(rng_for(0, 0, key, name)) for key in keys])
    # Read by the supervised task alone; which label it is does not matter to the comparison.
    geometry["label"] = np.zeros(count, np.int64)
    canvas, flips = sizes.canvas, np.zeros(count, bool)
    if task.source == "clip":
        size = (canvas.num_frames, canvas.clip_height_px, canvas.clip_width_px)
        return task, opencv.clips(encoded, flips, *size).pixels, geometry, keys
    sides = [min(table.width[row % len(table)], table.height[row % len(table)]) for row in range(count)]
    boxes = np.array([(0, 0, side, side) for side in sides], np.int32)
    return task, opencv.canvases(encoded, boxes, flips, task.canvas_px).pixels, geometry, keys


def _changed(cpu: TaskBatch, other: TaskBatch) -> float:
    """Return the largest share of values that differ, over all targets and the weight; real numbers by over 1e-4."""
    tensors = [(cpu.weight, other.weight), *((cpu.target[name], other.target[name]) for name in cpu.target)]
    return max(float(((one.double() - two.double()).abs() > 1e-4).double().mean()) for one, two in tensors)


def check_flow(device: torch.device) -> Comparison:
    """Measure the error of the flow unit on a pan of known direction and length."""
    from pipelines.decode.dali_flow import HardwareFlow

    # A still picture seen through a moving window: every pixel has the same, known flow.
    wide = made_picture(5, 260, 420)
    frames = np.stack([wide[2 * t : 2 * t + 240, 3 * t : 3 * t + 320] for t in range(5)])
    flow = HardwareFlow(device=device).clip_flow(torch.from_numpy(frames)[None].to(device))
    # Without the border, where content leaves the view and has no match.
    error = (flow[0, :, 40:-40, 40:-40] - torch.tensor(PAN_XY, device=device)).norm(dim=-1).median()
    return Comparison(name="flow of a pan, median error", unit="px", found=float(error), allowed=0.5)


def pixel_arithmetic(device: torch.device, sizes: Sizes) -> dict[str, Callable[[], torch.Tensor]]:
    """Return what tasks do pixel by pixel in dozens of calls, each on a batch: lightness, of colorization, and jitter,
    of exemplar. `torch.compile` can make one call of them. Nothing else moves as many bytes again and again."""
    generator = torch.Generator().manual_seed(0)
    side, task = sizes.canvas.canvas_px, Exemplar(ExemplarConfig(), sizes.canvas)
    geometry = stack_geometry([task.draw(rng_for(0, 0, str(row), task.name)) for row in range(sizes.batch_size)])
    views = {name: geometry[name].reshape(-1, *geometry[name].shape[2:]) for name in DRAWN}
    canvases = torch.randint(256, (sizes.batch_size, side, side, 3), dtype=torch.uint8, generator=generator)
    patches = torch.rand((len(views["power"]), task.patch_px, task.patch_px, 3), generator=generator)
    canvases, patches = canvases.to(device), patches.to(device)
    return {"lightness": lambda: lightness(canvases), "exemplar's jitter": lambda: jitter_hsv_torch(patches, views)}


def check_restarts(shards: Path, device: torch.device, sizes: Sizes) -> Comparison:
    """Compare batches after a restart at every one of the first steps with those of one unbroken run, by hash."""
    config = pipeline_config(shards, sizes, {name: {} for name in TASKS}, backend="dali")
    with build_pipeline(config, seed=0, device=device) as pipeline:
        positions, unbroken = [], []
        for _ in range(NUM_STEPS):
            positions.append(pipeline.position())
            unbroken.append({name: digest(batch) for name, batch in next(pipeline).batches.items()})
    num_different = 0
    for position, expected in zip(positions, unbroken, strict=True):
        # A new pipeline for each: one that was only set back would still have its targets cached.
        with build_pipeline(config, seed=0, device=device) as pipeline:
            pipeline.restore(position)
            found = {name: digest(batch) for name, batch in next(pipeline).batches.items()}
        num_different += sum(found[name] != expected[name] for name in expected)
    return Comparison(
        name=f"batches that differ after {NUM_STEPS} restarts", unit="batches", found=num_different, allowed=0
    )


def pipeline_config(
    shards: Path, sizes: Sizes, tasks: Mapping[str, Mapping[str, object]], *, backend: str
) -> PipelineConfig:
    """Return the config of a pipeline of these tasks at these sizes."""
    options = {
        "images": shards,
        "clips": shards,
        "tasks": tasks,
        "backend": backend,
        "batch_size": sizes.batch_size,
        "clip_batch_size": sizes.clip_batch_size,
        "canvas_px": sizes.canvas.canvas_px,
        "clip_height_px": sizes.canvas.clip_height_px,
        "clip_width_px": sizes.canvas.clip_width_px,
        "num_frames": sizes.canvas.num_frames,
    }
    return PipelineConfig.model_validate(options)


def digest(batch: TaskBatch) -> str:
    """Return one sha256 over the tensors of a batch and their names."""
    hashed = hashlib.sha256()
    for name, tensor in {"inputs": batch.inputs, "weight": batch.weight, **batch.target}.items():
        hashed.update(name.encode())
        hashed.update(tensor.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
