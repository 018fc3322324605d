"""Colors of exemplar's views: contrast along a patch's own principal components, then saturation, value and hue.

After Dosovitskiy et al. 2014. One way with OpenCV, a few views at a time; one with torch, all at once on their device.

Letters: N views, P patch side.
"""

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.recycler import Recycler

if TYPE_CHECKING:  # the tasks import this file
    from pipelines.tasks.base import Geometry

__all__ = [
    "JITTERED_BY",
    "ViewColors",
    "component_affine",
    "component_affine_opencv",
    "jitter_hsv_torch",
    "recolor_opencv",
    "scale_components",
]

FULL_SHIFT_CHROMA = 1 / 255
LEAST_SATURATION = 1e-8
WHITE = 65535
MIDDLE = 128
SIGN_BITS = np.uint32(0x80808080)
VIEWS_AT_ONCE = 8
"""4 cost a tenth more in calls, 32 in memory that no longer fits the cache."""
PLANE_GAP = 336
VECTOR = 64
"""A multiple of what OpenCV takes at once in any vector code, in floats; less than the gap."""
JITTERED_BY = ("power", "factor", "shift", "hue_shift")
UInt8s = npt.NDArray[np.uint8]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]


def scale_components(patches: torch.Tensor, factor: Float64s) -> torch.Tensor:
    """float32 (N, P, P, 3) in [0, 1]: colors' distance from their mean scaled along the patch's own components.

    factor (N, 3): for the components from the smallest variance to the largest.
    """
    affine = component_affine(patches, factor)
    colors = patches.flatten(1, 2).float()
    return torch.baddbmm(affine[:, None, :, 3], colors, affine[..., :3].mT).clamp_(0, 1).view(patches.shape)


def component_affine(patches: torch.Tensor, factor: Float64s) -> torch.Tensor:
    """float32 (N, 3, 4): `scale_components` as a matrix on levels of 0 to 255 and 1.

    Mean and components are those of every second pixel of every second row: of thousands of pixels, a quarter will do.
    """
    colors = patches[:, ::2, ::2].permute(0, 3, 1, 2).flatten(2).float()
    mean = colors.mean(2, keepdim=True)
    colors -= mean
    _, components = torch.linalg.eigh(colors @ colors.mT)
    matrix = components * torch.from_numpy(factor).to(components).unsqueeze(1) @ components.mT
    return torch.cat([matrix, mean - matrix @ mean], 2).div_(255)


def component_affine_opencv(patches_NPP4: UInt8s, factor: Float64s, memory: Recycler) -> Float32s:
    """The same of opaque uint8 RGBA, to levels of 0 to `WHITE`: float32 (N, 3, 4)."""
    # As one number a pixel, because every second of those is copied much faster than every second three bytes.
    pixels = patches_NPP4.view(np.uint32)[:, ::2, ::2, 0]
    shape = min(VIEWS_AT_ONCE, len(pixels)), *pixels.shape[1:]
    chosen, colors = memory.empty(shape, np.uint32), memory.empty((*shape, 4), np.float32)
    products = np.empty((len(pixels), 4, 4), np.float32)
    for first in range(0, len(pixels), VIEWS_AT_ONCE):
        some = pixels[first : first + VIEWS_AT_ONCE]
        np.copyto(chosen[: len(some)], some)
        # Signed, around the middle, so that float32 holds sums of squares; alpha is a constant, so that its products
        # are sums.
        chosen ^= SIGN_BITS
        np.copyto(colors, chosen.view(np.int8).reshape(colors.shape))
        flat = colors.reshape(len(colors), -1, 4)[: len(some)]
        np.matmul(flat.swapaxes(1, 2), flat, out=products[first : first + VIEWS_AT_ONCE])
    num_px = pixels[0].size
    mean = products[:, :3, 3:] / (num_px * (255 - MIDDLE))
    _, components = np.linalg.eigh(products[:, :3, :3] - num_px * mean * mean.swapaxes(1, 2))
    matrix = components * factor[:, None].astype(np.float32) @ components.swapaxes(1, 2)
    mean += MIDDLE
    affine: Float32s = np.concatenate([matrix, mean - matrix @ mean], axis=2)
    affine *= WHITE / 255
    return affine


def recolor_opencv(patches_NPP4: UInt8s, views: "Geometry", memory: Recycler) -> Float32s:
    """float32 RGB (N, P, P, 3) in [0, 1] of opaque uint8 RGBA."""
    num_views, side_px = patches_NPP4.shape[:2]
    out: Float32s = memory.empty((num_views, side_px, side_px, 3), np.float32)
    affine = component_affine_opencv(patches_NPP4, views["pca_factor"], memory)
    colors = ViewColors(min(VIEWS_AT_ONCE, num_views), side_px, memory)
    for first in range(0, num_views, VIEWS_AT_ONCE):
        rows = slice(first, first + VIEWS_AT_ONCE)
        colors.change(patches_NPP4[rows], affine[rows], {name: views[name][rows] for name in JITTERED_BY}, out[rows])
    return out


class ViewColors:
    """Changes colors of a few views at a time with OpenCV, in buffers that it keeps: one per thread."""

    def __init__(self, num_views: int, side_px: int, memory: Recycler) -> None:
        """`num_views`: how many at a time, at most. Fewer stay in the cache, more cost fewer calls."""
        shape, num_px = (num_views, side_px, side_px, 3), num_views * side_px**2
        self._rgb = memory.empty(shape, np.uint8)
        self._levels = memory.empty(shape, np.uint16)
        self._colors, self._hsv = memory.empty(shape, np.float32), memory.empty(shape, np.float32)
        # Planes that start at the same place of a page push each other out of the cache.
        self._planes = memory.empty((4, num_px + PLANE_GAP), np.float32)
        self._planes[:, num_px:] = 1

    def change(self, patches_NPP4: UInt8s, affine_N34: Float32s, views: "Geometry", out_NPP3: Float32s) -> None:
        """Writes float32 RGB in [0, 1] of opaque uint8 RGBA to `out_NPP3`."""
        num_views = len(patches_NPP4)
        rgb, levels, colors = (buffer[:num_views] for buffer in (self._rgb, self._levels, self._colors))
        cv2.cvtColor(_tall(patches_NPP4), cv2.COLOR_RGBA2RGB, dst=_tall(rgb))
        np.copyto(levels, rgb)
        # To 16 bits, because those are cut off at black and white for nothing.
        for level, affine in zip(levels, affine_N34, strict=True):
            cv2.transform(level, affine, dst=level)
        np.copyto(colors, levels)
        self.jitter(colors, views, out_NPP3, white=WHITE)

    def jitter(self, rgb_NPP3: Float32s, views: "Geometry", out_NPP3: Float32s, white: float = 1) -> None:
        """Writes float32 RGB in [0, 1] of float32 RGB in [0, white] to `out_NPP3`: power, factor and shift on
        saturation and value, turn of the hue."""
        num_views, side_px = rgb_NPP3.shape[:2]
        hsv = _tall(self._hsv[:num_views])
        cv2.cvtColor(_tall(rgb_NPP3), cv2.COLOR_RGB2HSV, dst=hsv)
        planes = [plane[: num_views * side_px**2].reshape(-1, side_px) for plane in self._planes]
        chroma, hue, saturation, value = planes
        cv2.split(hsv, planes[1:])
        cv2.multiply(saturation, value, dst=chroma, scale=1 / (FULL_SHIFT_CHROMA * white))
        # Turned forwards only: the vector code of OpenCV 5 turns a negative hue into a wrong color without a word.
        turned = hue.reshape(num_views, -1)
        turned += _column32(views["hue_shift"] % 1 * 360)
        # The logarithm of 0 takes four times as long. Where saturation was 0, chroma is, and makes it 0 again.
        saturation += np.float32(LEAST_SATURATION)
        for which, full in enumerate((1, white)):
            self._raise(which, {name: views[name][:, which] for name in ("power", "factor", "shift")}, full)
        # The hue of a gray pixel is rounding noise; saturation added to it would show as colored grain.
        cv2.threshold(chroma, 1, 0, cv2.THRESH_TRUNC, dst=chroma)
        saturation *= chroma
        cv2.merge(planes[1:], dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=_tall(out_NPP3))

    def _raise(self, which: int, drawn: "Geometry", full: float) -> None:
        """Power, factor and shift (N,) of saturation (0) or value (1), in place, from [0, full] to [0, 1]."""
        num_views, plane = len(drawn["power"]), self._planes[2 + which]
        num_px = num_views * self._rgb[0].size // 3
        numbers = plane[:num_px].reshape(num_views, -1)
        # What is over after the last whole vector may be rounded by other code. It must not be pixels, because which
        # ones it is depends on the number of views.
        whole = plane[: -(-num_px // VECTOR) * VECTOR]
        # exp(p log x + log f) takes half the time of pow.
        cv2.log(whole, dst=whole)
        numbers *= _column32(drawn["power"])
        numbers += _column32(np.log(drawn["factor"]) - drawn["power"] * math.log(full))
        cv2.exp(whole, dst=whole)
        numbers += _column32(drawn["shift"])
        cv2.threshold(whole, 1, 0, cv2.THRESH_TRUNC, dst=whole)
        cv2.threshold(whole, 0, 0, cv2.THRESH_TOZERO, dst=whole)


def _tall(images_NHWC: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """All images below each other (N * H, W, C), for one call of OpenCV."""
    return images_NHWC.reshape(-1, *images_NHWC.shape[2:])


def _column32(numbers: Float64s) -> Float32s:
    return numbers.astype(np.float32)[:, None]


def jitter_hsv_torch(rgb: torch.Tensor, views: "Geometry") -> torch.Tensor:
    """float32 (N, 3, P, P) of float32 (N, P, P, 3) in [0, 1]: as `ViewColors.jitter`, all views at once."""
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
    saturation: torch.Tensor, value: torch.Tensor, views: "Geometry"
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
