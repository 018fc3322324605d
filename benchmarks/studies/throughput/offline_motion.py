"""How motion masks are usually made, offline: dense flow of every pair of frames, one homography a pair, a threshold.

For comparison only. Clips are uint8 RGB (T, H, W, 3); lengths are pixels of the clip.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.targets.motion.flow import DenseFlow

__all__ = ["OfflineWay", "cells_moving", "residual_px"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

POINT_STRIDE_PX = 8
INLIER_PX = 1.0
CELL_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineWay:
    """A flow engine and the size it works at."""

    engine: DenseFlow
    shrink: int
    """1 is full size, 2 half size."""


def residual_px(way: OfflineWay, clip_THWC: Pixels) -> Floats:
    """float32 (H, W): how far a pixel moves in a frame beyond the pair's homography, mean over the clip."""
    height, width = clip_THWC.shape[1:3]
    size = width // way.shrink, height // way.shrink
    grays = [cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size) for frame in clip_THWC]
    total = np.zeros(size[::-1], np.float32)
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in size))
    points_HW2 = np.stack([x, y], axis=2)
    for here, there in pairwise(grays):
        total += _residual(way.engine.pair_flow(here, there), points_HW2)
    mean = total * way.shrink / (len(grays) - 1)
    return np.asarray(cv2.resize(mean, (width, height)), np.float32)


def _residual(flow_HW2: Floats, points_HW2: Floats) -> Floats:
    thinned = slice(None, None, POINT_STRIDE_PX)
    start, step = (field[thinned, thinned].reshape(-1, 2) for field in (points_HW2, flow_HW2))
    homography, _ = cv2.findHomography(start, start + step, cv2.RANSAC, INLIER_PX)
    if homography is None:
        return np.zeros(flow_HW2.shape[:2], np.float32)
    camera_HW2 = cv2.perspectiveTransform(points_HW2, homography) - points_HW2
    return np.asarray(np.linalg.norm(flow_HW2 - camera_HW2, axis=2), np.float32)


def cells_moving(residual_HW: Floats, threshold_px: float) -> Bools:
    """bool (h, w): cells of 8 x 8 pixels at least half of which move. Sides are multiples of 8."""
    height, width = residual_HW.shape
    moving = (residual_HW > threshold_px).reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
    return np.asarray(moving.mean(axis=(1, 3)) >= 0.5)
