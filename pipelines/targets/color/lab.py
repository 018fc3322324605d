"""Convert between RGB and Lab (sRGB, D65), and list the 313 ab bins of colorization. After Zhang et al. 2016.

Pixels are uint8 RGB, channels last: (..., 3). Lab has L in [0, 100], a and b in about [-108, 98].
Letters: B samples, S canvas side, h w the ab map at stride 8, K neighbours, Q = 313 bins.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.buffer_pool import BufferPool
from pipelines.kernels.compiled import compiled
from pipelines.kernels.powers import power

__all__ = [
    "NUM_BINS",
    "ab_at_stride",
    "ab_bins",
    "decode_ab",
    "decode_bins",
    "has_color",
    "lab_to_rgb",
    "light_tables",
    "lightness",
    "rgb_to_lab",
]

Float32s = npt.NDArray[np.float32]
Uint8s = npt.NDArray[np.uint8]
Uint16s = npt.NDArray[np.uint16]

NUM_BINS = 313
BIN_AB = 10
EXTRA_BINS = ((40, 90), (100, -90), (100, -10), (100, 0))
"""Bins of the published list that are not corners of a cell that an 8-bit sRGB color touches. Without them later class
indices would be off by up to four."""

RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE_D65 = (0.95047, 1.0, 1.08883)
DARK = 0.008856
AB_STEPS_PER_UNIT = 64
GRAY_AB = 5.0
COLORS_AT_ONCE = 1024
MAX_STRIDE = 256
"""Largest stride: the sum of so many levels of 8 bits fits into 16."""


def rgb_to_lab(rgb: torch.Tensor) -> torch.Tensor:
    """Convert sRGB in [0, 1], floating (..., 3), to Lab of the same shape and dtype."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).pow(2.4), rgb / 12.92)
    return linear_to_lab(linear)


def linear_to_lab(linear: torch.Tensor) -> torch.Tensor:
    r, g, b = linear.unbind(-1)
    # Not a matrix product, as Kornia's is: a GPU rounds its factors to TF32, which is up to 0.04 off and tints gray.
    x, y, z = (
        _compressed((row[0] * r + row[1] * g + row[2] * b) / white)
        for row, white in zip(RGB_TO_XYZ, WHITE_D65, strict=True)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def _compressed(light: torch.Tensor) -> torch.Tensor:
    """Return the cube root of light, with Lab's straight line for dark colors."""
    return torch.where(light > DARK, light.clamp_min(DARK).pow(1 / 3), 7.787 * light + 16 / 116)


def lab_to_rgb(lab: torch.Tensor) -> torch.Tensor:
    """Convert Lab, floating (..., 3), to sRGB in [0, 1]; colors outside sRGB are clipped."""
    lightness, a, b = lab.unbind(-1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], dim=-1).clamp_min(0)
    xyz = torch.where(f > 0.2068966, f.pow(3), (f - 16 / 116) / 7.787) * f.new_tensor(WHITE_D65)
    inverse = torch.linalg.inv(torch.tensor(RGB_TO_XYZ, dtype=torch.float64))
    linear = (xyz @ inverse.T.to(xyz)).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-9).pow(1 / 2.4) - 0.055, 12.92 * linear)


def lightness(pixels: torch.Tensor, memory: BufferPool | None = None) -> torch.Tensor:
    """Return L / 100 in [0, 1], float32 (...), of uint8 RGB (..., 3), on its device; on a CPU in a pool's buffer.

    The CPU and GPU paths agree within 3e-4: on a CPU light is summed in 16 bits, so that every step is a table.
    """
    return _lightness_cpu(pixels, memory or BufferPool()) if pixels.device.type == "cpu" else lightness_torch(pixels)


def _lightness_cpu(pixels: torch.Tensor, memory: BufferPool) -> torch.Tensor:
    out = memory.empty(tuple(pixels.shape[:-1]), np.float32)
    _write_lightness(_colors(pixels).reshape(-1), *light_tables(), out.reshape(-1))
    return torch.from_numpy(out)


def _colors(pixels: torch.Tensor) -> Uint8s:
    """Return pixels as a list of colors, uint8 (N, 3)."""
    return pixels.reshape(-1, 3).contiguous().numpy()


@compiled
def _write_lightness(
    levels_3N: Uint8s,
    light_of_red: Uint16s,
    light_of_green: Uint16s,
    light_of_blue: Uint16s,
    table: Float32s,
    out_N: Float32s,
) -> None:
    # Three tables and a sum: a power per pixel takes half as long again. Four pixels are read as three little-endian
    # words: byte by byte takes a fifth longer.
    red, green, blue = light_of_red, light_of_green, light_of_blue
    num_fours = len(out_N) // 4
    words = levels_3N[: 12 * num_fours].view(np.uint32)
    for four in range(num_fours):
        first, second, third, n = words[3 * four], words[3 * four + 1], words[3 * four + 2], 4 * four
        out_N[n] = table[_light(red, green, blue, _byte(first, 0), _byte(first, 1), _byte(first, 2))]
        out_N[n + 1] = table[_light(red, green, blue, _byte(first, 3), _byte(second, 0), _byte(second, 1))]
        out_N[n + 2] = table[_light(red, green, blue, _byte(second, 2), _byte(second, 3), _byte(third, 0))]
        out_N[n + 3] = table[_light(red, green, blue, _byte(third, 1), _byte(third, 2), _byte(third, 3))]
    for n in range(4 * num_fours, len(out_N)):
        out_N[n] = table[_light(red, green, blue, levels_3N[3 * n], levels_3N[3 * n + 1], levels_3N[3 * n + 2])]


@compiled
def _byte(word: np.uint32, place: int) -> np.uint32:
    return (word >> np.uint32(8 * place)) & np.uint32(255)


@compiled
def _light(
    light_of_red: Uint16s,
    light_of_green: Uint16s,
    light_of_blue: Uint16s,
    red: np.uint32,
    green: np.uint32,
    blue: np.uint32,
) -> np.uint32:
    return np.uint32(light_of_red[red]) + np.uint32(light_of_green[green]) + np.uint32(light_of_blue[blue])


@lru_cache(maxsize=1)
def light_tables() -> tuple[Uint16s, Uint16s, Uint16s, Float32s]:
    """Return what each level of R, G, B adds to Y, uint16 (256,), white 65535; and L / 100 of Y, float32 (65536,)."""
    linear = linear_table(torch.device("cpu")).double()
    lights = torch.outer(torch.tensor(RGB_TO_XYZ[1], dtype=torch.float64), linear * 65535).round()
    red, green, blue = lights.numpy().astype(np.uint16)
    y = torch.arange(65536, dtype=torch.float64) / 65535
    return red, green, blue, (1.16 * _compressed(y) - 0.16).clamp(0, 1).float().numpy()


def lightness_torch(pixels: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(RGB_TO_XYZ[1])
    # A table per channel: powers of 3 S² levels become look-ups, and only S² cube roots are left. Kornia takes 3 times
    # as long.
    tables = (linear_table(torch.device("cpu"))[:, None] * weights).to(pixels.device)
    red, green, blue = (tables[pixels[..., channel].int(), channel] for channel in range(3))
    y = red + green + blue
    return (1.16 * _compressed(y) - 0.16).clamp_(0, 1)


@lru_cache(maxsize=8)
def linear_table(device: torch.device) -> torch.Tensor:
    """Return the linear light of the 256 levels of sRGB, float32 (256,)."""
    level = torch.arange(256, dtype=torch.float64) / 255
    linear = torch.where(level > 0.04045, ((level + 0.055) / 1.055).pow(2.4), level / 12.92)
    return linear.float().to(device)


def ab_at_stride(pixels: torch.Tensor, stride: int = 8) -> torch.Tensor:
    """Return the color (a, b) of each stride x stride block: float32 (B, h, w, 2) of uint8 (B, S, S, 3).

    S must be a multiple of `stride`, which is at most 256; else raises ValueError. The CPU and GPU paths may differ by
    one step of 1/64.
    """
    # RGB is averaged and rounded to 8 bits first, so that Lab is computed for 1/64 of the pixels, from tables.
    _check_stride(pixels, stride)
    if pixels.device.type == "cpu":
        return _in_steps(_ab_cpu(_blocks_cpu(pixels, stride)))
    return _in_steps(linear_to_lab(linear_table(pixels.device)[_blocks_torch(pixels, stride).int()])[..., 1:])


def _check_stride(pixels: torch.Tensor, stride: int) -> None:
    if not 1 <= stride <= MAX_STRIDE:
        raise ValueError(f"stride {stride}; need 1 to {MAX_STRIDE}")
    if pixels.shape[1] % stride or pixels.shape[2] % stride:
        raise ValueError(f"pixels of {tuple(pixels.shape[1:3])}; need height and width in multiples of {stride}")


def _in_steps(ab: torch.Tensor) -> torch.Tensor:
    # The matrix leaves gray up to 0.005 off (0, 0). There four bins are equally near, and rounding noise would choose
    # one of them. In steps of 1/64 gray is exactly (0, 0), on every device.
    return ab.mul_(AB_STEPS_PER_UNIT).round_().div_(AB_STEPS_PER_UNIT)


def has_color(ab: torch.Tensor) -> torch.Tensor:
    """Return which ab maps (B, h, w, 2) have some |a| or |b| above 5: bool (B,).

    The 2016 code calls the others gray.
    """
    return (ab.abs() > GRAY_AB).flatten(1).any(1)


def _ab_cpu(blocks: torch.Tensor) -> torch.Tensor:
    """Return a and b, float32 (B, h, w, 2), of block colors, uint8 (B, h, w, 3)."""
    ab = np.empty((*blocks.shape[:3], 2), np.float32)
    light_of_rgb = np.array(RGB_TO_XYZ, np.float32) / np.array(WHITE_D65, np.float32)[:, None]
    _write_ab(_colors(blocks), linear_table(blocks.device).numpy(), light_of_rgb, ab.reshape(-1, 2))
    return torch.from_numpy(ab)


@compiled
def _write_ab(colors_N3: Uint8s, linear: Float32s, light_of_rgb_33: Float32s, out_N2: Float32s) -> None:
    # Some colors at a time, so that they stay in the cache; and one simple step for all of them, then the next, because
    # only such loops run in vectors (10 times as fast as one loop of all steps). The order: 1. light of each axis of
    # XYZ; 2. its cube root; 3. differences of the axes.
    planes = np.empty((3, COLORS_AT_ONCE), np.float32)
    for start in range(0, len(colors_N3), COLORS_AT_ONCE):
        colors, out = colors_N3[start : start + COLORS_AT_ONCE], out_N2[start : start + COLORS_AT_ONCE]
        for axis in range(3):
            red, green, blue = light_of_rgb_33[axis]
            light = planes[axis]
            for n in range(len(colors)):
                light[n] = red * linear[colors[n, 0]] + green * linear[colors[n, 1]] + blue * linear[colors[n, 2]]
            for n in range(len(colors)):
                root = power(light[n], np.float32(1 / 3), np.float32(0))
                # One Newton step, to the precision of a float: a is 500 times the difference of two roots, and an error
                # in it can choose another bin.
                root += (light[n] - root * root * root) / (np.float32(3) * root * root)
                dark = np.float32(7.787) * light[n] + np.float32(16 / 116)
                light[n] = root if light[n] > np.float32(DARK) else dark
        for n in range(len(colors)):
            out[n, 0] = np.float32(500) * (planes[0, n] - planes[1, n])
            out[n, 1] = np.float32(200) * (planes[1, n] - planes[2, n])


def _blocks_cpu(pixels: torch.Tensor, stride: int) -> torch.Tensor:
    """Return mean colors of blocks, uint8 (B, h, w, 3)."""
    num_samples, height, width, _ = pixels.shape
    levels = np.empty((num_samples, height // stride, width // stride, 3), np.uint8)
    # Sums of 16 bits, as long as they fit, run in vectors twice as wide.
    sums: npt.NDArray[Any] = np.empty(3 * width, np.uint16 if 255 * stride**2 < 2**16 else np.uint32)
    _write_mean_levels(_colors(pixels).reshape(-1, stride, width * 3), sums, levels.reshape(-1, 3 * (width // stride)))
    return torch.from_numpy(levels)


@compiled
def _write_mean_levels(lines_RSW: Uint8s, sums_W: npt.NDArray[np.unsignedinteger], out_RN: Uint8s) -> None:
    """Write mean colors of blocks, to the nearest level, halves to even. `sums_W`: room for sums of blocks.

    R rows of blocks, S lines of pixels in each.
    """
    num_rows, stride, width = lines_RSW.shape
    column_sums, block_sums, num_px = np.empty(width, np.uint16), np.empty(out_RN.shape[1]), np.float64(stride**2)
    for row in range(num_rows):
        # 1. Sums over lines.
        column_sums[:] = 0
        for line in range(stride):
            levels = lines_RSW[row, line]
            for column in range(width):
                column_sums[column] += np.uint16(levels[column])
        # 2. Sums over pixels, from every place on, though only those count that begin a block: this runs in vectors, a
        # sum over the three channels of a block does not.
        sums_W[:] = 0
        for place in range(stride):
            sums_from_place = column_sums[3 * place :]
            for column in range(len(sums_from_place)):
                sums_W[column] += sums_from_place[column]
        # 3. Means, apart from picking the sums, so that divisions run in vectors.
        for block in range(len(block_sums) // 3):
            for channel in range(3):
                block_sums[3 * block + channel] = sums_W[3 * stride * block + channel]
        for place in range(len(block_sums)):
            out_RN[row, place] = np.uint8(np.int32(np.rint(block_sums[place] / num_px)))


def _blocks_torch(pixels: torch.Tensor, stride: int) -> torch.Tensor:
    num_samples, height, width, _ = pixels.shape
    blocks = pixels.view(num_samples, height // stride, stride, width // stride, stride, 3)
    return blocks.float().mean((2, 4)).round_().to(torch.uint8)


@lru_cache(maxsize=1)
def ab_bins() -> Float32s:
    """Return the centres of the 313 in-gamut bins, float32 (313, 2) a and b, in the published order (a, then b).

    They are the corners of all cells of 10 x 10 that some 8-bit sRGB color falls into, and EXTRA_BINS.
    """
    ab = rgb_to_lab(_bright_colors().double() / 255)[:, 1:]
    cells = np.unique(np.floor(ab.numpy() / BIN_AB).astype(int), axis=0)
    corners = (cells[:, None] + np.array([(0, 0), (0, 1), (1, 0), (1, 1)])).reshape(-1, 2) * BIN_AB
    bins = np.unique(np.concatenate([corners, EXTRA_BINS]), axis=0).astype(np.float32)
    bins.flags.writeable = False
    return bins


def _bright_colors() -> torch.Tensor:
    """Return the three faces of the RGB cube with one channel at 255: uint8 (196608, 3)."""
    # They touch every cell that the 16.7 million colors touch; a slow test counts them all.
    level = torch.arange(256, dtype=torch.uint8)
    pairs = torch.cartesian_prod(level, level)
    full = torch.full((len(pairs),), 255, dtype=torch.uint8)
    one, two = pairs.unbind(1)
    return torch.cat([torch.stack(face, 1) for face in ((full, one, two), (one, full, two), (one, two, full))])


def decode_bins(bins: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the color of a soft encoding: float32 (..., 2) of bins and weights (..., K)."""
    return (torch.tensor(ab_bins(), device=bins.device)[bins] * weights[..., None]).sum(-2)


def decode_ab(probabilities: torch.Tensor, temperature: float = 0.38) -> torch.Tensor:
    """Return the annealed mean color: float32 (..., 2) of probabilities (..., 313).

    Temperature 1 is the mean color (dull), towards 0 the likeliest bin (patchy); the paper's 0.38 is between.
    """
    annealed = torch.softmax(probabilities.clamp_min(1e-12).log() / temperature, dim=-1)
    return annealed @ torch.tensor(ab_bins(), device=probabilities.device).to(annealed)
