"""What two frames tell about the motion of every node: beyond the camera's, and how well flow and camera explain it.

Letters: H W size of a work frame, h w rows and columns of nodes (work_frames.py). Gray levels 0 to 255; lengths in work
pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled
from pipelines.targets.motion.camera_fit import fit_camera, stray
from pipelines.targets.motion.dense_flow import DenseFlow
from pipelines.targets.motion.work_frames import WORK_PER_NODE, node_means, shrink

__all__ = ["PairMotion", "measure_clearest_motion", "measure_motion", "otsu_threshold"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

MAX_DIFFERENCE = 30.0
"""Gray levels. A pixel that differs more is another one, by however much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMotion:
    """Motion from the first frame to a later one, float32 (h, w) each."""

    stray_hw: Floats
    """How far the node moves beyond the camera."""
    change_hw: Floats
    """Mean difference to the later frame after undoing the camera's motion; 0 where that is out of view."""
    misfit_hw: Floats
    """The same after undoing the flow."""
    in_view_hw: Floats
    """Share of the node that the later frame shows, 0 to 1."""


def measure_clearest_motion(
    first_HW: Bytes, later_THW: Bytes, trust_hw: Floats, engine: DenseFlow, slow_px: float
) -> PairMotion:
    """Measure the motion to the next frame or, if the moving part strays less than `slow_px` by then, to the one after.

    first_HW: a work frame. later_THW: one or two frames at the clip's size. Near frames are preferred: over longer
    spans limbs turn, objects leave, and the camera's motion is no longer affine.
    """
    # 1. Flow at half the size tells how fast the moving part is, at a quarter of the cost.
    height, width = trust_hw.shape
    next_HW = shrink(later_THW[0], (height, width), WORK_PER_NODE)
    first_hw, next_hw = (_halved(image_HW, trust_hw) for image_HW in (first_HW, next_HW))
    guess_hw2 = WORK_PER_NODE * engine.pair_flow(first_hw, next_hw)
    # 2. What is slow is taken to move on as it did: twice the flow is a guess of the flow to the frame after the next.
    if len(later_THW) > 1 and _speed_px(guess_hw2, trust_hw) < slow_px:
        next_HW = shrink(later_THW[1], (height, width), WORK_PER_NODE)
        guess_hw2 *= 2
    # 3. The finest level of flow starts from that guess instead of from the coarsest.
    guess_HW2 = np.asarray(cv2.resize(guess_hw2, first_HW.shape[::-1]), np.float32)
    return measure_motion(first_HW, next_HW, trust_hw, engine.refined_flow(first_HW, next_HW, guess_HW2))


def _halved(image_HW: Bytes, trust_hw: Floats) -> Bytes:
    return np.asarray(cv2.resize(image_HW, trust_hw.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _speed_px(flow_hw2: Floats, trust_hw: Floats) -> float:
    """Estimate how far the moving part strays from the camera's motion."""
    stray_hw = stray(flow_hw2, fit_camera(flow_hw2, trust_hw))
    is_far_hw = stray_hw > otsu_threshold(stray_hw)
    return float(stray_hw[is_far_hw].mean(dtype=np.float64)) if is_far_hw.any() else 0.0


def measure_motion(first_HW: Bytes, later_HW: Bytes, trust_hw: Floats, flow_HW2: Floats) -> PairMotion:
    """Measure the motion from one work frame to another, given the flow (H, W, 2) between them."""
    flow_hw2 = node_means(flow_HW2)
    camera = fit_camera(flow_hw2, trust_hw)
    change_HW, misfit_HW, in_view_HW = _differences(first_HW, later_HW, flow_HW2, camera)
    change_hw, misfit_hw = (node_means(cv2.blur(one, (3, 3))) for one in (change_HW, misfit_HW))
    return PairMotion(
        stray_hw=stray(flow_hw2, camera),
        change_hw=change_hw,
        misfit_hw=misfit_hw,
        in_view_hw=node_means(in_view_HW),
    )


@compiled
def _differences(first_HW: Bytes, later_HW: Bytes, flow_HW2: Floats, camera: Doubles) -> tuple[Floats, Floats, Floats]:
    """Return (H, W) each: the difference to the later frame after undoing the camera's motion, that after undoing the
    flow, and 1 where the camera still shows the pixel. All three are 0 where it does not."""
    height, width = first_HW.shape
    change_HW, misfit_HW = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    in_view_HW = np.zeros((height, width), np.float32)
    per_pixel = camera / WORK_PER_NODE
    right, bottom, most = np.float32(width - 1), np.float32(height - 1), np.float32(MAX_DIFFERENCE)
    for row in range(height):
        y = row - 0.5 * (height - 1)
        start_x = camera[0, 2] + per_pixel[0, 1] * y - per_pixel[0, 0] * 0.5 * (width - 1)
        start_y = row + camera[1, 2] + per_pixel[1, 1] * y - per_pixel[1, 0] * 0.5 * (width - 1)
        for column in range(width):
            there_x = np.float32(start_x + column * (1 + per_pixel[0, 0]))
            there_y = np.float32(start_y + column * per_pixel[1, 0])
            if not (0 <= there_x <= right and 0 <= there_y <= bottom):
                continue
            gray = np.float32(first_HW[row, column])
            in_view_HW[row, column] = 1.0
            change_HW[row, column] = min(abs(_gray_at(later_HW, there_x, there_y) - gray), most)
            there_x = np.float32(column) + flow_HW2[row, column, 0]
            there_y = np.float32(row) + flow_HW2[row, column, 1]
            misfit_HW[row, column] = min(abs(_gray_at(later_HW, there_x, there_y) - gray), most)
    return change_HW, misfit_HW, in_view_HW


@compiled
def _gray_at(gray_HW: Bytes, x: np.float32, y: np.float32) -> np.float32:
    """Return the gray level at a place, linear between pixels; outside of the frame, that of its border."""
    height, width = gray_HW.shape
    x, y = min(max(x, np.float32(0)), np.float32(width - 1)), min(max(y, np.float32(0)), np.float32(height - 1))
    x0, y0 = np.uint32(x), np.uint32(y)
    x1, y1 = min(x0 + np.uint32(1), np.uint32(width - 1)), min(y0 + np.uint32(1), np.uint32(height - 1))
    in_x, in_y = x - np.float32(x0), y - np.float32(y0)
    left, right = np.float32(gray_HW[y0, x0]), np.float32(gray_HW[y0, x1])
    upper = left + in_x * (right - left)
    left, right = np.float32(gray_HW[y1, x0]), np.float32(gray_HW[y1, x1])
    lower = left + in_x * (right - left)
    return upper + in_y * (lower - upper)


def otsu_threshold(values_hw: Floats) -> float:
    """Return the threshold that splits values of at least 0 best in two (Otsu 1979), after a 3 x 3 mean."""
    # The mean keeps single wild values from being a class of their own.
    values_hw = np.asarray(cv2.blur(values_hw, (3, 3)), np.float32)
    top = max(float(values_hw.max()), 1e-6)
    levels = np.clip(values_hw * (255 / top), 0, 255).astype(np.uint8)
    return float(cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]) * top / 255
