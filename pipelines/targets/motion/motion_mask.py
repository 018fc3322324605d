"""From a clip to the pixels of its first frame that move on their own. Paper sections 2 and 3.4.

Points on a grid are tracked through the stabilized clip, as in improved dense trajectories, where camera motion is what
stays in place. A dense mask from tracks alone is blurred by half the tracker's window and takes along the background
that the object runs over; so tracks only propose motions, here, and pixels decide which of them, if any, they follow
(motion_growth.py), from points that surely do (motion_seeds.py).

Letters: T frames, H W size, N points. Gray levels 0 to 255; lengths in pixels. A motion is float32 (T, N, 2): how far
from its place in the first frame the point is at frame t, NaN when not seen.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled
from pipelines.targets.motion.camera_motion import Box, CameraPath, camera_path, rescaled, stabilize
from pipelines.targets.motion.flow import FlowEngine, returns
from pipelines.targets.motion.motion_growth import grow
from pipelines.targets.motion.motion_seeds import MIN_FRAMES_SEEN, find_seeds

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

MIN_CHANGE = 1.5
MAX_CHANGED_RATIO = 0.7
"""More than this share of the frame changed: a cut, a fade or a flash."""
MISFIT_FACTOR = 2.0
"""A track must stray this many times further than the background does from the fitted camera motion."""
MAX_RETURN_PX = 1.5
"""A track followed back must end this near to where it began, at a width of 320 px, or nobody knows where it went."""


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
    is_seed_N, motion_TN2 = find_seeds(region.steady_THW, points_N2, motion_TN2, least_px)
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
            y0, y1 = int(np.ceil(row * side_px)), int(np.ceil((row + 1) * side_px))
            x0, x1 = int(np.ceil(column * side_px)), int(np.ceil((column + 1) * side_px))
            if not wanted_HW[y0:y1, x0:x1].any():
                continue
            best_y, best_x = y0, x0
            for y in range(y0, y1):
                for x in range(x0, x1):
                    if values_HW[y, x] > values_HW[best_y, best_x]:
                        best_y, best_x = y, x
            if wanted_HW[best_y, best_x]:
                points_N2[num_points] = best_x, best_y
                num_points += 1
    return points_N2[:num_points]
