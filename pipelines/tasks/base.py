"""What a pretext task is: it draws geometry before any pixel exists, then turns uint8 pixels into inputs and targets.

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
from pipelines.base.config import Config
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


class TaskConfig(Config):
    """Options every task has."""

    task_weight: float = Field(default=1.0, gt=0.0, le=1.0)
    """Chance that the task is active at a step; 1 means every step. Lower saves its compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasSpec:
    """Sizes of the pixels a task gets."""

    canvas_px: int = PAPER_CANVAS_PX
    """Side of the square image canvas. Cost grows with its square."""
    clip_height_px: int = 240
    clip_width_px: int = 320
    num_frames: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Promise about one tensor of a batch; `low` and `high` are inclusive bounds of its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskBatch:
    """Stacked examples of one task.

    inputs: float32 [0, 1], (R, 3, H, W) or (R, V, 3, H, W). target: tensors by name, first axis R.
    weight: float32, (R,) or (R, h, w); 0 means "do not learn from this". keys: the B samples.
    geometry: every random parameter, for audit, with leading axis B; and "verdict" (B,), where a task may find that a
    sample has no target: 0 for those that have one.
    """

    task: str
    inputs: torch.Tensor
    target: dict[str, torch.Tensor]
    weight: torch.Tensor
    keys: tuple[str, ...]
    geometry: Geometry = field(default_factory=dict)

    def __repr__(self) -> str:
        target = ", ".join(f"{name}={tuple(value.shape)}" for name, value in self.target.items())
        dtype = str(self.inputs.dtype).removeprefix("torch.")
        return f"TaskBatch({self.task}, inputs={tuple(self.inputs.shape)} {dtype}, {target}, keys={len(self.keys)})"

    @property
    def num_left_out(self) -> int:
        """Samples without a target."""
        return int(np.count_nonzero(self.geometry.get("verdict", 0)))

    def to(self, device: torch.device | str) -> "TaskBatch":
        """The same batch with its tensors on `device`."""
        target = {name: _moved(value, device) for name, value in self.target.items()}
        return replace(self, inputs=_moved(self.inputs, device), target=target, weight=_moved(self.weight, device))


def one_of_equal_planes(tensor: torch.Tensor) -> torch.Tensor:
    """The part of an expanded tensor that is all of it in memory; `expand(tensor.shape)` makes the whole of it."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1 and stride == 0:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def _moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """On `device`; what is one plane seen three times (lightness) is copied once and stays so there."""
    # To the host it must be waited for: what is read there too early is not there yet.
    moved = one_of_equal_planes(tensor).to(device, non_blocking=torch.device(device).type != "cpu")
    return moved.expand(tensor.shape)


class Task(ABC):
    """One pretext task. Subclasses set the class variables, `draw`, `make` and `spec`."""

    name: ClassVar[str]
    source: ClassVar[Literal["image", "clip"]]
    config_class: ClassVar[type[TaskConfig]]
    min_batch_size: ClassVar[int] = 1
    """Different samples a batch must hold; 2 where a task compares images with each other."""

    def __init__(self, config: TaskConfig, canvas: CanvasSpec, *, lightness: bool = False) -> None:
        """`lightness`: harmonized input, L of Lab replicated three times instead of the task's own style."""
        self.config = config
        self.canvas = canvas
        self.lightness = lightness
        self.memory = BufferPool()
        """For arrays of a batch made on the CPU."""
        self.num_threads = 0
        """That may be at work on one batch; 0 means as many as there are cores."""
        self.targets: TargetCache | None = None
        """Set by tasks of clips whose target follows from the clip alone; the pipeline then calls `make_cached`."""

    @property
    def examples_per_sample(self) -> int:
        return 1

    @abstractmethod
    def draw(self, rng: Rng) -> Geometry:
        """All random numbers of one sample, as arrays of fixed shape and dtype. May be {}.

        The pipeline passes a `BatchRng`: then every array has a leading axis B, so count axes from the end.
        """

    @abstractmethod
    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        """Inputs and targets from uint8 pixels (see module docstring) and stacked geometry, on the pixels' device.

        `geometry` also holds what the pipeline adds for every image sample: "label", int64 (B,), -1 for none.
        """

    def make_cached(
        self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str], known: CachedTargets
    ) -> TaskBatch:
        """The batch that `make` would give. Where a target is known, only the colors of the first frame are there."""
        return self.make(pixels, geometry, keys)

    @abstractmethod
    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        """Shape, dtype and range of "inputs", "weight" and every target for `batch_size` samples."""


def stack_geometry(drawn: Sequence[Geometry]) -> Geometry:
    """Per-sample geometry stacked along a new first axis B."""
    return {name: np.stack([one[name] for one in drawn]) for name in drawn[0]} if drawn else {}


def scaled_px(px_at_256: float, canvas_px: int) -> int:
    """A length of the paper's 256 px canvas on a canvas of another size, rounded to a pixel."""
    return round(px_at_256 * canvas_px / PAPER_CANVAS_PX)


def check_fits(task: str, needed_px: int, canvas_px: int, fix: str) -> None:
    """Raise UsageError if a task's layout is larger than the canvas."""
    if needed_px > canvas_px:
        raise UsageError(f"tasks.{task}: needs a canvas of at least {needed_px} px, canvas_px is {canvas_px}. {fix}")
