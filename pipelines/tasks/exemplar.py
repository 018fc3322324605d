"""Exemplar: embed two views of one patch close together, and a patch of another image far away.

Cut: one square of the canvas, twice, each view moved, turned and scaled in a single interpolation.
Drawn: shift, turn, scale; contrast along the patch's principal color components; saturation, value, hue. Factors and
powers are log-uniform, so that x and 1/x are equally likely.
Target: the row of a patch of another image, the negative of a triplet loss; weight 0 if the batch holds only one image.
Shortcuts: color and position change in each view; `standardize` hides brightness, `jpeg_quality` the file's blocks.
Source: ranges from Dosovitskiy et al. 2014, triplets as in the multi-task paper (Doersch & Zisserman 2017, section 3).

Letters: B samples, V = 2 views, N = 2 B views sample-major, P patch side.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import AfterValidator, Field

from pipelines.targets.color.lab import lightness as lightness_of
from pipelines.targets.views.guards import PatchGuards, recompressed, standardized
from pipelines.targets.views.view_colors import jitter_hsv_torch, recolored_cpu, scale_components
from pipelines.targets.views.view_warp import warped_cpu, warped_torch
from pipelines.tasks.base import (
    CanvasSpec,
    Geometry,
    Rng,
    Task,
    TaskBatch,
    TaskConfig,
    TensorSpec,
    check_fits,
    scaled_px,
)

__all__ = ["DRAWN", "Exemplar", "ExemplarConfig"]

PAPER_PATCH_PX = 96
NUM_VIEWS = 2
Float64s = npt.NDArray[np.float64]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError("need two numbers above 0, the smaller first")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class ExemplarConfig(PatchGuards, TaskConfig):
    """Options of exemplar: how far views may differ. Wider ranges make the task harder and features more invariant."""

    patch_px: int | None = Field(default=None, ge=2)
    """Side of a view in pixels. Default: the paper's 96 on 256 px, scaled with the canvas. Cost grows with its
    square."""
    translation_ratio: float = Field(default=0.2, ge=0, le=1)
    """Largest shift on each axis as a share of the patch side."""
    scale: Range = (0.7, 1.4)
    """Side of the square cut from the canvas as a multiple of the patch side; above 1 the content gets smaller."""
    rotation_deg: float = Field(default=20.0, ge=0, le=180)
    """Largest rotation either way."""
    pca_factor: Range = (0.5, 2.0)
    """Contrast along each of the three principal components of the patch's colors."""
    power: Range = (0.25, 4.0)
    """Power of saturation and, drawn separately, of value. 4 leaves about 2 % of views almost black."""
    factor: Range = (0.7, 1.4)
    """Factor of saturation and, drawn separately, of value, after the power."""
    shift: float = Field(default=0.1, ge=0, le=1)
    """Largest number added to saturation and, drawn separately, to value, after the factor."""
    hue_shift: float = Field(default=0.1, ge=0, le=0.5)
    """Largest turn of the hue either way; 1 is the full circle."""


class Exemplar(Task):
    """Task with inputs (B, 2, 3, P, P), anchor and positive in [0, 1]; target "negative" int64 (B,).

    The anchor of row `negative` is the negative: that of the first following row (cyclic) with another image. If the
    whole batch is one image, it is the row itself, with weight 0.
    """

    name: ClassVar[str] = "exemplar"
    source: ClassVar[Literal["image", "clip"]] = "image"
    config_class: ClassVar[type[TaskConfig]] = ExemplarConfig
    min_batch_size: ClassVar[int] = 2
    config: ExemplarConfig

    def __init__(self, config: TaskConfig, canvas: CanvasSpec, *, lightness: bool = False) -> None:
        super().__init__(config, canvas, lightness=lightness)
        # Scaled with the canvas, so that a patch shows the same part of the picture at every size.
        self.patch_px = self.config.patch_px or scaled_px(PAPER_PATCH_PX, canvas.canvas_px)
        check_fits(self.name, self.patch_px, canvas.canvas_px, "Lower patch_px or raise canvas_px.")

    def draw(self, rng: Rng) -> Geometry:
        """Draw for each view centre_xy (2, 2), scale, rotation_deg, hue_shift (2,), pca_factor (2, 3), and power,
        factor, shift (2, 2) of saturation and value; with that option also jpeg_quality (2,).

        Centres are x, y in pixels from the canvas's corner.
        """
        # The order of the draws is part of the data: another order gives other views for the same seed.
        config, patch_px = self.config, self.patch_px
        # The patch lies inside; its views may not, and are mirrored there.
        base_xy = rng.uniform(patch_px / 2, self.canvas.canvas_px - patch_px / 2, 2)
        largest_px = config.translation_ratio * patch_px
        return {
            "centre_xy": base_xy[..., None, :] + rng.uniform(-largest_px, largest_px, (NUM_VIEWS, 2)),
            "scale": _log_uniform(rng, config.scale, (NUM_VIEWS,)),
            "rotation_deg": rng.uniform(-config.rotation_deg, config.rotation_deg, NUM_VIEWS),
            "pca_factor": _log_uniform(rng, config.pca_factor, (NUM_VIEWS, 3)),
            "power": _log_uniform(rng, config.power, (NUM_VIEWS, 2)),
            "factor": _log_uniform(rng, config.factor, (NUM_VIEWS, 2)),
            "shift": rng.uniform(-config.shift, config.shift, (NUM_VIEWS, 2)),
            "hue_shift": rng.uniform(-config.hue_shift, config.hue_shift, NUM_VIEWS),
            **config.draw(rng, (NUM_VIEWS,)),
        }

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        # 1. Both views of every canvas, moved and recolored.
        is_cpu = pixels.device.type == "cpu"
        make_views = self._make_cpu if is_cpu else self._make_device
        views = make_views(pixels, {name: geometry[name].reshape(-1, *geometry[name].shape[2:]) for name in DRAWN})
        # 2. Lightness and JPEG both work on 8-bit levels, so the views are rounded once for both.
        if self.lightness or self.config.jpeg_quality:
            levels = views.mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
            saved = recompressed(levels, geometry.get("jpeg_quality"))
            views = lightness_of(saved).unsqueeze(1) if self.lightness else saved.permute(0, 3, 1, 2).float().div_(255)
        # 3. Standardize last: every earlier step expects colors in [0, 1] of a real picture.
        views = (standardized(views) if self.config.standardize else views).expand(-1, 3, -1, -1)
        # By row, not by patch: the embedding of another row's anchor is computed anyway.
        negative, has_negative = _negatives(keys)
        return TaskBatch(
            task=self.name,
            inputs=views.reshape(-1, NUM_VIEWS, *views.shape[1:]),
            target={"negative": torch.from_numpy(negative).to(pixels.device)},
            weight=torch.from_numpy(has_negative).to(pixels.device),
            keys=tuple(keys),
            geometry=geometry,
        )

    def _make_cpu(self, pixels: torch.Tensor, views: Geometry) -> torch.Tensor:
        """Make all views in compiled loops: float32 (N, 3, P, P). `views`: geometry with leading axis N."""
        # Shift, turn and scale in one interpolation: two would blur twice, and blur tells a view from a patch.
        affine, memory = _inverse_affine(views, self.patch_px), self.memory
        patches, sums = warped_cpu(pixels.numpy(), affine, views["scale"], self.patch_px, memory)
        # Channels last in memory, the layout in which convolutions of the trunk run fastest.
        return torch.from_numpy(recolored_cpu(patches, sums, views, memory)).permute(0, 3, 1, 2)

    def _make_device(self, pixels: torch.Tensor, views: Geometry) -> torch.Tensor:
        """Make all views in batch operations for a GPU: float32 (N, 3, P, P).

        Fewer than 1 value in 1,000 differs from `_make_cpu` by more than 2/255. Where the two warps round differently,
        a small power magnifies the difference of one level in dark and gray places.
        """
        patches = warped_torch(pixels, _inverse_affine(views, self.patch_px), views["scale"], self.patch_px)
        return jitter_hsv_torch(scale_components(patches, views["pca_factor"]), views)

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        shape = (batch_size, NUM_VIEWS, 3, self.patch_px, self.patch_px)
        return {
            "inputs": TensorSpec(shape=shape, dtype=torch.float32, low=0, high=1),
            "negative": TensorSpec(shape=(batch_size,), dtype=torch.int64, low=0, high=max(batch_size - 1, 0)),
            "weight": TensorSpec(shape=(batch_size,), dtype=torch.float32, low=0, high=1),
        }


DRAWN = ("centre_xy", "scale", "rotation_deg", "pca_factor", "power", "factor", "shift", "hue_shift")


def _log_uniform(rng: Rng, bounds: tuple[float, float], shape: tuple[int, ...]) -> Float64s:
    # Uniform in the logarithm, so that halving is as likely as doubling.
    low, high = np.log(bounds)
    return np.exp(rng.uniform(float(low), float(high), shape))


def _negatives(keys: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the first following row with another key, int64 (B,), and 1 where there is one, float32 (B,)."""
    # Keys, not rows: a batch that spans two epochs may hold an image twice, and a failed row shows its neighbour's
    # image.
    count = len(keys)
    negative = np.arange(count)
    for row, key in enumerate(keys):
        following = ((row + step) % count for step in range(1, count))
        negative[row] = next((other for other in following if keys[other] != key), row)
    return negative, (negative != np.arange(count)).astype(np.float32)


def _inverse_affine(views: Geometry, patch_px: int) -> Float64s:
    """Return the map from patch to canvas, float64 (N, 2, 3).

    It gives the index (x, y) of a canvas pixel from the index (x, y, 1) of a patch pixel. Indices count pixel centres:
    the first pixel is at 0.
    """
    # From patch to canvas, not the other way: a warp asks for every pixel of the result where it comes from.
    angle, scale = np.deg2rad(views["rotation_deg"]), views["scale"]
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    middle = (patch_px - 1) / 2
    # Half a pixel, because centres are drawn from the canvas's corner and indices count from the first pixel's centre.
    start_xy = views["centre_xy"] - 0.5 - middle * turn.sum(-1)
    return np.concatenate([turn, start_xy[..., None]], axis=-1)
