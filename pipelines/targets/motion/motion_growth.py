"""From points that surely move to all pixels that move with them.

A pixel near a seed follows the nearest seed's motion, or stays. To follow, it must look the same along the motion; its
place must look different when it has left; and where it arrives must look different from before, or the flat ground
around an object would seem to move along.

Letters: T frames, H W size, N seeds. Frames are gray uint8 (T, H, W), stabilized, so that the background stays. A
motion is float32 (T, N, 2): how far, x and y in pixels, from its place in the first frame a seed is at frame t, NaN
when not seen.
"""

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled
from pipelines.targets.motion.flow import gray_at

__all__ = ["MAX_GRAY_DIFFERENCE", "grow"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

SMOOTH_PX = 5
MAX_GRAY_DIFFERENCE = 10
"""Differences are cut here: beyond it a pixel is simply another one, and must not outvote its neighbours."""

# Chosen together with the limits in motion_mask.py. Without the second, mean IoU falls from 0.88 to 0.84.
MIN_LEAVING_GAIN = 1.0
MIN_ARRIVING_GAIN = 0.5


def grow(steady_THW: Bytes, inside_THW: Bools, seeds_N2: Floats, motion_TN2: Floats, reach_px: float) -> Bools:
    """(H, W): pixels near a seed that follow the nearest seed's motion rather than stay."""
    height, width = steady_THW.shape[1:]
    low = np.floor(seeds_N2.min(axis=0) - reach_px).astype(int).clip(0)
    high = np.ceil(seeds_N2.max(axis=0) + reach_px + 1).astype(int).clip(max=(width, height))
    window = slice(low[1], high[1]), slice(low[0], high[0])
    region_HW, seed_of_region, distance_HW = _regions(seeds_N2 - low, (high[0] - low[0], high[1] - low[1]))
    leaving_HW, arriving_HW = np.zeros(region_HW.shape, np.float32), np.zeros(region_HW.shape, np.float32)
    far_px = reach_px + SMOOTH_PX
    motion_TR2 = motion_TN2[:, seed_of_region]
    _write_gains(
        steady_THW, inside_THW, (low[0], low[1]), region_HW, distance_HW, motion_TR2, far_px, leaving_HW, arriving_HW
    )
    is_moving = (_smooth(leaving_HW) > MIN_LEAVING_GAIN) & (distance_HW < reach_px)
    is_moving &= _smooth(arriving_HW) > MIN_ARRIVING_GAIN
    moving = np.zeros((height, width), np.bool_)
    moving[window] = is_moving
    return moving


def _regions(seeds_N2: Floats, size: tuple[int, int]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp], Floats]:
    """Of a (width, height) window the regions of pixels that are nearest to the same seed, by number; the seed of each
    number; and every pixel's distance to its seed."""
    width, height = size
    x, y = np.rint(seeds_N2).astype(int).clip(0, (width - 1, height - 1)).T
    blank = np.full((height, width), 255, np.uint8)
    blank[y, x] = 0
    distance, region = cv2.distanceTransformWithLabels(blank, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    seed_of_region = np.zeros(len(x) + 1, np.intp)
    seed_of_region[region[y, x]] = np.arange(len(x))
    return np.asarray(region, np.int32), seed_of_region, np.asarray(distance, np.float32)


@compiled
def _write_gains(
    steady_THW: Bytes,
    inside_THW: Bools,
    corner_xy: tuple[int, int],
    region_HW: npt.NDArray[np.int32],
    distance_HW: Floats,
    motion_TR2: Floats,
    far_px: float,
    leaving_HW: Floats,
    arriving_HW: Floats,
) -> None:
    """By how much moving explains a window's pixels better than staying, mean over the frames in which they are seen;
    of pixels further than `far_px` from every seed nothing is written. Motions (T, R, 2) are those of the regions.

    Leaving: at the pixel's place of the first frame. Arriving: at the place it comes to.
    """
    first_HW = steady_THW[0]
    for row in range(leaving_HW.shape[0]):
        for column in range(leaving_HW.shape[1]):
            if distance_HW[row, column] > far_px:
                continue
            x, y, region = corner_xy[0] + column, corner_xy[1] + row, region_HW[row, column]
            gray = np.float32(first_HW[y, x])
            leaving, arriving, num_seen = np.float32(0), np.float32(0), 0
            for t in range(1, len(steady_THW)):
                there_x, there_y = np.float32(x) + motion_TR2[t, region, 0], np.float32(y) + motion_TR2[t, region, 1]
                if np.isnan(there_x) or not inside_THW[t, y, x]:
                    continue
                found = gray_at(steady_THW[t], there_x, there_y)
                misses = _difference(found, gray)
                leaving += _difference(np.float32(steady_THW[t, y, x]), gray) - misses
                arriving += _difference(found, gray_at(first_HW, there_x, there_y)) - misses
                num_seen += 1
            if num_seen:
                leaving_HW[row, column] = leaving / np.float32(num_seen)
                arriving_HW[row, column] = arriving / np.float32(num_seen)


@compiled
def _difference(one: np.float32, other: np.float32) -> np.float32:
    return min(abs(one - other), np.float32(MAX_GRAY_DIFFERENCE))


def _smooth(mean_HW: Floats) -> Floats:
    return np.asarray(cv2.blur(mean_HW, (SMOOTH_PX, SMOOTH_PX)), np.float32)
