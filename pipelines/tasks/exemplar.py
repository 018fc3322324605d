"""Exemplar: two views of one patch belong together, a patch of another image does not. After Dosovitskiy et al. 2014.

Of a canvas one square is chosen; each view of it is moved, turned and scaled in a single interpolation, then its
colors are changed: contrast along the principal components of its own pixels, then saturation, value and hue.
Ranges are those of Dosovitskiy et al. 2014; factors and powers are log-uniform, so that x and 1/x are equally likely.

Letters: B samples, V = 2 views, N = 2 B views sample-major, P patch side.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field

from pipelines.color import lightness as lightness_of
from pipelines.guards import PatchGuards, recompressed, standardized
from pipelines.recycler import Recycler
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
from pipelines.view_colors import jitter_hsv_torch, recolored_cpu, scale_components

__all__ = ["Exemplar", "ExemplarConfig"]

PAPER_PATCH_PX = 96
NUM_VIEWS = 2
LARGEST_VARIANCE = 0.5
"""Of three weights, in square pixels: 1/4, 1/2, 1/4."""
UInt8s = npt.NDArray[np.uint8]
Float64s = npt.NDArray[np.float64]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError("need two numbers above 0, the smaller first")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class ExemplarConfig(PatchGuards, TaskConfig):
    """What a view may differ in. Wider ranges make the task harder and features more invariant."""

    patch_px: int | None = Field(default=None, ge=2)
    """Side of a view; left out, the paper's 96 on 256 px, scaled with the canvas. Cost grows with its square."""
    translation_ratio: float = Field(default=0.2, ge=0, le=1)
    """Largest shift on each axis as a share of the patch side."""
    scale: Range = (0.7, 1.4)
    """Side of the square cut from the canvas as a multiple of the patch side; above 1 the content gets smaller."""
    rotation_deg: float = Field(default=20.0, ge=0, le=180)
    """Largest rotation either way."""
    pca_factor: Range = (0.5, 2.0)
    """Contrast along each of the three principal components of the patch's colors."""
    power: Range = (0.25, 4.0)
    """Power of saturation and, drawn on its own, of value. 4 leaves about 2 % of views almost black."""
    factor: Range = (0.7, 1.4)
    """Multiplies saturation and, drawn on its own, value, after the power."""
    shift: float = Field(default=0.1, ge=0, le=1)
    """Largest number added to saturation and, drawn on its own, to value, last."""
    hue_shift: float = Field(default=0.1, ge=0, le=0.5)
    """Largest turn of the hue either way; 1 is the full circle."""


class Exemplar(Task):
    """inputs (B, 2, 3, P, P), anchor and positive; target "negative" int64 (B,).

    `negative` is the row whose anchor is the negative: the first following row (cyclic) of another image. Where the
    whole batch is one image there is none: then it is the row itself, with weight 0.
    """

    name: ClassVar[str] = "exemplar"
    source: ClassVar[Literal["image", "clip"]] = "image"
    config_class: ClassVar[type[TaskConfig]] = ExemplarConfig
    min_batch_size: ClassVar[int] = 2
    config: ExemplarConfig

    def __init__(self, config: TaskConfig, canvas: CanvasSpec, *, lightness: bool = False) -> None:
        super().__init__(config, canvas, lightness=lightness)
        self.patch_px = self.config.patch_px or scaled_px(PAPER_PATCH_PX, canvas.canvas_px)
        check_fits(self.name, self.patch_px, canvas.canvas_px, "Lower patch_px or raise canvas_px.")

    def draw(self, rng: Rng) -> Geometry:
        """Per view: centre_xy (2, 2) px, scale, rotation_deg, hue_shift (2,), pca_factor (2, 3), and for saturation
        and value power, factor, shift (2, 2); last jpeg_quality (2,), if asked for. Centres are in pixels from the
        canvas's corner."""
        config, patch_px = self.config, self.patch_px
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
        is_cpu = pixels.device.type == "cpu"
        make_views = self._make_cpu if is_cpu else self._make_device
        views = make_views(pixels, {name: geometry[name].reshape(-1, *geometry[name].shape[2:]) for name in DRAWN})
        if self.lightness or self.config.jpeg_quality:
            levels = views.mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
            saved = recompressed(levels, geometry.get("jpeg_quality"))
            views = lightness_of(saved).unsqueeze(1) if self.lightness else saved.permute(0, 3, 1, 2).float().div_(255)
        views = (standardized(views) if self.config.standardize else views).expand(-1, 3, -1, -1)
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
        """float32 (N, 3, P, P); `views` is the geometry with leading axis N."""
        affine, memory = _inverse_affine(views, self.patch_px), self.memory
        patches = _warp_opencv(pixels.numpy(), affine, views["scale"], self.patch_px, memory)
        # Channels last in memory, as trunks read them.
        return torch.from_numpy(recolored_cpu(patches, views, memory)).permute(0, 3, 1, 2)

    def _make_device(self, pixels: torch.Tensor, views: Geometry) -> torch.Tensor:
        """The same in batch operations for a GPU. Fewer than 1 value in 1,000 differs by more than 2/255: where the
        two warps round to 8 bits otherwise, a small power magnifies one level in dark and gray places."""
        patches = _warp_torch(pixels, _inverse_affine(views, self.patch_px), views["scale"], self.patch_px)
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
    low, high = np.log(bounds)
    return np.exp(rng.uniform(float(low), float(high), shape))


def _negatives(keys: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Row of the first following other key, and 1 where there is one. A batch across epochs may hold a key twice."""
    count = len(keys)
    negative = np.arange(count)
    for row, key in enumerate(keys):
        following = ((row + step) % count for step in range(1, count))
        negative[row] = next((other for other in following if keys[other] != key), row)
    return negative, (negative != np.arange(count)).astype(np.float32)


def _inverse_affine(views: Geometry, patch_px: int) -> Float64s:
    """(N, 2, 3): canvas pixel index (x, y) of a patch pixel index (x, y, 1); pixel 0 has its centre at 0."""
    angle, scale = np.deg2rad(views["rotation_deg"]), views["scale"]
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    middle = (patch_px - 1) / 2
    start_xy = views["centre_xy"] - 0.5 - middle * turn.sum(-1)
    return np.concatenate([turn, start_xy[..., None]], axis=-1)


def _smoothing(scale: float) -> Float64s:
    """Weights, an odd number of them, with which the canvas is smoothed before a view is sampled from it.

    Sampling between pixels blurs like a triangle of variance 1/6; content that gets smaller by `scale` needs
    scale² / 6. Weights are whole 256ths, which is how OpenCV smooths 8-bit pixels.
    """
    missing = max(scale**2 - 1, 0) / 6
    num_passes = math.ceil(missing / LARGEST_VARIANCE)
    return _binomial(num_passes, round(128 * missing / max(num_passes, 1)))


@lru_cache(maxsize=1024)
def _binomial(num_passes: int, side: int) -> Float64s:
    """`num_passes` times (side, 256 - 2 side, side) / 256, in whole 256ths of sum 1."""
    weights = np.ones(1)
    for _ in range(num_passes if side else 0):
        weights = np.convolve(weights, np.array([side, 256 - 2 * side, side]) / 256)
    weights = np.rint(256 * weights) / 256
    weights[len(weights) // 2] += 1 - weights.sum()
    return weights


def _warp_opencv(canvases: UInt8s, affine: Float64s, scale: Float64s, patch_px: int, memory: Recycler) -> UInt8s:
    """Opaque RGBA (N, P, P, 4) of RGB canvases (B, S, S, 3): four channels are warped in half the time of three."""
    height_px, width_px = canvases.shape[1:3]
    weights = [_smoothing(one) for one in scale.tolist()]
    radius = np.array([len(one) // 2 for one in weights])
    parts = _sampled_parts(affine, patch_px, (height_px, width_px), radius)
    moved, per_canvas = affine.copy(), len(affine) // max(len(canvases), 1)
    moved[..., 2] -= parts[:, :2]
    smooth, wide = (memory.empty((height_px * width_px * channels,), np.uint8) for channels in (3, 4))
    out: UInt8s = memory.empty((len(affine), patch_px, patch_px, 4), np.uint8)
    flags, mirrored = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT_101
    for n, (x0, y0, x1, y1) in enumerate(parts.tolist()):
        part = canvases[n // per_canvas, y0:y1, x0:x1]
        if len(weights[n]) > 1:
            sharp, part = part, smooth[: part.size].reshape(part.shape)
            cv2.sepFilter2D(sharp, -1, weights[n], weights[n], dst=part, borderType=mirrored)
        rgba = wide[: part.size // 3 * 4].reshape(*part.shape[:2], 4)
        cv2.cvtColor(part, cv2.COLOR_RGB2RGBA, dst=rgba)
        cv2.warpAffine(rgba, moved[n], (patch_px, patch_px), dst=out[n], flags=flags, borderMode=mirrored)
    return out


def _sampled_parts(
    affine: Float64s, patch_px: int, size_hw: tuple[int, int], radius_N: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """x0, y0, x1, y1 (N, 4), end excluded, of the part of the canvas that a view reads and `radius_N` around it. Where
    the view goes over a border, the part reaches from there as far as is mirrored."""
    last = patch_px - 1
    xy = affine @ np.array([(0, 0, 1), (0, last, 1), (last, 0, 1), (last, last, 1)]).T
    low, high = np.floor(xy.min(-1)).astype(np.int64), np.floor(xy.max(-1)).astype(np.int64) + 2
    size_xy, radius = np.array(size_hw[::-1]), radius_N[:, None]
    # Pixel -i shows pixel i, and i pixels after the last one is what is i before it.
    start = np.where(low < 0, 0, np.minimum(low, 2 * size_xy - 1 - np.maximum(high, size_xy)))
    end = np.where(high > size_xy, size_xy, np.maximum(high, 1 - np.minimum(low, 0)))
    # What is more than a canvas beyond the border is mirrored twice; then it is the whole side.
    is_once = (start >= 0) & (end <= size_xy)
    start = np.where(is_once, np.maximum(start - radius, 0), 0)
    return np.concatenate([start, np.where(is_once, np.minimum(end + radius, size_xy), size_xy)], axis=1)


def _warp_torch(pixels: torch.Tensor, affine: Float64s, scale: Float64s, patch_px: int) -> torch.Tensor:
    per_canvas = len(affine) // max(len(pixels), 1)
    canvases = pixels.permute(0, 3, 1, 2).float().repeat_interleave(per_canvas, 0)
    smooth = _smoothed_torch(canvases, [_smoothing(one) for one in scale.tolist()])
    grid = _grid(torch.from_numpy(affine).to(pixels.device), patch_px, pixels.shape[1], pixels.shape[2])
    sampled = F.grid_sample(smooth, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return sampled.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _smoothed_torch(canvases: torch.Tensor, weights: Sequence[Float64s]) -> torch.Tensor:
    """float32 (N, 3, S, S) of whole levels, each smoothed with its own weights along both axes."""
    num_views, channels = canvases.shape[:2]
    radius = max(len(one) for one in weights) // 2
    padded = np.zeros((num_views, 2 * radius + 1))
    for row, one in zip(padded, weights, strict=True):
        row[radius - len(one) // 2 : radius + len(one) // 2 + 1] = one
    kernel = torch.from_numpy(padded).to(canvases).repeat_interleave(channels, 0)[:, None, None]
    planes = F.pad(canvases.flatten(0, 1)[None], (radius,) * 4, mode="reflect")
    rows = F.conv2d(planes, kernel, groups=num_views * channels)
    columns = F.conv2d(rows, kernel.transpose(2, 3), groups=num_views * channels)
    # Halves up, as OpenCV rounds its integers.
    return columns.add_(0.5).floor_().view(canvases.shape)


def _grid(affine: torch.Tensor, side_px: int, height_px: int, width_px: int) -> torch.Tensor:
    """Sampling positions for grid_sample, float32 (N, side, side, 2), -1 and 1 at the centres of border pixels.

    affine: float64 (N, 2, 3), on whose device they are computed, there being many of them.
    """
    index = torch.arange(side_px, dtype=torch.float64, device=affine.device)
    x, y = torch.meshgrid(index, index, indexing="xy")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    source = torch.einsum("hwk,njk->nhwj", points, affine)
    return (source * 2 / source.new_tensor([width_px - 1, height_px - 1]) - 1).float()
