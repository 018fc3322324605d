"""Which tracked points surely move on their own: seeds, from which masks grow (motion_growth.py).

A seed looks the same along its motion and different in place; and its motion is not arguable, as on a smooth surface,
where every motion fits.

Letters: T frames, H W size, N points, K motions tried for each point, M points that may be seeds. Frames are gray uint8
(T, H, W), stabilized, so that the background stays; lengths in pixels. A motion is float32 (T, N, 2): how far from its
place in the first frame the point is at frame t, NaN when not seen.
"""

import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled
from pipelines.targets.motion.flow import gray_at
from pipelines.targets.motion.motion_growth import MAX_GRAY_DIFFERENCE

__all__ = ["MIN_FRAMES_SEEN", "find_seeds"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

NUM_NEIGHBORS = 6
PATCH_PX = 5
MIN_FRAMES_SEEN = 2

# Chosen on 168 composites, none of whose photos and cut-outs is among those the results are reported on.
STILL_COST_RATIO = 0.75
MIN_STILL_GAIN = 0.5
ARGUABLE_COST_RATIO = 0.85
MIN_ARGUABLE_GAIN = 2.0


def find_seeds(steady_THW: Bytes, points_N2: Floats, motion_TN2: Floats, least_px: float) -> tuple[Bools, Floats]:
    """Which points surely move, over the whole clip or over its first frames only; and the motion of those."""
    is_seed_N, best_TN2 = np.zeros(len(points_N2), np.bool_), np.full_like(motion_TN2, np.nan)
    # Limbs turn and faces change within a second; half of it still shows that they move.
    for num_frames in (len(steady_THW), len(steady_THW) // 2):
        left = np.flatnonzero(~is_seed_N)
        seeds, motion_TM2 = _judge(steady_THW[:num_frames], points_N2[left], motion_TN2[:num_frames, left], least_px)
        is_seed_N[left[seeds]], best_TN2[:num_frames, left[seeds]] = True, motion_TM2
    return is_seed_N, best_TN2


def _judge(
    steady_THW: Bytes, points_N2: Floats, motion_TN2: Floats, least_px: float
) -> tuple[npt.NDArray[np.intp], Floats]:
    """Which points surely move, and the motion of each: its own or, where that fits better, a neighbour's."""
    is_far_N = np.nanmax((motion_TN2**2).sum(axis=2), axis=0, initial=0.0) > least_px**2
    near_NK = _nearest_points(points_N2)
    tried = np.flatnonzero(is_far_N[near_NK].any(axis=1))
    first_HW, later_THW, later_TN2 = steady_THW[0], steady_THW[1:], motion_TN2[1:]
    places_M2, itself_M1 = points_N2[tried], tried[:, None]
    best_M, cost_M = _cheapest(first_HW, later_THW, places_M2, later_TN2, near_NK[tried])
    _, still_M = _cheapest(first_HW, later_THW, places_M2, np.zeros_like(later_TN2), itself_M1)
    # What the first frame alone costs along the motion: near nothing on a smooth surface, where nothing can be told.
    _, arguable_M = _cheapest(first_HW, first_HW[None], places_M2, later_TN2, best_M[:, None])
    is_better_M = (cost_M < STILL_COST_RATIO * still_M) & (still_M - cost_M > MIN_STILL_GAIN)
    is_clear_M = (cost_M < ARGUABLE_COST_RATIO * arguable_M) & (arguable_M - cost_M > MIN_ARGUABLE_GAIN)
    is_seed_M = is_far_N[best_M] & is_better_M & is_clear_M
    return tried[is_seed_M], motion_TN2[:, best_M[is_seed_M]]


@compiled
def _nearest_points(points_N2: Floats) -> npt.NDArray[np.int64]:
    """(N, K): each point's nearest points, itself first; of equally near ones those that come first."""
    num_points = len(points_N2)
    num_near = min(NUM_NEIGHBORS + 1, num_points)
    near_NK = np.empty((num_points, num_near), np.int64)
    square_K = np.empty(num_near, np.float32)
    for n in range(num_points):
        (x, y), num_found = points_N2[n], 0
        for other in range(num_points):
            right, down = points_N2[other, 0] - x, points_N2[other, 1] - y
            square = right * right + down * down
            if num_found == num_near and square >= square_K[num_near - 1]:
                continue
            place = min(num_found, num_near - 1)
            while place and square_K[place - 1] > square:
                square_K[place], near_NK[n, place] = square_K[place - 1], near_NK[n, place - 1]
                place -= 1
            square_K[place], near_NK[n, place] = square, other
            num_found = min(num_found + 1, num_near)
    return near_NK


@compiled
def _cheapest(
    first_HW: Bytes, later_THW: Bytes, points_N2: Floats, motion_TN2: Floats, tried_NK: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Along the motion of which of the points `tried_NK` a point costs least, the first of equal ones; and that cost.

    The cost is the mean difference of a point's patch in the first frame to that in later ones, or in one that stands
    for all of them; high if rarely seen.
    """
    num_points, num_later = len(tried_NK), len(motion_TN2)
    best_N, cost_N = tried_NK[:, 0].copy(), np.full(num_points, np.float32(MAX_GRAY_DIFFERENCE))
    wanted, found = np.empty((PATCH_PX + 1, PATCH_PX), np.float32), np.empty((PATCH_PX + 1, PATCH_PX), np.float32)
    for n in range(num_points):
        x, y = points_N2[n]
        _read_patch(first_HW, x, y, wanted)
        for k in range(tried_NK.shape[1]):
            total, num_seen = np.float32(0), 0
            for t in range(num_later):
                right, down = motion_TN2[t, tried_NK[n, k]]
                if np.isnan(right):
                    continue
                num_seen += 1
                _read_patch(later_THW[min(t, len(later_THW) - 1)], x + right, y + down, found)
                for row in range(PATCH_PX):
                    in_row = np.float32(0)
                    for column in range(PATCH_PX):
                        in_row += min(abs(found[row, column] - wanted[row, column]), np.float32(MAX_GRAY_DIFFERENCE))
                    total += in_row
                if total >= cost_N[n] * np.float32(num_later * PATCH_PX**2):
                    break  # the rest cannot make it the cheapest
            else:
                if num_seen >= min(MIN_FRAMES_SEEN, num_later):
                    cost = total / np.float32(num_seen * PATCH_PX**2)
                    if cost < cost_N[n]:
                        best_N[n], cost_N[n] = tried_NK[n, k], cost
    return best_N, cost_N


@compiled
def _read_patch(gray_HW: Bytes, x: np.float32, y: np.float32, out: Floats) -> None:
    """The patch around a place, as by `gray_at`, in all rows of `out` but the last."""
    height, width = gray_HW.shape
    reach_px = PATCH_PX // 2
    left, top = np.int64(np.floor(x)) - reach_px, np.int64(np.floor(y)) - reach_px
    if left < 0 or top < 0 or left + PATCH_PX >= width or top + PATCH_PX >= height:
        for row in range(PATCH_PX):
            for column in range(PATCH_PX):
                out[row, column] = gray_at(gray_HW, x + np.float32(column - reach_px), y + np.float32(row - reach_px))
        return
    # Away from the border all pixels lie at the same place between four others: rows first, then between them.
    in_x, in_y = x - np.floor(x), y - np.floor(y)
    for row in range(PATCH_PX + 1):
        pixels = gray_HW[np.uint64(top + row)]
        for column in range(PATCH_PX):
            here, after = np.float32(pixels[np.uint64(left + column)]), np.float32(pixels[np.uint64(left + column + 1)])
            out[row, column] = here + in_x * (after - here)
    for row in range(PATCH_PX):
        for column in range(PATCH_PX):
            out[row, column] += in_y * (out[row + 1, column] - out[row, column])
