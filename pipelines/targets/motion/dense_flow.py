"""Dense optical flow between two gray frames, by engines that can be exchanged.

Frames are uint8 (H, W). Flow is float32 (H, W, 2), x then y, in pixels: where each pixel of the first frame is in the
second one, relative to its place in the first.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["DenseFlow", "DisFlow", "EngineName", "FarnebackFlow", "Preset"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
EngineName = Literal["dis", "farneback", "raft", "nvof"]
Preset = Literal["ultrafast", "fast", "medium"]

MIN_SIDE_PX = 12
PATCH_PX = 8
STEP_PX = 5
ITERATIONS = 12
REFINING_ITERATIONS = 4
"""Of the finest level, where flow at half the size is known: a start that is near needs fewer."""
DIS_PRESETS: dict[Preset, int] = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


class DenseFlow(ABC):
    """An engine. One instance serves one thread at a time."""

    @abstractmethod
    def pair_flow(self, first_HW: Bytes, later_HW: Bytes) -> Floats:
        """Return the flow (H, W, 2) from one frame to another."""

    def refined_flow(self, first_HW: Bytes, later_HW: Bytes, guess_HW2: Floats) -> Floats:
        """Return the flow (H, W, 2), given a guess of it, such as the enlarged flow of the frames at half the size.

        Engines that cannot start from a guess ignore it. It may be overwritten.
        """
        return self.pair_flow(first_HW, later_HW)

    def clip_flow(self, gray_THW: Bytes) -> Floats:
        """Return the flow (T-1, H, W, 2) between neighbouring frames of a clip (T, H, W)."""
        return np.stack([self.pair_flow(first, later) for first, later in pairwise(gray_THW)])


class DisFlow(DenseFlow):
    """Dense inverse search (Kroeger et al. 2016), down to single pixels.

    Keep an instance: the first call for a size of frames allocates buffers, which costs more than the flow itself.
    """

    def __init__(self, preset: Preset | None = None) -> None:
        """preset: one of OpenCV's; they stop at a half or a quarter of the resolution. None is made for small frames:
        full resolution with large patches."""
        self._preset = preset
        self._of_size: dict[tuple[int, int, bool], cv2.DISOpticalFlow] = {}

    def pair_flow(self, first_HW: Bytes, later_HW: Bytes) -> Floats:
        return self._flow(first_HW, later_HW, None)

    def refined_flow(self, first_HW: Bytes, later_HW: Bytes, guess_HW2: Floats) -> Floats:
        if self._preset is not None:
            return self.pair_flow(first_HW, later_HW)
        return self._flow(first_HW, later_HW, guess_HW2)

    def _flow(self, first_HW: Bytes, later_HW: Bytes, guess_HW2: Floats | None) -> Floats:
        # 1. OpenCV refuses very small frames, so their border is repeated.
        height, width = first_HW.shape
        bottom, right = max(MIN_SIDE_PX - height, 0), max(MIN_SIDE_PX - width, 0)
        if bottom or right:
            padding = (0, bottom), (0, right)
            first_HW, later_HW = (np.pad(one, padding, mode="edge") for one in (first_HW, later_HW))
            guess_HW2 = None if guess_HW2 is None else np.pad(guess_HW2, (*padding, (0, 0)), mode="edge")
        # 2. One object a size: an object that gets another size allocates its buffers anew.
        key = (*first_HW.shape, guess_HW2 is not None)
        dis = self._of_size.get(key)
        if dis is None:
            dis = self._of_size[key] = _dis(self._preset, is_refining=guess_HW2 is not None)
        flow_HW2 = dis.calc(first_HW, later_HW, guess_HW2)  # type: ignore[arg-type]
        return np.asarray(flow_HW2, np.float32)[:height, :width]


def _dis(preset: Preset | None, *, is_refining: bool) -> cv2.DISOpticalFlow:
    if preset is not None:
        return cv2.DISOpticalFlow.create(DIS_PRESETS[preset])
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    dis.setFinestScale(0)
    dis.setPatchSize(PATCH_PX)
    dis.setPatchStride(STEP_PX)
    dis.setGradientDescentIterations(REFINING_ITERATIONS if is_refining else ITERATIONS)
    # A third of the time, and masks are no better with it (benchmarks/records/MOTION.md).
    dis.setVariationalRefinementIterations(0)
    # Costs a tenth. Exposure seldom changes within two frames.
    dis.setUseMeanNormalization(False)
    if is_refining:
        dis.setCoarsestScale(0)
    return dis


class FarnebackFlow(DenseFlow):
    """Polynomial expansion (Farnebäck 2003), the flow of improved dense trajectories."""

    def pair_flow(self, first_HW: Bytes, later_HW: Bytes) -> Floats:
        flow = cv2.calcOpticalFlowFarneback(first_HW, later_HW, None, 0.5, 3, 9, 3, 5, 1.1, 0)  # type: ignore[call-overload]
        return np.asarray(flow, np.float32)
