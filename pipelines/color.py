"""RGB <-> Lab (sRGB, D65), and the 313 ab bins of colorization. After Zhang et al. 2016.

Pixels are uint8 RGB, channels last: (..., 3). Lab has L in [0, 100], a and b in about [-108, 98].
Letters: B samples, S canvas side, h w the ab map at stride 8, K neighbours, Q = 313 bins.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.recycler import Recycler

__all__ = [
    "NUM_BINS",
    "ab_at_stride",
    "ab_bins",
    "decode_ab",
    "decode_bins",
    "has_color",
    "lab_to_rgb",
    "lightness",
    "lightness_and_ab",
    "rgb_to_lab",
]

Float32s = npt.NDArray[np.float32]
Uint8s = npt.NDArray[np.uint8]

NUM_BINS = 313
BIN_AB = 10
EXTRA_BINS = ((40, 90), (100, -90), (100, -10), (100, 0))
"""In the published list though no corner of a cell that an 8-bit sRGB color touches. Without them every later
class index would be off by up to four."""

RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE_D65 = (0.95047, 1.0, 1.08883)
DARK = 0.008856
AB_STEPS_PER_UNIT = 64
GRAY_AB = 5.0
SLAB_ROWS = 256


def rgb_to_lab(rgb: torch.Tensor) -> torch.Tensor:
    """Lab of sRGB in [0, 1], floating (..., 3) to the same shape and dtype."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).pow(2.4), rgb / 12.92)
    return _linear_to_lab(linear)


def _linear_to_lab(linear: torch.Tensor) -> torch.Tensor:
    r, g, b = linear.unbind(-1)
    # Not a matrix product: a GPU may round its factors to TF32, and gray would get a tint.
    x, y, z = (
        _compressed((row[0] * r + row[1] * g + row[2] * b) / white)
        for row, white in zip(RGB_TO_XYZ, WHITE_D65, strict=True)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def _compressed(light: torch.Tensor) -> torch.Tensor:
    """The cube root of Lab, with its straight piece for dark colors."""
    return torch.where(light > DARK, light.clamp_min(DARK).pow(1 / 3), 7.787 * light + 16 / 116)


def lab_to_rgb(lab: torch.Tensor) -> torch.Tensor:
    """sRGB in [0, 1] of Lab, floating (..., 3); colors outside sRGB are clipped."""
    lightness, a, b = lab.unbind(-1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], dim=-1).clamp_min(0)
    xyz = torch.where(f > 0.2068966, f.pow(3), (f - 16 / 116) / 7.787) * f.new_tensor(WHITE_D65)
    inverse = torch.linalg.inv(torch.tensor(RGB_TO_XYZ, dtype=torch.float64))
    linear = (xyz @ inverse.T.to(xyz)).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-9).pow(1 / 2.4) - 0.055, 12.92 * linear)


def lightness(pixels: torch.Tensor, memory: Recycler | None = None) -> torch.Tensor:
    """L / 100 in [0, 1], float32 (...), of uint8 RGB (..., 3), on the pixels' device; on a CPU in memory of `memory`.

    The two paths agree within 3e-4: on a CPU light is summed in 16 bits, so that every step is a table.
    """
    return _lightness_opencv(pixels, memory or Recycler()) if pixels.device.type == "cpu" else _lightness_torch(pixels)


def _lightness_opencv(pixels: torch.Tensor, memory: Recycler) -> torch.Tensor:
    rows = pixels.reshape(-1, pixels.shape[-2], 3).numpy()
    out = memory.empty(rows.shape[:2], np.float32)
    planes = _LightPlanes(min(SLAB_ROWS, len(rows)), rows.shape[1])
    for slab in _slabs(len(rows)):
        planes.write_lightness(rows[slab], out[slab])
    return torch.from_numpy(out).view(pixels.shape[:-1])


def _slabs(num_rows: int, stride: int = 1) -> Iterator[slice]:
    """Some rows at a time, which stay in the cache: SLAB_ROWS, or what is next to it of multiples of `stride`."""
    slab_rows = max(SLAB_ROWS // stride, 1) * stride
    return (slice(first, min(first + slab_rows, num_rows)) for first in range(0, num_rows, slab_rows))


class _LightPlanes:
    """Room for what lies between the colors and the lightness of a slab; made anew it is 20 us a canvas of 256 px."""

    def __init__(self, num_rows: int, width: int) -> None:
        self._channels_3RW = np.empty((3, num_rows, width), np.uint8)
        self._red_green_RW2 = np.empty((num_rows, width, 2), np.uint8)
        self._light_2RW = np.empty((2, num_rows, width), np.uint16)

    def write_lightness(self, rows: Uint8s, out: Float32s) -> None:
        """L / 100 of uint8 (R, W, 3), R at most `num_rows`, to float32 (R, W). Without a and b: a third of the time of
        a whole Lab."""
        tables, num_rows = _light_tables(), len(rows)
        red, green, blue = self._channels_3RW[:, :num_rows]
        red_green, (light, light_of_blue) = self._red_green_RW2[:num_rows], self._light_2RW[:, :num_rows]
        cv2.split(rows, [red, green, blue])
        # Two channels are one number of 16 bits, so that their sum is one look into a table.
        cv2.merge([red, green], dst=red_green)
        cv2.LUT(red_green.view(np.uint16)[..., 0], tables.red_green, dst=light)
        cv2.LUT(blue, tables.blue, dst=light_of_blue)
        cv2.add(light, light_of_blue, dst=light)
        cv2.LUT(light, tables.lightness, dst=out)


class _LightTables(NamedTuple):
    """What levels add to Y, with white at 65535: red_green uint16 (65536,), by the two bytes as they lie in memory;
    blue uint16 (256,). lightness: L / 100 of Y, float32 (65536,)."""

    red_green: npt.NDArray[np.uint16]
    blue: npt.NDArray[np.uint16]
    lightness: Float32s


@lru_cache(maxsize=1)
def _light_tables() -> _LightTables:
    linear = _linear_table(torch.device("cpu")).double()
    red, green, blue = torch.outer(torch.tensor(RGB_TO_XYZ[1], dtype=torch.float64), linear * 65535).round().numpy()
    first, second = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2).T
    y = torch.arange(65536, dtype=torch.float64) / 65535
    return _LightTables(
        red_green=(red[first] + green[second]).astype(np.uint16),
        blue=blue.astype(np.uint16),
        lightness=(1.16 * _compressed(y) - 0.16).clamp(0, 1).float().numpy(),
    )


def _lightness_torch(pixels: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(RGB_TO_XYZ[1])
    # A table per channel turns powers of 3 S² numbers into powers of S².
    tables = (_linear_table(torch.device("cpu"))[:, None] * weights).to(pixels.device)
    red, green, blue = (tables[pixels[..., channel].int(), channel] for channel in range(3))
    y = red + green + blue
    return (1.16 * _compressed(y) - 0.16).clamp_(0, 1)


@lru_cache(maxsize=8)
def _linear_table(device: torch.device) -> torch.Tensor:
    """Linear light of the 256 levels of sRGB, float32 (256,)."""
    level = torch.arange(256, dtype=torch.float64) / 255
    linear = torch.where(level > 0.04045, ((level + 0.055) / 1.055).pow(2.4), level / 12.92)
    return linear.float().to(device)


def ab_at_stride(pixels: torch.Tensor, stride: int = 8) -> torch.Tensor:
    """Color of each stride x stride block: float32 (B, h, w, 2) of uint8 (B, S, S, 3); S a multiple of `stride`.

    RGB is averaged and rounded to 8 bits first, so Lab is computed for 1/64 of the pixels. The paths for a CPU and a
    GPU may differ by one step of 1/64. Raises ValueError.
    """
    _check_stride(pixels, stride)
    if pixels.device.type == "cpu":
        return _in_steps(_ab_opencv(_blocks_opencv(pixels, stride)))
    return _in_steps(_linear_to_lab(_linear_table(pixels.device)[_blocks_torch(pixels, stride).int()])[..., 1:])


def lightness_and_ab(pixels: torch.Tensor, stride: int, memory: Recycler) -> tuple[torch.Tensor, torch.Tensor]:
    """`lightness` and `ab_at_stride` of the same pixels, which a CPU reads only once. Raises ValueError."""
    if pixels.device.type != "cpu":
        return lightness(pixels), ab_at_stride(pixels, stride)
    _check_stride(pixels, stride)
    light, blocks = _lightness_and_blocks_opencv(pixels, stride, memory)
    return light, _in_steps(_ab_opencv(blocks))


def _check_stride(pixels: torch.Tensor, stride: int) -> None:
    if pixels.shape[1] % stride or pixels.shape[2] % stride:
        raise ValueError(f"pixels of {tuple(pixels.shape[1:3])}; need height and width in multiples of {stride}")


def _in_steps(ab: torch.Tensor) -> torch.Tensor:
    # The matrix leaves gray up to 0.005 off (0, 0), where four bins are equally near and noise would choose;
    # steps of 1/64 make it exact, on every device.
    return ab.mul_(AB_STEPS_PER_UNIT).round_().div_(AB_STEPS_PER_UNIT)


def has_color(ab: torch.Tensor) -> torch.Tensor:
    """bool (B,): images whose ab map (B, h, w, 2) has some |a| or |b| above 5; the 2016 code calls the others gray."""
    return (ab.abs() > GRAY_AB).flatten(1).any(1)


def _ab_opencv(blocks: torch.Tensor) -> torch.Tensor:
    """float32 (B, h, w, 2) of uint8 (B, h, w, 3). A few calls on interleaved pixels, not forty on planes."""
    linear = cv2.LUT(blocks.view(-1, blocks.shape[2], 3).numpy(), _linear_table(blocks.device).numpy())
    light = cv2.transform(linear, np.array(RGB_TO_XYZ) / np.array(WHITE_D65)[:, None])
    compressed = np.where(light > DARK, cv2.pow(light, 1 / 3), light * np.float32(7.787) + np.float32(16 / 116))
    ab = cv2.transform(compressed, np.array([[500.0, -500.0, 0.0], [0.0, 200.0, -200.0]]))
    return torch.from_numpy(ab).view(*blocks.shape[:3], 2)


def _blocks_opencv(pixels: torch.Tensor, stride: int) -> torch.Tensor:
    """uint8 (B, h, w, 3)."""
    num_samples, height, width, _ = pixels.shape
    means = np.empty((num_samples * height // stride, width // stride, 3), np.float32)
    rows = pixels.reshape(-1, width, 3).numpy()
    for slab in _slabs(len(rows), stride):
        _write_means(rows[slab], stride, means[slab.start // stride : slab.stop // stride])
    return _levels_of(means, stride, pixels)


def _lightness_and_blocks_opencv(
    pixels: torch.Tensor, stride: int, memory: Recycler
) -> tuple[torch.Tensor, torch.Tensor]:
    num_samples, height, width, _ = pixels.shape
    rows = pixels.reshape(-1, width, 3).numpy()
    out = memory.empty(rows.shape[:2], np.float32)
    means = np.empty((len(rows) // stride, width // stride, 3), np.float32)
    planes = _LightPlanes(min(max(SLAB_ROWS, stride), len(rows)), width)
    for slab in _slabs(len(rows), stride):
        planes.write_lightness(rows[slab], out[slab])
        _write_means(rows[slab], stride, means[slab.start // stride : slab.stop // stride])
    return torch.from_numpy(out).view(num_samples, height, width), _levels_of(means, stride, pixels)


def _write_means(rows: Uint8s, stride: int, out: Float32s) -> None:
    """Mean colors of blocks times `stride`, float32 (R / stride, W / stride, 3) of uint8 (R, W, 3)."""
    height, width = out.shape[:2]
    # Rows first, as long additions: OpenCV's mean over both axes in one call takes twice as long.
    lines = rows.reshape(height, stride, -1).sum(axis=1, dtype=np.uint16).astype(np.float32)
    cv2.resize(lines.reshape(height, -1, 3), (width, height), dst=out, interpolation=cv2.INTER_AREA)


def _levels_of(means: Float32s, stride: int, pixels: torch.Tensor) -> torch.Tensor:
    levels = torch.from_numpy(np.rint(means / stride).astype(np.uint8))
    return levels.view(len(pixels), pixels.shape[1] // stride, *levels.shape[1:])


def _blocks_torch(pixels: torch.Tensor, stride: int) -> torch.Tensor:
    num_samples, height, width, _ = pixels.shape
    blocks = pixels.view(num_samples, height // stride, stride, width // stride, stride, 3)
    return blocks.float().mean((2, 4)).round_().to(torch.uint8)


@lru_cache(maxsize=1)
def ab_bins() -> Float32s:
    """The centres of the 313 in-gamut bins, (313, 2) a and b, in the published order (a ascending, then b).

    Corners of all cells of 10 x 10 that some 8-bit sRGB color falls into, and EXTRA_BINS.
    """
    ab = rgb_to_lab(_bright_colors().double() / 255)[:, 1:]
    cells = np.unique(np.floor(ab.numpy() / BIN_AB).astype(int), axis=0)
    corners = (cells[:, None] + np.array([(0, 0), (0, 1), (1, 0), (1, 1)])).reshape(-1, 2) * BIN_AB
    bins = np.unique(np.concatenate([corners, EXTRA_BINS]), axis=0).astype(np.float32)
    bins.flags.writeable = False
    return bins


def _bright_colors() -> torch.Tensor:
    """uint8 (196608, 3): the three faces of the RGB cube with one channel at 255.

    They touch every cell that the 16.7 million colors touch (a slow test counts them all).
    """
    level = torch.arange(256, dtype=torch.uint8)
    pairs = torch.cartesian_prod(level, level)
    full = torch.full((len(pairs),), 255, dtype=torch.uint8)
    one, two = pairs.unbind(1)
    return torch.cat([torch.stack(face, 1) for face in ((full, one, two), (one, full, two), (one, two, full))])


def decode_bins(bins: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Color of a soft encoding: float32 (..., 2) of bins and weights (..., K)."""
    return (torch.tensor(ab_bins(), device=bins.device)[bins] * weights[..., None]).sum(-2)


def decode_ab(probabilities: torch.Tensor, temperature: float = 0.38) -> torch.Tensor:
    """Annealed mean: float32 (..., 2) of probabilities (..., 313).

    Temperature 1 is the mean color (dull), towards 0 the likeliest bin (patchy); the paper's 0.38 is between.
    """
    annealed = torch.softmax(probabilities.clamp_min(1e-12).log() / temperature, dim=-1)
    return annealed @ torch.tensor(ab_bins(), device=probabilities.device).to(annealed)
