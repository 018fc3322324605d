"""Motion masks in a few lines of OpenCV, to compare with. Frames are uint8 RGB (T, H, W, 3); sides multiples of 8."""

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["ten_lines", "two_lines"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

CELL_PX = 8
POINT_STEP_PX = 8
INLIER_PX = 1.0
SURE_RATIO = 2.0
"""GrabCut takes pixels above this many thresholds for surely moving, and those below its inverse for surely still."""
GRABCUT_ROUNDS = 3


def two_lines(frames: Pixels) -> Bools:
    """Return moving cells (H / 8, W / 8): flow to the next frame, one homography, Otsu on the residual's cell means."""
    cells = _cell_means(_residual(frames[0], frames[1]))
    return cells > _otsu(cells)


def ten_lines(frames: Pixels) -> Bools:
    """Return moving cells: the smaller residual of frames 1 and 2, Otsu, then GrabCut from what is sure."""
    residual = np.minimum(_residual(frames[0], frames[1]), _residual(frames[0], frames[2]))
    threshold = _otsu(_cell_means(residual))
    mask = np.where(residual > threshold, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    mask[residual > SURE_RATIO * threshold] = cv2.GC_FGD
    mask[residual < threshold / SURE_RATIO] = cv2.GC_BGD
    if len(np.unique(mask % 2)) == 2:  # GrabCut needs both
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(frames[0], mask, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return _cell_means((mask % 2).astype(np.float32)) >= 0.5


def _residual(first: Pixels, later: Pixels) -> Floats:
    """Return how far each pixel (H, W) moves beyond the homography that most of the flow follows."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = dis.calc(*(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in (first, later)), None)  # type: ignore[call-overload]
    points = np.dstack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in flow.shape[1::-1])))
    start, step = (one[::POINT_STEP_PX, ::POINT_STEP_PX].reshape(-1, 2) for one in (points, flow))
    cv2.setRNGSeed(0)
    homography, _ = cv2.findHomography(start, start + step, cv2.USAC_MAGSAC, INLIER_PX)
    if homography is None:
        return np.zeros(flow.shape[:2], np.float32)
    camera = cv2.perspectiveTransform(points, homography) - points
    return np.asarray(np.linalg.norm(flow - camera, axis=2), np.float32)


def _cell_means(image: Floats) -> Floats:
    size = image.shape[1] // CELL_PX, image.shape[0] // CELL_PX
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _otsu(values: Floats) -> float:
    top = max(float(values.max()), 1e-6)
    levels = (values * (255 / top)).astype(np.uint8)
    return float(cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]) * top / 255
