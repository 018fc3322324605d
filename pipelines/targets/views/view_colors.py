"""Change the colors of exemplar's views: contrast along a patch's principal components, then saturation, value, hue.

After Dosovitskiy et al. 2014. Compiled loops for a CPU; torch for a GPU, all views at once.

Letters: N views, P patch side, Q pixels of a patch or some of them.
"""

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.batch_rng import Geometry
from pipelines.base.buffer_pool import BufferPool
from pipelines.kernels.compiled import compiled
from pipelines.kernels.packed_pixels import PackedPixels, channel_level
from pipelines.kernels.powers import power
from pipelines.targets.views.symmetric_eigen import eigh_3x3

__all__ = [
    "component_affine",
    "component_affine_cpu",
    "jitter_hsv_torch",
    "recolored_cpu",
    "scale_components",
    "write_color_sums",
]

FULL_SHIFT_CHROMA = 1 / 255
TINY = 1e-12
PRODUCTS = np.array([[3, 4, 5], [4, 6, 7], [5, 7, 8]])
"""Indices of the products of two channels among the nine sums of `write_color_sums`."""
PIXELS_AT_ONCE = 1024
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


def scale_components(patches: torch.Tensor, factor: Float64s) -> torch.Tensor:
    """Scale colors' distances from their mean along each patch's principal components: float32 (N, P, P, 3) in [0, 1].

    factor (N, 3): for the components from the smallest variance to the largest.
    """
    affine = component_affine(patches, factor)
    colors = patches.flatten(1, 2).float()
    return torch.baddbmm(affine[:, None, :, 3], colors, affine[..., :3].mT).clamp_(0, 1).view(patches.shape)


def component_affine(patches: torch.Tensor, factor: Float64s) -> torch.Tensor:
    """Return `scale_components` as a matrix on (levels of 0 to 255, 1): float32 (N, 3, 4)."""
    # A quarter of the pixels gives mean and components as well: a patch has thousands.
    colors = patches[:, ::2, ::2].permute(0, 3, 1, 2).flatten(2).float()
    mean = colors.mean(2, keepdim=True)
    colors -= mean
    _, components = eigh_3x3(colors @ colors.mT)
    matrix = (components * torch.from_numpy(factor).to(components).unsqueeze(1) @ components.mT).float()
    return torch.cat([matrix, mean - matrix @ mean], 2).div_(255)


def component_affine_cpu(sums_N9: Int64s, patch_px: int, factor: Float64s) -> Float32s:
    """Return the same as `component_affine` from sums of colors (`write_color_sums`) of patches of this side."""
    num_px = ((patch_px + 1) // 2) ** 2
    mean, products = sums_N9[:, :3, None] / num_px, sums_N9[:, PRODUCTS]
    _, components = np.linalg.eigh(products - num_px * mean * mean.swapaxes(1, 2))
    matrix = components * factor[:, None] @ components.swapaxes(1, 2)
    return (np.concatenate([matrix, mean - matrix @ mean], axis=2) / 255).astype(np.float32)


@compiled
def write_color_sums(pixels_PP: PackedPixels, sums_9: Int64s) -> None:
    """Write sums of red, green, blue, and of their products rr, rg, rb, gg, gb, bb, over every second pixel of every
    second row."""
    # Levels first, then sums of 32 bits in registers, so that both run in vectors; a row of less than 60,000 pixels
    # fits. Whole numbers, so that the order of sums does not matter.
    levels = np.empty((3, (pixels_PP.shape[1] + 1) // 2), np.int32)
    red, green, blue = levels[0], levels[1], levels[2]
    sums_9[:] = 0
    for y in range(0, len(pixels_PP), 2):
        row = pixels_PP[y]
        for x in range(len(red)):
            pixel = row[2 * x]
            red[x], green[x], blue[x] = channel_level(pixel, 0), channel_level(pixel, 1), channel_level(pixel, 2)
        reds = greens = blues = rr = rg = rb = gg = gb = bb = np.int32(0)
        for x in range(len(red)):
            reds, greens, blues = np.int32(reds + red[x]), np.int32(greens + green[x]), np.int32(blues + blue[x])
            rr, gg = np.int32(rr + red[x] * red[x]), np.int32(gg + green[x] * green[x])
            bb, rg = np.int32(bb + blue[x] * blue[x]), np.int32(rg + red[x] * green[x])
            rb, gb = np.int32(rb + red[x] * blue[x]), np.int32(gb + green[x] * blue[x])
        for place, total in enumerate((reds, greens, blues, rr, rg, rb, gg, gb, bb)):
            sums_9[place] += total


def recolored_cpu(pixels_NPP: PackedPixels, sums_N9: Int64s, views: Geometry, memory: BufferPool) -> Float32s:
    """Recolor packed pixels (N, P, P) on a CPU: float32 RGB (N, P, P, 3) in [0, 1].

    sums_N9: sums of the patches' colors, of `warped_cpu`.
    """
    num_views, num_px = len(pixels_NPP), pixels_NPP.shape[1] * pixels_NPP.shape[2]
    affine_N34 = component_affine_cpu(sums_N9, pixels_NPP.shape[1], views["pca_factor"])
    columns = [views["power"], np.log2(views["factor"]), views["shift"], 6 * views["hue_shift"][:, None]]
    jitter_N7 = np.concatenate(columns, axis=1).astype(np.float32)
    out: Float32s = memory.empty((*pixels_NPP.shape, 3), np.float32)
    _write_recolored(pixels_NPP.reshape(num_views, num_px), affine_N34, jitter_N7, out.reshape(num_views, 3 * num_px))
    return out


@compiled
def _write_recolored(pixels_NQ: PackedPixels, affine_N34: Float32s, jitter_N7: Float32s, out_NC: Float32s) -> None:
    """Write recolored pixels, C = 3 Q numbers a view.

    `jitter_N7`: two powers, two log2 of factors, two shifts, saturation's first; hue sixths.
    """
    # Some pixels at a time, so that they stay in the cache; one step for all of them, then the next: a single loop of
    # all steps does not run in vectors, and takes ten times as long (400 us a sample instead of 40).
    planes = np.empty((4, PIXELS_AT_ONCE), np.float32)
    for n in range(len(pixels_NQ)):
        for start in range(0, pixels_NQ.shape[1], PIXELS_AT_ONCE):
            end = start + PIXELS_AT_ONCE
            pixels_Q, out = pixels_NQ[n, start:end], out_NC[n, 3 * start : 3 * end]
            num_px = len(pixels_Q)
            # The planes hold red, green, blue; then hue, saturation, value and the share of full saturation shift; then
            # red, green, value, blue.
            a, b, c, d = planes[0, :num_px], planes[1, :num_px], planes[2, :num_px], planes[3, :num_px]
            _write_scaled(pixels_Q, affine_N34[n], a, b, c)
            _to_hsv(a, b, c, d)
            _jitter(a, b, c, d, jitter_N7[n])
            _to_rgb(a, b, c, d)
            _write_rgb(a, b, d, out)


@compiled
def _write_rgb(red_Q: Float32s, green_Q: Float32s, blue_Q: Float32s, out_C: Float32s) -> None:
    # Into one row of numbers: written to an array of two axes, this does not run in vectors.
    for q in range(len(red_Q)):
        out_C[3 * q], out_C[3 * q + 1], out_C[3 * q + 2] = red_Q[q], green_Q[q], blue_Q[q]


@compiled
def _write_scaled(
    pixels_Q: PackedPixels, affine_34: Float32s, red_Q: Float32s, green_Q: Float32s, blue_Q: Float32s
) -> None:
    (rr, rg, rb, r), (gr, gg, gb, g), (br, bg, bb, b) = affine_34
    for q in range(len(pixels_Q)):
        pixel = pixels_Q[q]
        red, green, blue = (
            np.float32(channel_level(pixel, 0)),
            np.float32(channel_level(pixel, 1)),
            np.float32(channel_level(pixel, 2)),
        )
        red_Q[q] = _cut(rr * red + rg * green + rb * blue + r)
        green_Q[q] = _cut(gr * red + gg * green + gb * blue + g)
        blue_Q[q] = _cut(br * red + bg * green + bb * blue + b)


@compiled
def _cut(number: np.float32) -> np.float32:
    """Clip a number to [0, 1]."""
    number = number if number > np.float32(0) else np.float32(0)
    return number if number < np.float32(1) else np.float32(1)


@compiled
def _to_hsv(red_Q: Float32s, green_Q: Float32s, blue_Q: Float32s, colored_Q: Float32s) -> None:
    """Convert to HSV in place: sixths of a turn of the hue, saturation and value; and how far a color is from gray, 1
    from one level on."""
    for q in range(len(red_Q)):
        red, green, blue = red_Q[q], green_Q[q], blue_Q[q]
        value, least = max(red, green, blue), min(red, green, blue)
        chroma = value - least
        # Choices instead of branches, and one division for three hues: so the loop runs in vectors.
        per_chroma = np.float32(1) / max(chroma, np.float32(TINY))
        hue = (red - green) * per_chroma + np.float32(4)
        hue = (blue - red) * per_chroma + np.float32(2) if value == green else hue
        red_Q[q] = (green - blue) * per_chroma if value == red else hue
        green_Q[q] = chroma / max(value, np.float32(TINY))
        blue_Q[q] = value
        colored_Q[q] = min(chroma * np.float32(1 / FULL_SHIFT_CHROMA), np.float32(1))


@compiled
def _jitter(
    hue_Q: Float32s, saturation_Q: Float32s, value_Q: Float32s, colored_Q: Float32s, jitter_7: Float32s
) -> None:
    for q in range(len(value_Q)):
        hue_Q[q] += jitter_7[6]
        value_Q[q] = _cut(power(value_Q[q], jitter_7[1], jitter_7[3]) + jitter_7[5])
    # The hue of a gray pixel is rounding noise; saturation added to it would show as colored grain.
    for q in range(len(saturation_Q)):
        changed = _cut(power(saturation_Q[q], jitter_7[0], jitter_7[2]) + jitter_7[4])
        saturation_Q[q] = changed * colored_Q[q]


@compiled
def _to_rgb(hue_Q: Float32s, saturation_Q: Float32s, value_Q: Float32s, blue_Q: Float32s) -> None:
    """Convert to RGB in place: red replaces hue, green replaces saturation."""
    for q in range(len(hue_Q)):
        hue, value = hue_Q[q], value_Q[q]
        chroma = value * saturation_Q[q]
        hue_Q[q] = value - chroma * _missing(hue + np.float32(5))
        saturation_Q[q] = value - chroma * _missing(hue + np.float32(3))
        blue_Q[q] = value - chroma * _missing(hue + np.float32(1))


@compiled
def _missing(sixths: np.float32) -> np.float32:
    """Return the share of the chroma, 0 to 1, that a channel lacks; `sixths`: hue plus the channel's offset."""
    sixths -= np.float32(6) * np.floor(sixths * np.float32(1 / 6))
    return _cut(min(sixths, np.float32(4) - sixths))


def jitter_hsv_torch(rgb: torch.Tensor, views: Geometry) -> torch.Tensor:
    """Change saturation, value and hue by `views`: float32 (N, 3, P, P) of float32 (N, P, P, 3), both in [0, 1]."""
    # Kornia takes 1.7 times as long.
    # 1. To hue, saturation, value. A chroma of 0 is divided by 1e-12, not by 0: its hue does not matter.
    colors = rgb.flatten(1, 2)
    value, brightest = colors.max(-1)
    chroma = value - colors.amin(-1)
    r, g, b = colors.unbind(-1)
    safe = chroma.clamp_min(1e-12)
    sixths = torch.stack([(g - b) / safe, (b - r) / safe + 2, (r - g) / safe + 4], -1)
    hue = sixths.gather(-1, brightest.unsqueeze(-1)).squeeze(-1) + _column(views["hue_shift"] * 6, value)
    # 2. Power, factor and shift.
    saturation, value = jitter_saturation_value(chroma / value.clamp_min(1e-12), value, views)
    # 3. Back to RGB: the channels are the same function of the hue, a third of a turn apart.
    planes = []
    for offset in (5, 3, 1):
        k = (hue + offset).remainder(6)
        planes.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(planes, 1).clamp_(0, 1).view(len(rgb), 3, *rgb.shape[1:3])


def jitter_saturation_value(
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
