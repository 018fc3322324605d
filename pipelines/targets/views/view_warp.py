"""Cut exemplar's views: squares of a canvas, moved, turned and scaled in a single interpolation, without aliasing.

Beyond its border a canvas is mirrored. Compiled loops for a CPU; torch for a GPU, all views at once.

Letters: B canvases, S their side, N views, P patch side, W weights.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pipelines.base.buffer_pool import BufferPool
from pipelines.kernels.compiled import compiled
from pipelines.kernels.packed_pixels import PackedPixels, channel_level, pack_rgb
from pipelines.targets.views.view_colors import write_color_sums

__all__ = ["warped_cpu", "warped_torch"]

UInt8s = npt.NDArray[np.uint8]
UInt16s = npt.NDArray[np.uint16]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

LARGEST_VARIANCE = 0.5
"""Variance of the widest three weights, 1/4, 1/2, 1/4, in square pixels."""
HALF = 1 << 15


def gaussian_weights(scale_N: Float64s) -> tuple[UInt16s, Int64s]:
    """Return the weights that smooth a canvas before sampling, uint16 (N, W) in 256ths, and their reach in px, (N,).

    Weights beyond the reach are 0.
    """
    # Sampling between pixels blurs like a triangle of variance 1/6. Content that gets smaller by `scale` needs scale² /
    # 6, so smoothing adds the difference.
    each = [_binomial(*_passes(scale)) for scale in scale_N.tolist()]
    reach_N = np.array([len(one) // 2 for one in each], np.int64)
    middle = int(reach_N.max(initial=0))
    weights_NW = np.zeros((len(each), 2 * middle + 1), np.uint16)
    for row, one, reach in zip(weights_NW, each, reach_N.tolist(), strict=True):
        row[middle - reach : middle + reach + 1] = one
    return weights_NW, reach_N


def _passes(scale: float) -> tuple[int, int]:
    """Return how often to smooth with three weights, and the outer weight in 256ths."""
    missing = max(scale**2 - 1, 0) / 6
    num_passes = math.ceil(missing / LARGEST_VARIANCE)
    return num_passes, round(128 * missing / max(num_passes, 1))


@lru_cache(maxsize=1024)
def _binomial(num_passes: int, side: int) -> UInt16s:
    """Return the weights of `num_passes` passes of (side, 256 - 2 side, side) / 256, as whole 256ths of sum 256."""
    weights = np.ones(1)
    for _ in range(num_passes if side else 0):
        weights = np.convolve(weights, np.array([side, 256 - 2 * side, side]) / 256)
    whole = np.rint(256 * weights)
    whole[len(whole) // 2] += 256 - whole.sum()
    return whole.astype(np.uint16)


def warped_cpu(
    canvases: UInt8s, affine: Float64s, scale: Float64s, patch_px: int, memory: BufferPool
) -> tuple[PackedPixels, Int64s]:
    """Cut views on a CPU: packed pixels (N, P, P) of RGB canvases (B, S, S, 3), and sums of their colors (N, 9), as
    `view_colors.write_color_sums`. Views of one canvas follow each other.

    affine: (N, 2, 3), from a patch pixel's index (x, y, 1) to a canvas pixel's (x, y). scale: (N,), above 1 if content
    gets smaller.
    """
    weights_NW, reach_N = gaussian_weights(scale)
    out: PackedPixels = memory.empty((len(affine), patch_px, patch_px), np.uint32)
    sums_N9 = np.empty((len(affine), 9), np.int64)
    lines = canvases.reshape(len(canvases), canvases.shape[1], -1)
    _write_views(lines, affine, _read_boxes(affine, patch_px), weights_NW, reach_N, out, sums_N9)
    return out, sums_N9


def _read_boxes(affine: Float64s, patch_px: int) -> Int64s:
    """Return the box of the pixels that each view is sampled from, with a border of one: x0, y0, x1, y1 (N, 4)."""
    last = patch_px - 1
    xy = affine @ np.array([(0, 0, 1), (0, last, 1), (last, 0, 1), (last, last, 1)]).T
    return np.concatenate([np.floor(xy.min(-1)) - 1, np.floor(xy.max(-1)) + 3], axis=1).astype(np.int64)


@compiled
def _write_views(
    lines_BST: UInt8s,
    affine_N23: Float64s,
    box_N4: Int64s,
    weights_NW: UInt16s,
    reach_N: Int64s,
    out_NPP: PackedPixels,
    sums_N9: Int64s,
) -> None:
    """Write all views. `lines_BST`: the T = 3 S bytes of each of the S lines of B canvases."""
    # For each view: 1. copy the part of the canvas that it needs, mirrored beyond the border, so that later loops need
    # no checks; 2. smooth it; 3. pack pixels, so that sampling reads four numbers and not twelve; 4. sample;
    # 5. sum colors, while the view is in the cache: later that would take five times as long.
    per_canvas, middle = len(out_NPP) // max(len(lines_BST), 1), weights_NW.shape[1] // 2
    for n in range(len(out_NPP)):
        x0, y0, x1, y1 = box_N4[n]
        width, height, reach = x1 - x0, y1 - y0, reach_N[n]
        part = np.empty((height + 2 * reach, 3 * (width + 2 * reach)), np.uint8)
        _cut(lines_BST[n // per_canvas], x0 - reach, y0 - reach, part)
        if reach:
            part = smoothed_views(part, weights_NW[n, middle - reach : middle + reach + 1])
        words = np.empty((height, width), np.uint32)
        for y in range(height):
            line, line_of_words = part[y], words[y]
            for x in range(width):
                red, green, blue = line[3 * x], line[3 * x + 1], line[3 * x + 2]
                line_of_words[x] = pack_rgb(np.int32(red), np.int32(green), np.int32(blue))
        _sample(words, affine_N23[n] - np.array([[0.0, 0.0, x0], [0.0, 0.0, y0]]), out_NPP[n])
        write_color_sums(out_NPP[n], sums_N9[n])


@compiled
def _cut(lines_ST: UInt8s, left: int, top: int, part: UInt8s) -> None:
    """Copy the part of a canvas that begins at (left, top), mirrored beyond the border."""
    height, width, num_px = len(lines_ST), lines_ST.shape[1] // 3, part.shape[1] // 3
    first = min(max(-left, 0), num_px)
    end = min(max(width - left, first), num_px)
    for y in range(len(part)):
        line, out = lines_ST[_mirrored(top + y, height)], part[y]
        inside, there = out[3 * first : 3 * end], line[3 * (left + first) : 3 * (left + end)]
        # Byte by byte over slices: this loop runs in vectors, while only the few pixels outside need the mirror.
        for place in range(len(inside)):
            inside[place] = there[place]
        for start, stop in ((0, first), (end, num_px)):
            for x in range(start, stop):
                pixel = line[3 * _mirrored(left + x, width) :]
                out[3 * x], out[3 * x + 1], out[3 * x + 2] = pixel[0], pixel[1], pixel[2]


@compiled
def _mirrored(index: int, size: int) -> int:
    """Return the index inside 0 to size - 1 that an index shows: -1 shows 1, size shows size - 2."""
    if size == 1:
        return 0
    index %= 2 * (size - 1)
    return min(index, 2 * (size - 1) - index)


@compiled
def smoothed_views(part: UInt8s, weights_W: UInt16s) -> UInt8s:
    """Smooth a part along both axes, without its border of the weights' reach. Whole numbers, halves rounded up."""
    # Rows first, into 16 bits: 255 * 256 just fits, and keeps all bits until the single rounding after the columns.
    reach = len(weights_W) // 2
    height, width = len(part) - 2 * reach, part.shape[1] - 6 * reach
    rows, total = np.empty((len(part), width), np.uint16), np.empty(width, np.uint32)
    smooth = np.empty((height, width), np.uint8)
    for y in range(len(part)):
        row, center = rows[y], part[y, 3 * reach : 3 * reach + width]
        for place in range(width):
            row[place] = weights_W[reach] * np.uint16(center[place])
        for k in range(reach):
            before, after = part[y, 3 * k : 3 * k + width], part[y, 3 * (2 * reach - k) : 3 * (2 * reach - k) + width]
            for place in range(width):
                row[place] += weights_W[k] * (np.uint16(before[place]) + np.uint16(after[place]))
    for y in range(height):
        for place in range(width):
            total[place] = np.uint32(HALF) + np.uint32(weights_W[reach]) * np.uint32(rows[y + reach, place])
        for k in range(reach):
            above, below = rows[y + k], rows[y + 2 * reach - k]
            for place in range(width):
                total[place] += np.uint32(weights_W[k]) * (np.uint32(above[place]) + np.uint32(below[place]))
        for place in range(width):
            smooth[y, place] = np.uint8(total[place] >> np.uint32(16))
    return smooth


@compiled
def _sample(words: PackedPixels, matrix_23: Float64s, out_PP: PackedPixels) -> None:
    """Sample a view between four pixels each, to the nearest level."""
    # For each line: 1. positions and fractions; 2. gather the four pixels, the only loop with scattered reads; 3.
    # interpolate. Apart, the first and the last run in vectors.
    side, width, flat = len(out_PP), words.shape[1], words.reshape(-1)
    place, in_x, in_y = np.empty(side, np.int32), np.empty(side, np.float32), np.empty(side, np.float32)
    four = np.empty((4, side), np.uint32)
    upper, upper_next, lower, lower_next = four[0], four[1], four[2], four[3]
    step_x, step_y = np.float32(matrix_23[0, 0]), np.float32(matrix_23[1, 0])
    for row in range(side):
        start_x = np.float32(matrix_23[0, 1] * row + matrix_23[0, 2])
        start_y = np.float32(matrix_23[1, 1] * row + matrix_23[1, 2])
        for i in range(side):
            x, y = step_x * np.float32(i) + start_x, step_y * np.float32(i) + start_y
            in_x[i], in_y[i] = x - np.floor(x), y - np.floor(y)
            place[i] = np.int32(np.floor(y)) * np.int32(width) + np.int32(np.floor(x))
        for i in range(side):
            here = np.uint64(place[i])
            upper[i], upper_next[i] = flat[here], flat[here + np.uint64(1)]
            lower[i], lower_next[i] = flat[here + np.uint64(width)], flat[here + np.uint64(width + 1)]
        line = out_PP[row]
        for i in range(side):
            line[i] = pack_rgb(
                _between(upper[i], upper_next[i], lower[i], lower_next[i], 0, in_x[i], in_y[i]),
                _between(upper[i], upper_next[i], lower[i], lower_next[i], 1, in_x[i], in_y[i]),
                _between(upper[i], upper_next[i], lower[i], lower_next[i], 2, in_x[i], in_y[i]),
            )


@compiled
def _between(
    upper: np.uint32,
    upper_next: np.uint32,
    lower: np.uint32,
    lower_next: np.uint32,
    channel: int,
    in_x: np.float32,
    in_y: np.float32,
) -> np.int32:
    above, above_next = np.float32(channel_level(upper, channel)), np.float32(channel_level(upper_next, channel))
    below, below_next = np.float32(channel_level(lower, channel)), np.float32(channel_level(lower_next, channel))
    above += in_x * (above_next - above)
    below += in_x * (below_next - below)
    return np.int32(np.rint(above + in_y * (below - above)))


def warped_torch(pixels: torch.Tensor, affine: Float64s, scale: Float64s, patch_px: int) -> torch.Tensor:
    """Cut views on a device: uint8 (N, P, P, 3) of pixels (B, S, S, 3). Arguments as for `warped_cpu`."""
    per_canvas = len(affine) // max(len(pixels), 1)
    canvases = pixels.permute(0, 3, 1, 2).float().repeat_interleave(per_canvas, 0)
    smooth = smoothed_torch(canvases, gaussian_weights(scale)[0])
    # Kornia's affine warp multiplies matrices; in TF32, with which recipes train, that is up to 1.7 levels off.
    grid = sampling_grid(affine, patch_px, (pixels.shape[1], pixels.shape[2]), pixels.device)
    sampled = F.grid_sample(smooth, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return sampled.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def smoothed_torch(canvases: torch.Tensor, weights_NW: UInt16s) -> torch.Tensor:
    """Smooth each canvas with its weights along both axes: float32 (N, 3, S, S), whole levels."""
    # Kornia's Gaussian is up to 5 levels from the whole 256ths of the CPU path.
    num_views, channels = canvases.shape[:2]
    radius = weights_NW.shape[1] // 2
    kernel = torch.from_numpy(weights_NW / 256).to(canvases).repeat_interleave(channels, 0)[:, None, None]
    planes = F.pad(canvases.flatten(0, 1)[None], (radius,) * 4, mode="reflect")
    rows = F.conv2d(planes, kernel, groups=num_views * channels)
    columns = F.conv2d(rows, kernel.transpose(2, 3), groups=num_views * channels)
    # Halves up, as the loops on a CPU round.
    return columns.add_(0.5).floor_().view(canvases.shape)


def sampling_grid(affine: Float64s, side_px: int, size_px: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return sampling positions for grid_sample, float32 (N, side, side, 2); -1 and 1 are centres of border pixels.

    affine: (N, 2, 3), from patch to canvas. size_px: height and width of a canvas.
    """
    height_px, width_px = size_px
    to_grid = affine * (2 / np.array([[width_px - 1], [height_px - 1]]))
    to_grid[:, :, 2] -= 1
    # On the device and not on the CPU: computing these many numbers there limited exemplar to a quarter of its speed.
    index = torch.arange(side_px, dtype=torch.float64, device=device)
    x, y = torch.meshgrid(index, index, indexing="xy")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    return torch.einsum("hwk,njk->nhwj", points, torch.from_numpy(to_grid).to(device)).float()
