"""Operations that a device path could take from Kornia: ours, Kornia's, and an independent reference of each.

Pictures are uint8 RGB (B, S, S, 3) or float32 planes (B, 3, S, S), levels of 0 to 255.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from kornia.color import hsv_to_rgb, rgb_to_hsv, rgb_to_lab
from kornia.enhance import jpeg_codec_differentiable
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import pyrdown, remap, resize, warp_affine
from scipy.ndimage import map_coordinates

from benchmarks.studies.throughput.made_shards import made_picture
from pipelines.targets.color import lab
from pipelines.targets.motion.device.torch_flow import sampled
from pipelines.targets.views import guards, resampling, view_colors, view_warp

__all__ = ["NUM_SAMPLED", "Part", "parts"]

NUM_SAMPLED = 149
"""Calls of `sampled` for a batch of clips of 240 x 320 px."""
LEVELS = 255.0
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One operation in two versions. allowed: difference from the reference, 99th percentile, in `unit`. num_calls: of
    a batch."""

    name: str
    ours: Callable[[], torch.Tensor]
    kornia: Callable[[], torch.Tensor]
    reference: Callable[[], npt.NDArray[Any]]
    allowed: float
    unit: str
    reference_name: str
    num_calls: int = 1

    def difference(self, call: Callable[[], torch.Tensor]) -> float:
        """Return the 99th percentile of the differences from the reference."""
        apart = np.abs(call().double().numpy() - np.asarray(self.reference(), np.float64))
        return float(np.percentile(apart, 99))


def parts(count: int = 8, side: int = 128) -> list[Part]:
    """Return the operations that a device path has both ways, on `count` pictures of side x side px."""
    pixels = np.stack([made_picture(seed, side, side) for seed in range(count)])
    return [*_colors(pixels), *_warps(pixels), *_sizes(pixels), _saved(pixels)]


def _planes(pixels: Pixels) -> torch.Tensor:
    """Return float32 (B, 3, H, W), levels of 0 to 255."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


def _colors(pixels: Pixels) -> Iterable[Part]:
    from skimage.color import hsv2rgb, rgb2hsv, rgb2lab

    given, unit_rgb = torch.from_numpy(pixels), _planes(pixels) / LEVELS
    yield Part(
        name="lightness",
        ours=lambda: lab.lightness_torch(given),
        kornia=lambda: rgb_to_lab(given.permute(0, 3, 1, 2).float() / LEVELS)[:, 0] / 100,
        reference=lambda: rgb2lab(pixels)[..., 0] / 100,
        allowed=3e-4,
        unit="of [0, 1]",
        reference_name="scikit-image",
    )
    yield Part(
        name="a and b of Lab",
        ours=lambda: lab.linear_to_lab(lab.linear_table(given.device)[given.int()])[..., 1:],
        kornia=lambda: rgb_to_lab(given.permute(0, 3, 1, 2).float() / LEVELS)[:, 1:].permute(0, 2, 3, 1),
        reference=lambda: rgb2lab(pixels)[..., 1:],
        allowed=1 / lab.AB_STEPS_PER_UNIT,
        unit="of a and b",
        reference_name="scikit-image",
    )
    rng = np.random.default_rng(0)
    count = len(pixels)
    views = {
        "power": rng.uniform(0.5, 2, (count, 2)),
        "factor": rng.uniform(0.7, 1.4, (count, 2)),
        "shift": rng.uniform(-0.1, 0.1, (count, 2)),
        "hue_shift": rng.uniform(-0.1, 0.1, count),
    }
    channels_last = unit_rgb.permute(0, 2, 3, 1).contiguous()

    def with_kornia() -> torch.Tensor:
        hue, saturation, value = rgb_to_hsv(unit_rgb).unbind(1)
        changed = view_colors.jitter_saturation_value(saturation.flatten(1), value.flatten(1), views)
        saturation, value = (one.view_as(hue) for one in changed)
        turned = hue + torch.from_numpy(views["hue_shift"]).float()[:, None, None] * (2 * torch.pi)
        return hsv_to_rgb(torch.stack([turned.remainder(2 * torch.pi), saturation, value], 1))

    def expected() -> npt.NDArray[Any]:
        hue, *rest = np.moveaxis(rgb2hsv(channels_last.numpy()), -1, 0)
        chroma = rest[0] * rest[1]
        saturation, value = (
            np.clip(
                one ** views["power"][:, which, None, None] * views["factor"][:, which, None, None]
                + views["shift"][:, which, None, None],
                0,
                1,
            )
            for which, one in enumerate(rest)
        )
        saturation = saturation * np.minimum(chroma * LEVELS, 1)
        turned = (hue + views["hue_shift"][:, None, None]) % 1
        return np.moveaxis(hsv2rgb(np.stack([turned, saturation, value], -1)), -1, 1)

    yield Part(
        name="jitter of HSV",
        ours=lambda: view_colors.jitter_hsv_torch(channels_last, views),
        kornia=with_kornia,
        reference=expected,
        allowed=1e-4,
        unit="of [0, 1]",
        reference_name="scikit-image",
    )


def _warps(pixels: Pixels) -> Iterable[Part]:
    planes, (count, height, width, _) = _planes(pixels), pixels.shape
    angle, patch_px = np.deg2rad(np.linspace(-20, 20, count)), height // 2
    affine = np.zeros((count, 2, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = np.cos(angle)
    affine[:, 0, 1], affine[:, 1, 0] = -np.sin(angle), np.sin(angle)
    affine[:, :, 2] = height / 4
    # Kornia wants the map from picture to patch, ours is from patch to picture.
    whole = np.concatenate([affine, np.broadcast_to([[[0.0, 0.0, 1.0]]], (count, 1, 3))], 1)
    forward = torch.from_numpy(np.linalg.inv(whole)[:, :2]).float()

    def warped() -> torch.Tensor:
        grid = view_warp.sampling_grid(affine, patch_px, (height, width), planes.device)
        return torch.nn.functional.grid_sample(
            planes, grid, mode="bilinear", padding_mode="reflection", align_corners=True
        )

    def expected() -> npt.NDArray[Any]:
        index = np.arange(patch_px)
        x, y = np.meshgrid(index, index)
        places = affine @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
        return np.stack(
            [
                [
                    map_coordinates(plane, place[::-1], order=1, mode="mirror").reshape(patch_px, patch_px)
                    for plane in rgb
                ]
                for rgb, place in zip(planes.numpy().astype(np.float64), places, strict=True)
            ]
        )

    yield Part(
        name="affine warp",
        ours=warped,
        kornia=lambda: warp_affine(
            planes, forward, (patch_px, patch_px), mode="bilinear", padding_mode="reflection", align_corners=True
        ),
        reference=expected,
        allowed=0.02,
        unit="levels",
        reference_name="SciPy",
    )
    scale = np.linspace(1.05, 1.4, count)
    weights = view_warp.gaussian_weights(scale)[0]
    size = weights.shape[1]
    # The deviation that the weights have, so that both smooth alike.
    offsets = np.arange(size) - size // 2
    sigma = np.sqrt((weights / 256.0 * offsets**2).sum(1))

    def loops() -> npt.NDArray[Any]:
        smooth = [
            view_warp.smoothed_views(
                np.pad(rgb, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)), mode="reflect").reshape(
                    height + size - 1, -1
                ),
                row,
            )
            for rgb, row in zip(pixels, weights, strict=True)
        ]
        return np.stack(smooth).reshape(pixels.shape).transpose(0, 3, 1, 2)

    yield Part(
        name="Gaussian smoothing, a sigma a picture",
        ours=lambda: view_warp.smoothed_torch(planes, weights),
        kornia=lambda: gaussian_blur2d(planes, size, torch.from_numpy(np.stack([sigma, sigma], 1)).float()).round(),
        reference=loops,
        allowed=0.0,
        unit="levels",
        reference_name="CPU path",
    )
    shift = torch.from_numpy(np.random.default_rng(0).uniform(-4, 4, (count, 2, height, width))).float()
    x, y = torch.arange(width) + shift[:, 0], torch.arange(height)[:, None] + shift[:, 1]
    yield Part(
        name="sampling at shifted places (flow)",
        ours=lambda: sampled(planes, shift),
        kornia=lambda: remap(
            planes,
            torch.arange(width) + shift[:, 0],
            torch.arange(height)[:, None] + shift[:, 1],
            padding_mode="border",
            align_corners=True,
        ),
        reference=lambda: np.stack(
            [
                [map_coordinates(plane, [rows, columns], order=1, mode="nearest") for plane in rgb]
                for rgb, columns, rows in zip(planes.double().numpy(), x.numpy(), y.numpy(), strict=True)
            ]
        ),
        allowed=0.02,
        unit="levels",
        reference_name="SciPy",
        num_calls=NUM_SAMPLED,
    )


def _sizes(pixels: Pixels) -> Iterable[Part]:
    gray = torch.from_numpy(np.stack([cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in pixels])).float()
    side = gray.shape[-1]
    half = np.stack([cv2.resize(one, (side // 2, side // 2), interpolation=cv2.INTER_AREA) for one in gray.numpy()])
    yield Part(
        name="pyramid, a level (flow)",
        ours=lambda: torch.nn.functional.avg_pool2d(gray[:, None], 2, ceil_mode=True),
        kornia=lambda: pyrdown(gray[:, None]),
        reference=lambda: half[:, None],
        allowed=0.01,
        unit="levels",
        reference_name="OpenCV",
    )
    small_px = side // 3

    sides = np.full(len(gray), small_px)

    yield Part(
        name="down and up again",
        ours=lambda: resampling.resampled_device(gray.clone(), sides),
        kornia=lambda: resize(resize(gray[:, None], (small_px, small_px), antialias=True), (side, side))[:, 0],
        reference=lambda: resampling.resampled_cpu(gray.clone(), sides).numpy(),
        allowed=0.05,
        unit="levels",
        reference_name="CPU path",
    )


def _saved(pixels: Pixels) -> Part:
    quality = np.linspace(30, 90, len(pixels)).astype(np.int64)
    given = torch.from_numpy(pixels)

    def codec() -> torch.Tensor:
        return (jpeg_codec_differentiable(_planes(pixels) / LEVELS, torch.from_numpy(quality).float()) * LEVELS).round()

    return Part(
        name="JPEG",
        ours=lambda: guards.through_jpeg(given, quality).permute(0, 3, 1, 2),
        kornia=codec,
        reference=lambda: guards.through_libjpeg(given, quality).permute(0, 3, 1, 2).numpy(),
        allowed=7.0,
        unit="levels",
        reference_name="libjpeg",
    )
