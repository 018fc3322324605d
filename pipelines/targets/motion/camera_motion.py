"""The camera's motion through a clip: one homography per frame, fitted robustly to tracked corners; and its removal.

Frames are gray uint8 (T, H, W), points float32 (N, 2), x then y, in pixels. A homography is float64 (3, 3).

Every frame is fitted to the first one directly, not to its neighbour: chained fits drift, by 3 px over 10 frames with
dense flow and by 0.3 px with corners, against 0.1 px this way (median of 48 composites, tests/made/composites.py). New
corners are chained on only when the old are gone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled
from pipelines.targets.motion.flow import LucasKanade
from pipelines.targets.motion.robust_fit import settle

__all__ = ["Box", "CameraPath", "Fit", "camera_path", "corners", "fit_camera_motion", "move", "rescaled", "stabilize"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

Box = tuple[int, int, int, int]

# 9 px of a short side of 120. No fit is off by more than 5 px on real clips of whose camera a slow search is sure; with
# 64 corners 1.5 % are, and 2.3 % with windows of 8 x 6, too. Masks of composites do not show that. One corner in every
# square of a grid leaves too few where only a part of the frame has texture.
NUM_CORNERS = 80
CORNER_SPACING_RATIO = 3 / 40
CAMERA_WINDOW_PX = (8, 8)
MIN_POINTS = 12
TOLERANCES_PX = (0.5, 1.0, 2.0, 4.0)
WANTED_INLIER_RATIO = 0.5
MIN_INLIER_RATIO = 0.25
SURE_INLIER_RATIO = 0.7
"""What so many points follow is the background; below it, a random search may find more that agree."""
MIN_SURVIVOR_RATIO = 0.5
MAX_AREA_CHANGE = 4.0
MAX_ITERATIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The motion most points have between two frames."""

    matrix: Matrix
    inlier_ratio: float
    """Share of the points that follow `matrix`, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPath:
    """The background's motion through a clip."""

    matrices: Matrix
    """Homographies (T, 3, 3) from the first frame to frame t; the first is the identity."""
    misfit_px: float
    """How far the background strays from `matrices`; more than the least where depth makes near things move more."""
    is_reliable: bool
    """False when some frame could not be fitted: a cut, no texture, or no rigid background."""
    has_texture: bool
    """False when the first frame has too few corners to fit anything."""


def camera_path(gray_THW: Bytes) -> CameraPath:
    """Track corners and fit every frame, as tightly as the scene allows."""
    engine = LucasKanade(CAMERA_WINDOW_PX)
    anchor, misfit_px, is_reliable = 0, TOLERANCES_PX[0], True
    points_N2 = corners(gray_THW[0])
    tracks = engine.tracks(gray_THW, points_N2)
    matrices: list[Matrix] = [np.eye(3)]
    for index in range(1, len(gray_THW)):
        if index - 1 > anchor and _survivor_ratio(tracks[index - anchor]) < MIN_SURVIVOR_RATIO:
            anchor = index - 1
            tracks = engine.tracks(gray_THW[anchor:], corners(gray_THW[anchor]))
        there = tracks[index - anchor]
        alive = np.isfinite(there[:, 0])
        survivor_ratio = _survivor_ratio(there)
        fit, misfit_px = _tightest_fit(tracks[0, alive], there[alive], misfit_px)
        is_reliable &= fit.inlier_ratio >= MIN_INLIER_RATIO and survivor_ratio >= MIN_SURVIVOR_RATIO
        matrices.append(fit.matrix @ matrices[anchor])
    return CameraPath(
        matrices=np.stack(matrices),
        misfit_px=misfit_px,
        is_reliable=bool(is_reliable),
        has_texture=len(points_N2) >= MIN_POINTS,
    )


def _tightest_fit(from_N2: Floats, to_N2: Floats, misfit_px: float) -> tuple[Fit, float]:
    """A fit with the smallest tolerance, from `misfit_px` on, that most points follow; and that tolerance."""
    for tolerance_px in (px for px in TOLERANCES_PX if px >= misfit_px):
        fit = fit_camera_motion(from_N2, to_N2, tolerance_px=tolerance_px)
        if fit.inlier_ratio >= WANTED_INLIER_RATIO:
            break
    return fit, tolerance_px


def corners(gray_HW: Bytes) -> Floats:
    """Well-textured points (N, 2), spread over the frame; (0, 2) where there is no texture."""
    spacing_px = CORNER_SPACING_RATIO * min(gray_HW.shape)
    found = cv2.goodFeaturesToTrack(gray_HW, NUM_CORNERS, 0.001, spacing_px, blockSize=5)
    return np.zeros((0, 2), np.float32) if found is None else np.asarray(found, np.float32).reshape(-1, 2)


def fit_camera_motion(from_N2: Floats, to_N2: Floats, *, tolerance_px: float) -> Fit:
    """The homography most points follow within `tolerance_px`; where it is wild, an affine motion or a shift instead.

    Fewer than 12 points give the identity with inlier ratio 0.
    """
    if len(from_N2) < MIN_POINTS:
        return Fit(matrix=np.eye(3), inlier_ratio=0.0)
    for matrix, wanted_ratio in _candidates(from_N2, to_N2, tolerance_px):
        fit = _judge(matrix, from_N2, to_N2, tolerance_px)
        if fit.inlier_ratio >= wanted_ratio and _is_tame(matrix, from_N2):
            return fit
    return _judge(_shift(from_N2, to_N2), from_N2, to_N2, tolerance_px)


def _candidates(from_N2: Floats, to_N2: Floats, tolerance_px: float) -> Iterator[tuple[Matrix, float]]:
    """Motions, the best first, each with the share of points that must follow it."""
    yield settle(from_N2, to_N2, tolerance_px), SURE_INLIER_RATIO
    # OpenCV seeds its random search anew in every call, so equal points give equal fits in any order and thread.
    homography, _ = cv2.findHomography(from_N2, to_N2, cv2.USAC_FAST, tolerance_px, None, MAX_ITERATIONS, 0.995)
    if homography is not None:
        yield np.asarray(homography, np.float64), MIN_INLIER_RATIO
    affine, _ = cv2.estimateAffine2D(from_N2, to_N2, None, cv2.RANSAC, tolerance_px)
    if affine is not None:
        yield np.vstack([affine, [0.0, 0.0, 1.0]]), MIN_INLIER_RATIO


def _shift(from_N2: Floats, to_N2: Floats) -> Matrix:
    matrix = np.eye(3)
    matrix[:2, 2] = np.median(to_N2 - from_N2, axis=0)
    return matrix


def _judge(matrix: Matrix, from_N2: Floats, to_N2: Floats, tolerance_px: float) -> Fit:
    return Fit(matrix=matrix, inlier_ratio=_inlier_ratio(matrix, from_N2, to_N2, tolerance_px))


@compiled
def _inlier_ratio(matrix: Matrix, from_N2: Floats, to_N2: Floats, tolerance_px: float) -> float:
    num_inliers = 0
    for (x, y), (to_x, to_y) in zip(from_N2, to_N2):  # noqa: B905 - Numba's has no `strict`
        depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
        off_x = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / depth - to_x
        off_y = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / depth - to_y
        num_inliers += off_x * off_x + off_y * off_y <= tolerance_px * tolerance_px
    return num_inliers / len(from_N2)


def _is_tame(matrix: Matrix, points_N2: Floats) -> bool:
    """No mirror, no horizon through the points, and nowhere 4 times larger or smaller."""
    return bool(np.isfinite(matrix).all()) and _is_tame_at(cv2.determinant(matrix), matrix[2], points_N2)


@compiled
def _is_tame_at(determinant: float, depth_row: Matrix, points_N2: Floats) -> bool:
    for x, y in points_N2:
        depth = depth_row[0] * x + depth_row[1] * y + depth_row[2]
        # A small area around a point becomes `determinant / depth**3` times as large.
        if depth <= 0 or not 1 / MAX_AREA_CHANGE < determinant / depth**3 < MAX_AREA_CHANGE:
            return False
    return True


def _survivor_ratio(points_N2: Floats) -> float:
    return np.count_nonzero(np.isfinite(points_N2[:, 0])) / max(len(points_N2), 1)


def move(points_N2: Floats, matrix: Matrix) -> Floats:
    """Points after a homography. NaN stays NaN."""
    moved = points_N2 @ matrix[:, :2].T + matrix[:, 2]
    return (moved[:, :2] / moved[:, 2:]).astype(np.float32)


def rescaled(matrices: Matrix, scale: float) -> Matrix:
    """Homographies (..., 3, 3) for frames resized by `scale`. Pixel centres shift: (x + 1/2) scale = x' + 1/2."""
    there, back = (np.array([[s, 0, (s - 1) / 2], [0, s, (s - 1) / 2], [0, 0, 1]]) for s in (scale, 1 / scale))
    return np.asarray(there @ matrices @ back)


def stabilize(gray_THW: Bytes, matrices: Matrix, box: Box | None = None) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Every frame warped onto the first, uint8 (T, h, w), and bool (T, h, w): the pixel was inside frame t.

    `box`: the part of the first frame that is wanted (x0, y0, x1, y1; ends excluded); all of it if None.
    """
    height, width = gray_THW.shape[1:]
    x0, y0, x1, y1 = box or (0, 0, width, height)
    from_box = matrices @ np.array([[1.0, 0, x0], [0, 1, y0], [0, 0, 1]])
    steady = np.empty((len(gray_THW), y1 - y0, x1 - x0), np.uint8)
    inside = np.empty(steady.shape, np.bool_)
    steady[0] = gray_THW[0, y0:y1, x0:x1]
    for index in range(1, len(gray_THW)):
        _warp(gray_THW[index], from_box[index], steady[index])
    _write_views(from_box, width, height, inside)
    return steady, inside


def _warp(gray_HW: Bytes, matrix: Matrix, out: Bytes) -> None:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = out.shape[1], out.shape[0]
    cv2.warpPerspective(gray_HW, matrix, size, dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE)


@compiled
def _write_views(matrices: Matrix, width: int, height: int, inside_THW: npt.NDArray[np.bool_]) -> None:
    """Whether a pixel, moved by a frame's matrix, lies on that frame of `width` x `height` pixels.

    Each side of a frame is a line, so that in every row what lies inside of all four is one run of pixels.
    """
    for t in range(len(matrices)):
        across, down, depth = matrices[t]
        for row in range(inside_THW.shape[1]):
            start, end = 0.0, float(inside_THW.shape[2])
            for side in range(4):
                line = across if side < 2 else down
                size = width if side < 2 else height
                # Pixels reach half a pixel to both sides of their centres.
                sign, offset = (1.0, 0.5) if side % 2 == 0 else (-1.0, size - 0.5)
                slope = sign * line[0] + offset * depth[0]
                here = sign * (line[1] * row + line[2]) + offset * (depth[1] * row + depth[2])
                if slope > 0:
                    start = max(start, np.ceil(-here / slope))
                elif slope < 0:
                    end = min(end, np.floor(here / -slope) + 1)
                elif here < 0:
                    end = 0.0
            inside_THW[t, row] = False
            if start < end:
                inside_THW[t, row, int(start) : int(end)] = True
