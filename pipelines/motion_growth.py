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

from pipelines.flow import look_up_all

__all__ = ["MAX_GRAY_DIFFERENCE", "grow"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Int8s = npt.NDArray[np.int8]

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
    nearest_HW, distance_HW = _nearest_seed(seeds_N2 - low, (high[0] - low[0], high[1] - low[1]))
    is_known_TN = np.isfinite(motion_TN2[1:, :, 0])
    motion_TN2 = np.where(is_known_TN[..., None], motion_TN2[1:], np.float32(0))
    is_seen_THW = inside_THW[1:, window[0], window[1]] & np.take(is_known_TN, nearest_HW, axis=1)
    leaving_THW, arriving_THW = _gains(steady_THW, window, _places(window, motion_TN2, nearest_HW))
    is_moving = (_smooth_mean(leaving_THW, is_seen_THW) > MIN_LEAVING_GAIN) & (distance_HW < reach_px)
    is_moving &= _smooth_mean(arriving_THW, is_seen_THW) > MIN_ARRIVING_GAIN
    moving = np.zeros((height, width), np.bool_)
    moving[window] = is_moving
    return moving


def _nearest_seed(seeds_N2: Floats, size: tuple[int, int]) -> tuple[npt.NDArray[np.intp], Floats]:
    """For every pixel of a (width, height) window, the index of the nearest seed and the distance to it."""
    width, height = size
    x, y = np.rint(seeds_N2).astype(int).clip(0, (width - 1, height - 1)).T
    blank = np.full((height, width), 255, np.uint8)
    blank[y, x] = 0
    distance, region = cv2.distanceTransformWithLabels(blank, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    seed_of_region = np.zeros(len(x) + 1, np.intp)
    seed_of_region[region[y, x]] = np.arange(len(x))
    return seed_of_region[region], np.asarray(distance, np.float32)


def _places(window: tuple[slice, slice], motion_TN2: Floats, nearest_HW: npt.NDArray[np.intp]) -> Floats:
    """(T, H, W, 2): x and y that every pixel of a window comes to along its seed's motion."""
    y, x = np.ogrid[window]
    # As complex numbers x and y are gathered in one go.
    start_HW = (x + 1j * y).astype(np.complex64)
    moved = np.take(np.ascontiguousarray(motion_TN2).view(np.complex64)[..., 0], nearest_HW, axis=1) + start_HW
    return np.asarray(moved).view(np.float32).reshape(*moved.shape, 2)


def _gains(steady_THW: Bytes, window: tuple[slice, slice], place_THW2: Floats) -> tuple[Int8s, Int8s]:
    """Both (T-1, H, W) of the window: by how much moving explains frame t better than staying.

    Leaving: at the pixel's place of the first frame. Arriving: at the place it comes to.
    """
    first_HW = np.ascontiguousarray(steady_THW[0][window])
    before_THW = look_up_all(np.broadcast_to(steady_THW[:1], steady_THW[1:].shape), place_THW2)
    found_THW = look_up_all(steady_THW[1:], place_THW2)
    leaving, arriving = np.empty(found_THW.shape, np.int8), np.empty(found_THW.shape, np.int8)
    for t, found_HW in enumerate(found_THW):
        misses_HW = _difference(found_HW, first_HW)
        stays_HW = _difference(steady_THW[t + 1][window], first_HW)
        cv2.subtract(stays_HW, misses_HW, leaving[t], dtype=cv2.CV_8S)
        cv2.subtract(_difference(found_HW, before_THW[t]), misses_HW, arriving[t], dtype=cv2.CV_8S)
    return leaving, arriving


def _difference(one: Bytes, other: Bytes) -> Bytes:
    return np.asarray(cv2.min(cv2.absdiff(one, other), MAX_GRAY_DIFFERENCE), np.uint8)  # type: ignore[call-overload]


def _smooth_mean(gain_THW: Int8s, is_seen_THW: Bools) -> Floats:
    """(H, W): the mean over the frames in which a pixel is seen, 0 where there is none, blurred."""
    count_HW = is_seen_THW.sum(axis=0, dtype=np.uint16)
    total_HW = (gain_THW * is_seen_THW).sum(axis=0, dtype=np.int32)
    mean_HW = total_HW / np.maximum(count_HW, 1).astype(np.float32)
    return np.asarray(cv2.blur(mean_HW.astype(np.float32), (SMOOTH_PX, SMOOTH_PX)), np.float32)
