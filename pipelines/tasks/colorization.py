"""Colorization: predict the color of every 8 x 8 block from lightness, as one of 313 ab bins.

Cut: nothing; the input is the whole canvas as lightness, L of Lab three times.
Drawn: nothing beyond the crop and flip that all image tasks share.
Target: the 5 nearest ab bins of each block's color with Gaussian weights; rare colors weigh more in the loss.
Shortcuts: gray images have weight 0, else "no color" would be a safe answer.
Source: Zhang et al. 2016, as in the multi-task paper (Doersch & Zisserman 2017, section 3).

Letters: B samples, S canvas side, h w = S / 8, K neighbours of the soft target (1 when hard).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field

from pipelines.base.errors import UsageError
from pipelines.targets.color.color_prior import class_rebalancing, load_prior
from pipelines.targets.color.lab import NUM_BINS, ab_at_stride, has_color, lightness
from pipelines.targets.color.soft_encoding import soft_encode
from pipelines.tasks.base import CanvasSpec, Geometry, Rng, Task, TaskBatch, TaskConfig, TensorSpec

__all__ = ["Colorization", "ColorizationConfig"]

STRIDE_PX = 8


class ColorizationConfig(TaskConfig):
    """Options of colorization. Defaults follow Zhang et al. 2016, as the multi-task paper does."""

    target: Literal["soft", "hard"] = "soft"
    """soft: the nearest bins with Gaussian weights; hard: the nearest bin alone."""
    num_neighbors: int = Field(default=5, ge=1, le=32)
    """Bins of a soft target: 5 in the 2016 paper, 10 in its released code. Cost of the loss grows with it."""
    sigma: float = Field(default=5.0, gt=0)
    """Spread of a soft target in units of ab. Larger blurs the target over more bins."""
    rebalance: bool = True
    """Give rare colors more weight. Has no effect until colors are counted: fourfold shards stats."""
    prior: Path | None = None
    """Folder of shards whose counted colors rebalance the loss. The pipeline fills it in if there are any."""
    uniform_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the uniform distribution mixed into the counted one: 1 is no rebalancing, near 0 rare bins dominate."""
    mask_gray: bool = True
    """Give images without color (no |a| or |b| above 5) weight 0, as the 2016 code does."""


class Colorization(Task):
    """Task with inputs (B, 3, S, S): L / 100 in [0, 1], three times (a view of one plane).

    target: "bins" int64 (B, K, h, w), nearest first, and "bin_weights" float32 (B, K, h, w), sum 1 over K.
    weight (B, h, w): rebalancing weight of the nearest bin (1 without a prior), 0 in gray images.
    """

    name: ClassVar[str] = "colorization"
    source: ClassVar[Literal["image", "clip"]] = "image"
    config_class: ClassVar[type[TaskConfig]] = ColorizationConfig
    config: ColorizationConfig

    def __init__(self, config: TaskConfig, canvas: CanvasSpec, *, lightness: bool = False) -> None:
        super().__init__(config, canvas, lightness=lightness)
        if canvas.canvas_px % STRIDE_PX:
            raise UsageError(
                f"tasks.colorization: canvas_px = {canvas.canvas_px}; need a multiple of {STRIDE_PX}, "
                f"for example {round(canvas.canvas_px / STRIDE_PX) * STRIDE_PX or STRIDE_PX}."
            )
        self._bin_weight = self._load_bin_weight()

    @property
    def num_neighbors(self) -> int:
        """Bins per block, K: 1 for hard targets."""
        return self.config.num_neighbors if self.config.target == "soft" else 1

    def _load_bin_weight(self) -> torch.Tensor:
        """Return the weight of a block by its nearest bin: float32 (313,). Raises UsageError without counted colors."""
        if not self.config.rebalance or self.config.prior is None:
            return torch.ones(NUM_BINS)
        # Read once, here: a missing count must stop a run before its first step.
        prior = load_prior(self.config.prior)
        if prior is None:
            raise UsageError(
                f"tasks.colorization.prior = {self.config.prior}: its colors are not counted. "
                f"Run: fourfold shards stats {self.config.prior}"
            )
        return torch.from_numpy(class_rebalancing(prior, uniform_share=self.config.uniform_share))

    def draw(self, rng: Rng) -> Geometry:
        return {}

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        # Lightness of every pixel, but color of every 8 x 8 block: the target is 1/64 of the work.
        light, ab = lightness(pixels, self.memory), ab_at_stride(pixels, STRIDE_PX)
        # Nearest bin first: the weight of a block goes by it, and a hard target is that bin alone.
        bins, bin_weights = soft_encode(ab, self.num_neighbors, self.config.sigma)
        return TaskBatch(
            task=self.name,
            # Three times, since trunks take three channels; as a view, it is in memory once.
            inputs=light.unsqueeze(1).expand(-1, 3, -1, -1),
            target={
                "bins": self.memory.contiguous(bins.permute(0, 3, 1, 2)),
                "bin_weights": self.memory.contiguous(bin_weights.permute(0, 3, 1, 2)),
            },
            weight=self._weight(ab, bins[..., 0]),
            keys=tuple(keys),
            geometry=geometry,
        )

    def _weight(self, ab: torch.Tensor, nearest: torch.Tensor) -> torch.Tensor:
        # Moved at the first batch and kept: the task does not know its device before.
        self._bin_weight = self._bin_weight.to(ab.device)
        # Indexing by a map of indices takes four times as long.
        weight = self._bin_weight.index_select(0, nearest.reshape(-1)).view(nearest.shape)
        # All blocks of a gray image fall into the bins around (0, 0). With full weight they would teach that gray is
        # safe.
        if self.config.mask_gray:
            weight = weight * has_color(ab).view(-1, 1, 1)
        return weight

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        side, cells = self.canvas.canvas_px, self.canvas.canvas_px // STRIDE_PX
        target = (batch_size, self.num_neighbors, cells, cells)
        # Rare bins weigh more than 1, so the bound is that of the rarest one.
        heaviest = float(self._bin_weight.max())
        return {
            "inputs": TensorSpec(shape=(batch_size, 3, side, side), dtype=torch.float32, low=0, high=1),
            "bins": TensorSpec(shape=target, dtype=torch.int64, low=0, high=NUM_BINS - 1),
            "bin_weights": TensorSpec(shape=target, dtype=torch.float32, low=0, high=1),
            "weight": TensorSpec(shape=(batch_size, cells, cells), dtype=torch.float32, low=0, high=heaviest),
        }
