"""Patches scaled down and up again at random, so that their sharpness tells nothing. After Doersch et al. 2015.

Down by the mean of areas, up linearly, as OpenCV's INTER_AREA and INTER_LINEAR do. Compiled loops for a CPU, matrices
for a GPU.
Letters: N patches, P their side, n the side that a patch is scaled down to, W any width.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from pipelines.kernels.compiled import compiled

__all__ = ["resample_plane", "resampled", "smallest_px"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]

SMALLEST_SIDE = 10 / 96


def smallest_px(patch_px: int) -> int:
    """The least side that a patch is scaled down to."""
    return max(1, round(patch_px * SMALLEST_SIDE))


def resampled(planes: torch.Tensor, resample_px: Int64s) -> torch.Tensor:
    """Planes (N, P, P) or (N, 3, P, P), those with resample_px (N,) below P scaled down and up again, in place."""
    return (resampled_cpu if planes.device.type == "cpu" else resampled_device)(planes, resample_px)


def resampled_cpu(planes: torch.Tensor, resample_px: Int64s) -> torch.Tensor:
    for row in np.flatnonzero(resample_px < planes.shape[-1]):
        for plane in planes[row].view(-1, *planes.shape[-2:]).numpy():
            resample_plane(plane, int(resample_px[row]))
    return planes


@compiled
def resample_plane(plane_PP: Float32s, small_px: int) -> None:
    """Scale a plane down to `small_px` and up again, in place; a plane of that side or less is left alone."""
    # Both axes as sums of whole rows, which run in vectors: the plane is turned over between the axes. The order: 1. y
    # down, 2. x down, 3. x up, 4. y up; between 2 and 3 the plane is smallest.
    side = len(plane_PP)
    if small_px < side:
        low = np.empty((small_px, side), np.float32)
        _rows_down(plane_PP, low)
        low_turned, smallest = _turned(low), np.empty((small_px, small_px), np.float32)
        _rows_down(low_turned, smallest)
        _rows_up(smallest, low_turned)
        _rows_up(_turned(low_turned), plane_PP)


@compiled
def _rows_down(rows_PW: Float32s, out_nW: Float32s) -> None:
    """Each row of the result is the mean of the rows that it covers, those at its ends in part."""
    side, small_px = len(rows_PW), len(out_nW)
    for y in range(small_px):
        start, end, out = y * side / small_px, (y + 1) * side / small_px, out_nW[y]
        out[:] = 0
        for source in range(int(start), min(int(np.ceil(end)), side)):
            share = np.float32((min(end, source + 1) - max(start, source)) * small_px / side)
            row = rows_PW[source]
            for x in range(len(out)):
                out[x] += share * row[x]


@compiled
def _rows_up(rows_nW: Float32s, out_PW: Float32s) -> None:
    """Each row of the result lies between the centres of two rows; beyond the first and the last they are repeated."""
    small_px, side = len(rows_nW), len(out_PW)
    for y in range(side):
        centre = min(max((y + 0.5) * small_px / side - 0.5, 0.0), small_px - 1.0)
        upper = int(centre)
        below, above = np.float32(centre - upper), np.float32(1 - (centre - upper))
        row, next_row, out = rows_nW[upper], rows_nW[min(upper + 1, small_px - 1)], out_PW[y]
        for x in range(len(out)):
            out[x] = above * row[x] + below * next_row[x]


@compiled
def _turned(plane_HW: Float32s) -> Float32s:
    """The transposed plane, contiguous."""
    height, width = plane_HW.shape
    out_WH = np.empty((width, height), np.float32)
    for x in range(width):
        for y in range(height):
            out_WH[x, y] = plane_HW[y, x]
    return out_WH


def resampled_device(planes: torch.Tensor, resample_px: Int64s) -> torch.Tensor:
    patch_px = planes.shape[-1]
    rows = np.flatnonzero(resample_px < patch_px)
    if len(rows):
        which = torch.from_numpy(resample_px[rows] - smallest_px(patch_px)).to(planes.device)
        # Kornia's resize is 2.5 levels from the CPU path.
        # Down and up again as one matrix for each axis, so that patches of different sizes share a batch.
        matrix = _resampling(patch_px, planes.device)[which]
        if planes.dim() == 4:
            matrix = matrix.unsqueeze(1)
        index = torch.from_numpy(rows).to(planes.device)
        planes[index] = matrix @ planes[index] @ matrix.transpose(-1, -2)
    return planes


@lru_cache(maxsize=8)
def _resampling(patch_px: int, device: torch.device) -> torch.Tensor:
    """Matrices (sizes, P, P) that scale a line down to n px by area and up again linearly, n from smallest to P - 1.

    Scaling as two matrix products treats patches of different n in one call, and alike on every device.
    """
    sizes = range(smallest_px(patch_px), max(patch_px, smallest_px(patch_px) + 1))
    matrices = [_up_linear(patch_px, n) @ _down_area(patch_px, n) for n in sizes]
    return torch.from_numpy(np.stack(matrices).astype(np.float32)).to(device)


def _down_area(patch_px: int, small_px: int) -> npt.NDArray[np.float64]:
    """(n, P): the share of each source pixel in each small pixel."""
    edge = np.arange(small_px + 1) * patch_px / small_px
    source = np.arange(patch_px)
    overlap = np.minimum(edge[1:, None], source + 1) - np.maximum(edge[:-1, None], source)
    shares: npt.NDArray[np.float64] = np.maximum(overlap, 0) * small_px / patch_px
    return shares


def _up_linear(patch_px: int, small_px: int) -> npt.NDArray[np.float64]:
    """(P, n): linear interpolation between small pixels' centres, the border repeated."""
    centre = (np.arange(patch_px) + 0.5) * small_px / patch_px - 0.5
    distance = np.abs(np.clip(centre, 0, small_px - 1)[:, None] - np.arange(small_px))
    weights: npt.NDArray[np.float64] = np.maximum(1 - distance, 0)
    return weights
