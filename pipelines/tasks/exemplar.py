"""Exemplar: two views of one patch belong together, a patch of another image does not. After Dosovitskiy et al. 2014.

Of a canvas one square is chosen; each view of it is moved, turned and scaled in a single interpolation, then its
colors are changed: contrast along the principal components of its own pixels, then saturation, value and hue.
Ranges are those of Dosovitskiy et al. 2014; factors and powers are log-uniform, so that x and 1/x are equally likely.

Letters: B samples, V = 2 views, N = 2 B views sample-major, P patch side.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field

from pipelines.color import lightness as lightness_of
from pipelines.tasks.base import (
    CanvasSpec,
    Geometry,
    Task,
    TaskBatch,
    TaskConfig,
    TensorSpec,
    check_fits,
    scaled_px,
)

__all__ = ["Exemplar", "ExemplarConfig"]

PAPER_PATCH_PX = 96
NUM_VIEWS = 2
FULL_SHIFT_CHROMA = 1 / 255
Float64s = npt.NDArray[np.float64]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError("need two numbers above 0, the smaller first")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class ExemplarConfig(TaskConfig):
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

    def draw(self, rng: np.random.Generator) -> Geometry:
        """Per view: centre_xy (2, 2) px, scale, rotation_deg, hue_shift (2,), pca_factor (2, 3), and for saturation
        and value power, factor, shift (2, 2). Centres are in pixels from the canvas's corner."""
        config, patch_px = self.config, self.patch_px
        base_xy = rng.uniform(patch_px / 2, self.canvas.canvas_px - patch_px / 2, 2)
        largest_px = config.translation_ratio * patch_px
        return {
            "centre_xy": base_xy + rng.uniform(-largest_px, largest_px, (NUM_VIEWS, 2)),
            "scale": _log_uniform(rng, config.scale, (NUM_VIEWS,)),
            "rotation_deg": rng.uniform(-config.rotation_deg, config.rotation_deg, NUM_VIEWS),
            "pca_factor": _log_uniform(rng, config.pca_factor, (NUM_VIEWS, 3)),
            "power": _log_uniform(rng, config.power, (NUM_VIEWS, 2)),
            "factor": _log_uniform(rng, config.factor, (NUM_VIEWS, 2)),
            "shift": rng.uniform(-config.shift, config.shift, (NUM_VIEWS, 2)),
            "hue_shift": rng.uniform(-config.hue_shift, config.hue_shift, NUM_VIEWS),
        }

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        is_cpu = pixels.device.type == "cpu"
        make_views = self._make_cpu if is_cpu else self._make_device
        views = make_views(pixels, {name: geometry[name].reshape(-1, *geometry[name].shape[2:]) for name in DRAWN})
        if self.lightness:
            levels = views.mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1)
            views = lightness_of(levels.contiguous()).unsqueeze(1).expand(-1, 3, -1, -1)
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
        patches = _warp_opencv(pixels, _inverse_affine(views, self.patch_px), views["scale"], self.patch_px)
        return _jitter_hsv_opencv(_scale_components(patches, views["pca_factor"]), views)

    def _make_device(self, pixels: torch.Tensor, views: Geometry) -> torch.Tensor:
        """The same in batch operations for a GPU. Fewer than 1 value in 1,000 differs by more than 2/255: where the
        two warps round to 8 bits otherwise, a small power magnifies one level in dark and gray places."""
        patches = _warp_torch(pixels, _inverse_affine(views, self.patch_px), views["scale"], self.patch_px)
        return _jitter_hsv_torch(_scale_components(patches, views["pca_factor"]), views)

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        shape = (batch_size, NUM_VIEWS, 3, self.patch_px, self.patch_px)
        return {
            "inputs": TensorSpec(shape=shape, dtype=torch.float32, low=0, high=1),
            "negative": TensorSpec(shape=(batch_size,), dtype=torch.int64, low=0, high=max(batch_size - 1, 0)),
            "weight": TensorSpec(shape=(batch_size,), dtype=torch.float32, low=0, high=1),
        }


DRAWN = ("centre_xy", "scale", "rotation_deg", "pca_factor", "power", "factor", "shift", "hue_shift")


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], shape: tuple[int, ...]) -> Float64s:
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


def _supersampled(affine: Float64s) -> Float64s:
    """The same map for pixel indices of a patch of twice the side."""
    doubled = affine.copy()
    doubled[..., :2] /= 2
    doubled[..., 2] -= affine[..., :2].sum(-1) / 4
    return doubled


def _warp_opencv(pixels: torch.Tensor, affine: Float64s, scale: Float64s, patch_px: int) -> torch.Tensor:
    """uint8 (N, P, P, 3). Views that shrink their content are sampled twice as densely, then averaged."""
    canvases, per_canvas = pixels.numpy(), len(affine) // max(len(pixels), 1)
    out = np.empty((len(affine), patch_px, patch_px, 3), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    doubled = _supersampled(affine)
    for n in range(len(affine)):
        factor, matrix = (2, doubled[n]) if scale[n] > 1 else (1, affine[n])
        size = (factor * patch_px, factor * patch_px)
        canvas = canvases[n // per_canvas]
        patch = cv2.warpAffine(canvas, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        out[n] = cv2.resize(patch, (patch_px, patch_px), interpolation=cv2.INTER_AREA) if factor == 2 else patch
    return torch.from_numpy(out)


def _warp_torch(pixels: torch.Tensor, affine: Float64s, scale: Float64s, patch_px: int) -> torch.Tensor:
    per_canvas = len(affine) // max(len(pixels), 1)
    canvases = pixels.permute(0, 3, 1, 2).float()
    out = torch.empty((len(affine), patch_px, patch_px, 3), dtype=torch.uint8, device=pixels.device)
    doubled = _supersampled(affine)
    for factor, matrices, rows in ((1, affine, scale <= 1), (2, doubled, scale > 1)):
        index = torch.from_numpy(np.flatnonzero(rows)).to(pixels.device)
        if len(index):
            grid = _grid(matrices[rows], factor * patch_px, pixels.shape[1], pixels.shape[2]).to(pixels.device)
            sampled = F.grid_sample(
                canvases[index // per_canvas], grid, mode="bilinear", padding_mode="reflection", align_corners=True
            ).round_()
            # Halves up, as in OpenCV's mean of four: to even would change 7 % of the values by a level.
            out[index] = F.avg_pool2d(sampled, factor).add_(0.5).floor_().to(torch.uint8).permute(0, 2, 3, 1)
    return out


def _grid(affine: Float64s, side_px: int, height_px: int, width_px: int) -> torch.Tensor:
    """Sampling positions for grid_sample, float32 (N, side, side, 2), -1 and 1 at the centres of border pixels."""
    index = torch.arange(side_px, dtype=torch.float64)
    x, y = torch.meshgrid(index, index, indexing="xy")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    source = torch.einsum("hwk,njk->nhwj", points, torch.from_numpy(affine))
    return (source * 2 / torch.tensor([width_px - 1, height_px - 1]) - 1).float()


def _scale_components(patches: torch.Tensor, factor: Float64s) -> torch.Tensor:
    """float32 (N, P, P, 3) in [0, 1]: colors' distance from their mean scaled along the patch's own components.

    factor (N, 3): for the components from the smallest variance to the largest.
    """
    colors = patches.flatten(1, 2).float().div_(255)
    mean = colors.mean(1, keepdim=True)
    colors -= mean
    _, components = torch.linalg.eigh(colors.transpose(1, 2) @ colors)
    factors = torch.from_numpy(factor).to(components)
    matrix = components * factors.unsqueeze(1) @ components.transpose(1, 2)
    return torch.baddbmm(mean, colors, matrix).clamp_(0, 1).view(patches.shape)


def _jitter_hsv_opencv(rgb: torch.Tensor, views: Geometry) -> torch.Tensor:
    """float32 (N, 3, P, P) of (N, P, P, 3): power, factor and shift on saturation and value, turn of the hue."""
    num_views, side = rgb.shape[:2]
    hsv = torch.from_numpy(cv2.cvtColor(rgb.view(-1, side, 3).numpy(), cv2.COLOR_RGB2HSV)).view_as(rgb)
    hue, saturation, value = hsv.view(num_views, -1, 3).unbind(-1)
    # The vector code of OpenCV 5 turns a negative hue into a wrong color without a word.
    hue_deg = (hue + _column(views["hue_shift"] * 360, hue)).remainder_(360)
    saturation, value = _jitter_saturation_value(saturation, value, views)
    changed = torch.stack([hue_deg, saturation, value], dim=-1).view(-1, side, 3)
    out = torch.from_numpy(cv2.cvtColor(changed.numpy(), cv2.COLOR_HSV2RGB))
    return out.view_as(rgb).permute(0, 3, 1, 2).contiguous().clamp_(0, 1)


def _jitter_hsv_torch(rgb: torch.Tensor, views: Geometry) -> torch.Tensor:
    colors = rgb.flatten(1, 2)
    value, brightest = colors.max(-1)
    chroma = value - colors.amin(-1)
    r, g, b = colors.unbind(-1)
    safe = chroma.clamp_min(1e-12)
    sixths = torch.stack([(g - b) / safe, (b - r) / safe + 2, (r - g) / safe + 4], -1)
    hue = sixths.gather(-1, brightest.unsqueeze(-1)).squeeze(-1) + _column(views["hue_shift"] * 6, value)
    saturation, value = _jitter_saturation_value(chroma / value.clamp_min(1e-12), value, views)
    planes = []
    for offset in (5, 3, 1):
        k = (hue + offset).remainder(6)
        planes.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(planes, 1).clamp_(0, 1).view(len(rgb), 3, *rgb.shape[1:3])


def _jitter_saturation_value(
    saturation: torch.Tensor, value: torch.Tensor, views: Geometry
) -> tuple[torch.Tensor, torch.Tensor]:
    power, factor, shift = (views[name] for name in ("power", "factor", "shift"))
    changed = []
    for which, channel in enumerate((saturation, value)):
        exponent, scale, offset = (_column(numbers[:, which], channel) for numbers in (power, factor, shift))
        changed.append((channel.pow(exponent) * scale + offset).clamp_(0, 1))
    # The hue of a gray pixel is rounding noise; saturation added to it would show as colored grain.
    changed[0] *= (saturation * value / FULL_SHIFT_CHROMA).clamp_max(1)
    return changed[0], changed[1]


def _column(numbers: Float64s, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(numbers).to(like).unsqueeze(1)
