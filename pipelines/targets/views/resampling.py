"""Patches scaled down and up again at random, so that their sharpness tells nothing. After Doersch et al. 2015.

Letters: N patches, P their side.
"""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch

__all__ = ["resample_cpu", "resampled", "smallest_px"]

Int64s = npt.NDArray[np.int64]

SMALLEST_SIDE = 10 / 96


def smallest_px(patch_px: int) -> int:
    """The least side that a patch is scaled down to."""
    return max(1, round(patch_px * SMALLEST_SIDE))


def resampled(planes: torch.Tensor, resample_px: Int64s) -> torch.Tensor:
    """Planes (N, P, P) or (N, 3, P, P), those with resample_px (N,) below P scaled down and up again, in place."""
    return (_resampled_cpu if planes.device.type == "cpu" else _resampled_device)(planes, resample_px)


def _resampled_cpu(planes: torch.Tensor, resample_px: Int64s) -> torch.Tensor:
    for row in np.flatnonzero(resample_px < planes.shape[-1]):
        for plane in planes[row].view(-1, *planes.shape[-2:]).numpy():
            resample_cpu(plane, int(resample_px[row]))
    return planes


def resample_cpu(plane: npt.NDArray[np.float32], small_px: int) -> None:
    """A plane (P, P) in place."""
    if small_px < len(plane):
        small = cv2.resize(plane, (small_px, small_px), interpolation=cv2.INTER_AREA)
        plane[:] = cv2.resize(small, plane.shape, interpolation=cv2.INTER_LINEAR)


def _resampled_device(planes: torch.Tensor, resample_px: Int64s) -> torch.Tensor:
    patch_px = planes.shape[-1]
    rows = np.flatnonzero(resample_px < patch_px)
    if len(rows):
        which = torch.from_numpy(resample_px[rows] - smallest_px(patch_px)).to(planes.device)
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
