"""Colors of exemplar's views: contrast along a patch's own principal components, then saturation, value and hue.

After Dosovitskiy et al. 2014. One way with OpenCV, a view at a time; one with torch, all at once on their device.

Letters: N views, P patch side.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.recycler import Recycler

if TYPE_CHECKING:  # the tasks import this file
    from pipelines.tasks.base import Geometry

__all__ = ["component_affine", "jitter_hsv_opencv", "jitter_hsv_torch", "recolor_opencv", "scale_components"]

FULL_SHIFT_CHROMA = 1 / 255
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


def recolor_opencv(patches: torch.Tensor, views: "Geometry", memory: Recycler) -> torch.Tensor:
    """float32 (N, 3, P, P) of uint8 (N, P, P, 3). One view at a time, so that it stays in the cache."""
    out = memory.empty((len(patches), 3, *patches.shape[1:3]), np.float32)
    affine = component_affine(patches, views["pca_factor"]).numpy()
    # Turned forwards only: the vector code of OpenCV 5 turns a negative hue into a wrong color without a word.
    turn_deg, shift = views["hue_shift"] % 1 * 360, views["shift"].astype(np.float32)
    power, log_factor = views["power"].tolist(), np.log(views["factor"]).tolist()
    drawn = zip(turn_deg.tolist(), power, log_factor, shift[..., None, None], strict=True)
    for n, (patch, numbers) in enumerate(zip(patches.numpy(), drawn, strict=True)):
        rgb = cv2.transform(patch.astype(np.float32), affine[n])
        cv2.split(jitter_hsv_opencv(rgb.clip(0, 1, out=rgb), *numbers), list(out[n]))
    return torch.from_numpy(out)


def jitter_hsv_opencv(
    rgb: Float32s, turn_deg: float, power: Sequence[float], log_factor: Sequence[float], shift_211: Float32s
) -> Float32s:
    """float32 (P, P, 3) in [0, 1] of the same: power, factor and shift on saturation and value, turn of the hue."""
    hsv: Float32s = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), np.float32)
    hsv[..., 0] += np.float32(turn_deg)
    changed = np.empty((2, *rgb.shape[:2]), np.float32)
    for index, channel in enumerate(changed, 1):
        cv2.extractChannel(hsv, index, dst=channel)
    chroma = cv2.multiply(changed[0], changed[1], scale=1 / FULL_SHIFT_CHROMA)
    # exp(p log x + log f) takes half the time of pow. In two halves, because 0 times log 0 would be no number.
    cv2.log(changed, dst=changed)
    for channel, exponent, summand in zip(changed, power, log_factor, strict=True):
        cv2.addWeighted(channel, exponent / 2, channel, exponent / 2, summand, dst=channel)
    cv2.exp(changed, dst=changed)
    changed += shift_211
    changed.clip(0, 1, out=changed)
    # The hue of a gray pixel is rounding noise; saturation added to it would show as colored grain.
    changed[0] *= np.minimum(chroma, 1, out=chroma)
    for index, channel in enumerate(changed, 1):
        cv2.insertChannel(channel, hsv, index)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


def jitter_hsv_torch(rgb: torch.Tensor, views: "Geometry") -> torch.Tensor:
    """float32 (N, 3, P, P) of float32 (N, P, P, 3) in [0, 1]: as `jitter_hsv_opencv`, all views at once."""
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
