"""From a clip to the pixels of its first frame that move on their own. Paper sections 2 and 3.4.

Points on a grid are tracked through the stabilized clip, as in improved dense trajectories, where camera motion is what
stays in place. A dense mask from tracks alone is blurred by half the tracker's window and takes along the background
that the object runs over; so tracks only propose motions, here, and pixels decide which of them, if any, they follow
(motion_growth.py). A point that surely moves, a seed, looks the same along its motion and different in place; and its
motion is not arguable, as on a smooth surface, where every motion fits.

Letters: T frames, H W size, N points, K motions tried for each point, P pixels of a patch. Gray levels 0 to 255;
lengths in pixels. A motion is float32 (T, N, 2): how far from its place in the first frame the point is at frame t, NaN
when not seen.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.camera_motion import Box, CameraPath, camera_path, rescaled, stabilize
from pipelines.compiled import compiled
from pipelines.flow import FlowEngine, gray_at, returns
from pipelines.motion_growth import MAX_GRAY_DIFFERENCE, grow

__all__ = ["VERDICTS", "ClipLabel", "Verdict", "label_clip"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Verdict = Literal["usable", "no_texture", "cut"]
VERDICTS: tuple[Verdict, ...] = ("usable", "no_texture", "cut")

CAMERA_WIDTH_PX = 160
MASK_WIDTH_PX = 320
"""The camera's motion and changes are found in frames of at most the first width, moving pixels at the second."""
SMOOTHING = cv2.getGaussianKernel(5, 1.0, cv2.CV_32F)
SAMPLE_PX = 4
CHANGE_PX = 4
TEXTURE_PX = 3
MARGIN_PX = 24
GRID_PX = 8
MIN_GRID_PX = 4
"""One point is tracked in every square of this side at a width of 320 px, or at least of that."""
NUM_NEIGHBORS = 6
PATCH_PX = 5

MIN_CHANGE = 1.5
MAX_CHANGED_RATIO = 0.7
"""More than this share of the frame changed: a cut, a fade or a flash."""
MIN_FRAMES_SEEN = 2
MISFIT_FACTOR = 2.0
"""A track must stray this many times further than the background does from the fitted camera motion."""
MAX_RETURN_PX = 1.5
"""A track followed back must end this near to where it began, at a width of 320 px, or nobody knows where it went."""

# Chosen on 168 composites, none of whose photos and cut-outs is among those the results are reported on.
STILL_COST_RATIO = 0.75
MIN_STILL_GAIN = 0.5
ARGUABLE_COST_RATIO = 0.85
MIN_ARGUABLE_GAIN = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLabel:
    """What moves in one clip."""

    moving: Bools
    """(H, W) of the first frame."""
    is_known: Bools
    """(H, W): long enough in the camera's view to tell; and what changed is moving, or its track leads there and back
    again. Elsewhere nobody knows, and nothing should be learned."""
    verdict: Verdict
    """Unless "usable", `moving` is empty: "no_texture" holds too few corners to find the camera's motion; "cut" is a
    cut, a fade, or no rigid background."""


def label_clip(gray_THW: Bytes, engine: FlowEngine, *, threshold_px: float = 2.0, reach_px: float = 16.0) -> ClipLabel:
    """The moving pixels of the first frame. Lengths are at a width of 320 px.

    threshold_px: tracks that stray less from the camera's motion belong to the background. reach_px: how far from a
    moving track moving pixels are looked for.
    """
    size = gray_THW.shape[1:]
    small_THW = _resized(gray_THW, CAMERA_WIDTH_PX)
    path = camera_path(small_THW)
    steady_THW, inside_THW = stabilize(small_THW, path.matrices)
    has_changed_HW = _change(steady_THW, inside_THW, path.misfit_px) > MIN_CHANGE
    is_seen_HW = _enlarged(inside_THW[1:].sum(axis=0, dtype=np.uint8) >= min(MIN_FRAMES_SEEN, len(gray_THW) - 1), size)
    verdict = _verdict(path, float(np.mean(has_changed_HW)))
    if verdict != "usable" or not has_changed_HW.any():
        return ClipLabel(moving=np.zeros(size, np.bool_), is_known=is_seen_HW, verdict=verdict)
    region = _region(_resized(gray_THW, MASK_WIDTH_PX), small_THW[0], path, has_changed_HW, reach_px)
    moving_HW, is_known_HW = _moving(region, engine, threshold_px, reach_px)
    is_known_HW = is_seen_HW & _enlarged(is_known_HW, size)
    return ClipLabel(moving=_enlarged(moving_HW, size), is_known=is_known_HW, verdict=verdict)


def _verdict(path: CameraPath, changed_ratio: float) -> Verdict:
    if not path.has_texture:
        return "no_texture"
    return "usable" if path.is_reliable and changed_ratio < MAX_CHANGED_RATIO else "cut"


def _resized(gray_THW: Bytes, width_px: int) -> Bytes:
    """The frames made no wider than `width_px`."""
    height, width = gray_THW.shape[1:]
    if width <= width_px:
        return gray_THW
    size = width_px, max(1, round(height * width_px / width))
    return np.stack([cv2.resize(gray_HW, size, interpolation=cv2.INTER_AREA) for gray_HW in gray_THW])


def _enlarged(mask_HW: Bools, size: tuple[int, ...]) -> Bools:
    if mask_HW.shape == size:
        return mask_HW
    height, width = size
    enlarged = np.asarray(cv2.resize(mask_HW.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST))
    return enlarged.view(np.bool_)


def _change(steady_THW: Bytes, inside_THW: Bools, misfit_px: float) -> Floats:
    """(H, W): the greatest difference to the first frame, over what noise and misfit can explain."""
    smooth_THW = np.empty(steady_THW.shape, np.float32)
    for frame_HW, smooth_HW in zip(steady_THW, smooth_THW, strict=True):
        cv2.sepFilter2D(frame_HW, cv2.CV_32F, SMOOTHING, SMOOTHING, dst=smooth_HW)
    slope_x, slope_y = (cv2.Sobel(smooth_THW[0], cv2.CV_32F, *axes, scale=1 / 8) for axes in ((1, 0), (0, 1)))
    greatest_HW, some = _greatest_difference(smooth_THW, inside_THW)
    noise = 1.5 * float(np.median(some)) + 0.5
    change = greatest_HW / (2 * noise + misfit_px * cv2.magnitude(slope_x, slope_y))
    return np.asarray(cv2.blur(change, (CHANGE_PX, CHANGE_PX)), np.float32)


@compiled
def _greatest_difference(smooth_THW: Floats, inside_THW: Bools) -> tuple[Floats, Floats]:
    """(H, W): each pixel's greatest difference to the first frame, 0 where it is outside; and some differences
    (T - 1, h, w), of one pixel in every square of `SAMPLE_PX`."""
    num_frames, height, width = smooth_THW.shape
    greatest_HW = np.zeros((height, width), np.float32)
    some = np.empty((num_frames - 1, -(-height // SAMPLE_PX), -(-width // SAMPLE_PX)), np.float32)
    for t in range(1, num_frames):
        for y in range(height):
            for x in range(width):
                difference = abs(smooth_THW[t, y, x] - smooth_THW[0, y, x]) * np.float32(inside_THW[t, y, x])
                if difference > greatest_HW[y, x]:
                    greatest_HW[y, x] = difference
        for row in range(some.shape[1]):
            for column in range(some.shape[2]):
                y, x = row * SAMPLE_PX, column * SAMPLE_PX
                some[t - 1, row, column] = abs(smooth_THW[t, y, x] - smooth_THW[0, y, x]) * inside_THW[t, y, x]
    return greatest_HW, some


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    """The part of a clip in which something changed, stabilized at full size. Places count from its corner."""

    size: tuple[int, ...]
    """Height and width of the whole frame."""
    box: Box
    steady_THW: Bytes
    inside_THW: Bools
    points_N2: Floats
    """What is tracked: where something changed, the best textured point of every grid square."""
    grid_px: int
    """Side of the squares; `box` starts on one."""
    unit_px: float
    """Pixels that are one pixel at a width of 320."""
    misfit_px: float


def _region(gray_THW: Bytes, small_HW: Bytes, path: CameraPath, has_changed_HW: Bools, reach_px: float) -> _Region:
    """`small_HW`: the first frame at the size of `path` and `has_changed_HW`."""
    size = gray_THW.shape[1:]
    unit_px, scale = size[1] / MASK_WIDTH_PX, size[1] / small_HW.shape[1]
    grid_px = max(round(GRID_PX * unit_px), MIN_GRID_PX)
    box = _around(_enlarged(has_changed_HW, size), max(reach_px, MARGIN_PX) * unit_px, grid_px)
    small_points_N2 = _textured_points(small_HW, has_changed_HW, grid_px / scale)
    points_N2 = np.floor(small_points_N2 * np.float32(scale)) - np.array(box[:2], np.float32)
    steady_THW, inside_THW = stabilize(gray_THW, rescaled(path.matrices, scale), box)
    return _Region(
        size=size,
        box=box,
        steady_THW=steady_THW,
        inside_THW=inside_THW,
        points_N2=points_N2,
        grid_px=grid_px,
        unit_px=unit_px,
        misfit_px=path.misfit_px * scale,
    )


def _moving(region: _Region, engine: FlowEngine, threshold_px: float, reach_px: float) -> tuple[Bools, Bools]:
    """Which pixels move, and of which that is known, both (H, W) of the whole frame."""
    moving_HW, is_known_HW = np.zeros(region.size, np.bool_), np.ones(region.size, np.bool_)
    x0, y0, x1, y1 = region.box
    points_N2 = region.points_N2
    if not len(points_N2):
        return moving_HW, is_known_HW
    tracks_TN2 = engine.tracks(region.steady_THW, points_N2)
    x, y = points_N2.astype(np.intp).T
    motion_TN2 = np.where(region.inside_THW[:, y, x, None], tracks_TN2 - points_N2, np.float32(np.nan))
    least_px = max(threshold_px * region.unit_px, MISFIT_FACTOR * region.misfit_px)
    is_seed_N, motion_TN2 = _seeds(region.steady_THW, points_N2, motion_TN2, least_px)
    if is_seed_N.any():
        seeds = points_N2[is_seed_N], motion_TN2[:, is_seed_N]
        moving_HW[y0:y1, x0:x1] = grow(region.steady_THW, region.inside_THW, *seeds, reach_px * region.unit_px)
    max_px = MAX_RETURN_PX * region.unit_px
    is_lost_N = ~is_seed_N
    is_lost_N[is_lost_N] = ~returns(engine, region.steady_THW, tracks_TN2[:, ~is_seed_N], max_px)
    _clear_squares(is_known_HW[y0:y1, x0:x1], x[is_lost_N], y[is_lost_N], region.grid_px)
    return moving_HW, is_known_HW | moving_HW


@compiled
def _clear_squares(mask_HW: Bools, x: npt.NDArray[np.intp], y: npt.NDArray[np.intp], side_px: int) -> None:
    """False in the whole square of every point."""
    for n in range(len(x)):
        top, left = y[n] // side_px * side_px, x[n] // side_px * side_px
        mask_HW[top : top + side_px, left : left + side_px] = False


def _around(mask_HW: Bools, margin_px: float, grid_px: int) -> Box:
    """The box of what is True, with a margin, on whole squares of the grid."""
    height, width = mask_HW.shape
    x, y, box_width, box_height = cv2.boundingRect(mask_HW.view(np.uint8))
    margin = int(np.ceil(margin_px))
    x0, y0 = (max(start - margin, 0) // grid_px * grid_px for start in (x, y))
    return x0, y0, min(x + box_width + margin, width), min(y + box_height + margin, height)


def _textured_points(gray_HW: Bytes, wanted_HW: Bools, side_px: float) -> Floats:
    """The best textured point (N, 2) of every square of this side, where it is wanted."""
    texture_HW = np.asarray(cv2.cornerMinEigenVal(gray_HW, TEXTURE_PX, ksize=3), np.float32)
    return _best_of_squares(texture_HW, wanted_HW, side_px)


@compiled
def _best_of_squares(values_HW: Floats, wanted_HW: Bools, side_px: float) -> Floats:
    """x and y (N, 2) of the greatest value of every whole square, the first of equal ones, where it is wanted."""
    rows, columns = int(values_HW.shape[0] / side_px), int(values_HW.shape[1] / side_px)
    points_N2, num_points = np.empty((rows * columns, 2), np.float32), 0
    for row in range(rows):
        for column in range(columns):
            y0, x0 = int(np.ceil(row * side_px)), int(np.ceil(column * side_px))
            best_y, best_x = y0, x0
            for y in range(y0, int(np.ceil((row + 1) * side_px))):
                for x in range(x0, int(np.ceil((column + 1) * side_px))):
                    if values_HW[y, x] > values_HW[best_y, best_x]:
                        best_y, best_x = y, x
            if wanted_HW[best_y, best_x]:
                points_N2[num_points] = best_x, best_y
                num_points += 1
    return points_N2[:num_points]


def _seeds(steady_THW: Bytes, points_N2: Floats, motion_TN2: Floats, least_px: float) -> tuple[Bools, Floats]:
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
