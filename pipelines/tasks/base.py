"""Base class of pretext tasks: draw geometry before any pixel exists, then turn uint8 pixels into inputs and targets.

Letters: B samples, R examples (rows; R = B * examples_per_sample, sample-major), V patches of one example,
T frames, C channels, H W height and width, h w height and width of the target map.

Pixels come in as uint8 RGB, channels last: canvases (B, H, W, 3) or clips (B, T, H, W, 3), on the CPU or a GPU.
Inputs go out as float32 RGB in [0, 1], channels first: (R, 3, H, W), or (R, V, 3, H, W) for patch tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from pipelines.base.batch_rng import BatchRng, Geometry
from pipelines.base.buffer_pool import BufferPool
from pipelines.base.config import GrownConfig
from pipelines.base.errors import UsageError
from pipelines.tasks.target_cache import CachedTargets, TargetCache

__all__ = [
    "CanvasSpec",
    "Geometry",
    "Rng",
    "Task",
    "TaskBatch",
    "TaskConfig",
    "TensorSpec",
    "one_of_equal_planes",
    "scaled_px",
    "stack_geometry",
]

Rng = np.random.Generator | BatchRng

PAPER_CANVAS_PX = 256


class TaskConfig(GrownConfig):
    """Options of every task."""

    later_options = frozenset({"every", "batch_size", "lr_scale", "accumulate"})

    task_weight: float = Field(default=1.0, gt=0.0, le=1.0)
    """Probability that the task is active at a step; 1 means every step. Lower saves its compute."""
    every: int = Field(default=1, ge=1)
    """The task is active at every so manieth step only: at 0, N, 2 N, ... Larger saves its compute."""
    batch_size: int | None = Field(default=None, ge=1)
    """Samples that the task takes of each batch of its source, over all ranks: evenly spaced ones, the same on any
    number of ranks. Default: all. Fewer saves the task's compute; the batch is decoded all the same."""
    lr_scale: float = Field(default=1.0, gt=0.0)
    """Training: the task's learning rate as a multiple of `optimizer.lr`, in its head and in the trunk."""
    accumulate: int = Field(default=1, ge=1)
    """Training: batches whose gradients are averaged for one update. Steadier, and fewer updates for the same compute.
    More than 1 costs a copy of the trunk's and the head's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasSpec:
    """Sizes of the canvases and clips that tasks get."""

    canvas_px: int = PAPER_CANVAS_PX
    """Side of the square image canvas. Cost grows with its square."""
    clip_height_px: int = 240
    clip_width_px: int = 320
    num_frames: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Shape, dtype and inclusive bounds of the values of one tensor of a batch; tests hold batches to it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskBatch:
    """Batch of examples of one task.

    inputs: float32 in [0, 1], (R, 3, H, W) or (R, V, 3, H, W). target: tensors by name, first axis R.
    weight: float32, (R,), (R, K) for K questions about one example, or (R, h, w); 0 leaves an example, a question or a
    cell out of the loss. keys: of the B samples.
    geometry: every random number, for audit, with leading axis B. If a task can fail to find a target, also "verdict"
    (B,): 0 for samples that have one, the reason's number for others. Of targets made on a device the verdicts stay
    there, as `verdict_on_device`, so that nothing waits for them; `to("cpu")` puts them into the geometry.
    """

    task: str
    inputs: torch.Tensor
    target: dict[str, torch.Tensor]
    weight: torch.Tensor
    keys: tuple[str, ...]
    geometry: Geometry = field(default_factory=dict)
    verdict_on_device: torch.Tensor | None = None

    def __repr__(self) -> str:
        target = ", ".join(f"{name}={tuple(value.shape)}" for name, value in self.target.items())
        dtype = str(self.inputs.dtype).removeprefix("torch.")
        return f"TaskBatch({self.task}, inputs={tuple(self.inputs.shape)} {dtype}, {target}, keys={len(self.keys)})"

    @property
    def num_left_out(self) -> int | torch.Tensor:
        """Number of samples without a target; a tensor on the device if only the device knows yet."""
        if self.verdict_on_device is not None:
            return torch.count_nonzero(self.verdict_on_device)
        return int(np.count_nonzero(self.geometry.get("verdict", 0)))

    @property
    def all_tensors(self) -> tuple[torch.Tensor, ...]:
        """Inputs, targets and weight, and verdicts that lie on a device."""
        verdict = () if self.verdict_on_device is None else (self.verdict_on_device,)
        return (self.inputs, *self.target.values(), self.weight, *verdict)

    def to(self, device: torch.device | str) -> "TaskBatch":
        """Return the same batch with its tensors on `device`."""
        # Geometry stays where it is: it is for audit, and no step looks at it.
        target = {name: _moved(value, device) for name, value in self.target.items()}
        moved = replace(self, inputs=_moved(self.inputs, device), target=target, weight=_moved(self.weight, device))
        if self.verdict_on_device is None or torch.device(device).type != "cpu":
            return moved
        verdict = {"verdict": self.verdict_on_device.cpu().numpy()}
        return replace(moved, geometry={**self.geometry, **verdict}, verdict_on_device=None)


def one_of_equal_planes(tensor: torch.Tensor) -> torch.Tensor:
    """Return an expanded tensor without its repeats: `.expand(tensor.shape)` of it gives the tensor back."""
    # A stride of 0 means that all entries along the axis are the same memory.
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1 and stride == 0:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return the tensor on `device`. One plane that is shown three times (lightness) is copied once."""
    # A copy to the host must be waited for: a non-blocking one returns memory that is not filled yet (seen on an H200).
    moved = one_of_equal_planes(tensor).to(device, non_blocking=torch.device(device).type != "cpu")
    return moved.expand(tensor.shape)


class Task(ABC):
    """A pretext task. Subclasses set the class variables and define `draw`, `make` and `spec`."""

    name: ClassVar[str]
    source: ClassVar[Literal["image", "clip"]]
    config_class: ClassVar[type[TaskConfig]]
    min_batch_size: ClassVar[int] = 1
    """Different samples that a batch must hold; 2 for a task that compares images with each other."""

    def __init__(self, config: TaskConfig, canvas: CanvasSpec, *, lightness: bool = False) -> None:
        """`lightness`: harmonize the inputs, so that they are L of Lab three times instead of the task's own colors."""
        self.config = config
        self.canvas = canvas
        self.lightness = lightness
        self.memory = BufferPool()
        """Buffers for batches that are made on the CPU."""
        self.num_threads = 0
        """Threads that may work on one batch; 0 means as many as there are cores."""
        self.targets: TargetCache | None = None
        """Cache of targets, for tasks whose target depends on the clip alone; the pipeline then calls `make_cached`."""

    @property
    def examples_per_sample(self) -> int:
        """Rows of a batch that each sample gives."""
        return 1

    @property
    def canvas_px(self) -> int:
        """Side of the canvases that `make` gets, if it is a task of images; the pipeline's, or one of its own."""
        return self.canvas.canvas_px

    @abstractmethod
    def draw(self, rng: Rng) -> Geometry:
        """Draw all random numbers of a sample, as arrays of fixed shape and dtype by name. May be {}.

        The pipeline passes a `BatchRng`, whose arrays have a leading axis B: count axes from the end.
        """

    @abstractmethod
    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        """Make the batch from uint8 pixels (see module docstring) and stacked geometry, on the pixels' device.

        `geometry` also holds what the pipeline adds, such as "label", int64 (B,), -1 for samples without one. Draws no
        random numbers: those of `draw` are addressed, so that workers and resume cannot change them.
        """

    def make_cached(
        self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str], known: CachedTargets
    ) -> TaskBatch:
        """Make the batch that `make` would, with cached targets; such a clip has only the colors of its first frame."""
        return self.make(pixels, geometry, keys)

    @abstractmethod
    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        """Return shape, dtype and range of "inputs", "weight" and every target for `batch_size` samples."""


def stack_geometry(drawn: Sequence[Geometry]) -> Geometry:
    """Stack the geometry of single samples along a new first axis B."""
    return {name: np.stack([one[name] for one in drawn]) for name in drawn[0]} if drawn else {}


def scaled_px(px_at_256: float, canvas_px: int) -> int:
    """Scale a length on the paper's 256 px canvas to a canvas of another size, rounded to a pixel."""
    return round(px_at_256 * canvas_px / PAPER_CANVAS_PX)


def check_fits(task: str, needed_px: int, canvas_px: int, fix: str) -> None:
    """Raise UsageError if a task's layout is larger than the canvas."""
    if needed_px > canvas_px:
        raise UsageError(f"tasks.{task}: needs a canvas of at least {needed_px} px, canvas_px is {canvas_px}. {fix}")
