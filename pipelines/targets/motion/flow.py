"""Motion of points through a clip of gray frames, by engines that can be exchanged.

Frames are uint8 (T, H, W). Points are float32 (N, 2), x then y, the centre of the first pixel being (0, 0). Tracks are
float32 (T, N, 2): where each point of the first frame is in frame t, NaN from the frame on in which it is lost.
Dense flow is float32 (T-1, H, W, 2), x then y, in pixels: entry t moves a point of frame t to frame t+1.

An engine gets whole clips, so that one for a device can stand beside these: it makes dense flow, `follow` the rest.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled

__all__ = [
    "DenseFlow",
    "DisFlow",
    "EngineName",
    "FarnebackFlow",
    "FlowEngine",
    "LucasKanade",
    "Preset",
    "follow",
    "gray_at",
    "look_up",
    "returns",
]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
EngineName = Literal["lucas_kanade", "dis", "farneback", "raft", "nvof"]
Preset = Literal["ultrafast", "fast", "medium"]

MAX_ITERATIONS = 5
MIN_STEP_PX = 0.1
DIS_PRESETS: dict[str, int] = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


class FlowEngine(Protocol):
    """One instance serves one thread at a time."""

    def tracks(self, gray_THW: Bytes, points_N2: Floats) -> Floats:
        """Tracks (T, N, 2) of points of the first frame."""
        ...


class LucasKanade:
    """Each point's window aligned from frame to frame; work grows with the number of points."""

    def __init__(self, window_px: tuple[int, int] = (8, 6), num_levels: int = 4) -> None:
        """`window_px`: width and height. A larger one is steadier where there is little texture, and blurs motion
        borders. Time goes with the height; widths other than multiples of 8 are slower."""
        self._window_px = window_px
        self._num_levels = num_levels

    def tracks(self, gray_THW: Bytes, points_N2: Floats) -> Floats:
        track = np.full((len(gray_THW), *points_N2.shape), np.nan, np.float32)
        track[0] = here = points_N2
        alive = np.arange(len(points_N2))
        for index in range(1, len(gray_THW)):
            if not len(alive):
                break
            here, is_found = self._step(gray_THW[index - 1], gray_THW[index], here)
            if not is_found.all():
                here, alive = here[is_found], alive[is_found]
            track[index, alive] = here
        return track

    def _step(self, gray_HW: Bytes, next_HW: Bytes, points_N2: Floats) -> tuple[Floats, Bools]:
        there, status, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
            gray_HW,
            next_HW,
            points_N2,
            None,
            winSize=self._window_px,
            maxLevel=self._num_levels - 1,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, MAX_ITERATIONS, MIN_STEP_PX),
        )
        return np.asarray(there, np.float32), np.asarray(status, np.uint8).ravel().view(np.bool_)


class DenseFlow(ABC):
    """Base of engines that know the flow of every pixel."""

    @abstractmethod
    def pair_flow(self, gray_HW: Bytes, next_HW: Bytes) -> Floats:
        """Flow (H, W, 2) from one frame to the next."""

    def clip_flow(self, gray_THW: Bytes) -> Floats:
        """Flow (T-1, H, W, 2) between neighbouring frames."""
        return np.stack([self.pair_flow(here, there) for here, there in pairwise(gray_THW)])

    def tracks(self, gray_THW: Bytes, points_N2: Floats) -> Floats:
        return follow(points_N2, self.clip_flow(gray_THW))


class DisFlow(DenseFlow):
    """Dense inverse search (Kroeger et al. 2016).

    `finest_level`: the flow is computed at 1 / 2^level of the frame and enlarged. OpenCV's presets stop at 1 or 2,
    where small objects are lost; 0 keeps them, at 3 to 8 times the cost.
    """

    def __init__(self, preset: Preset = "fast", *, finest_level: int | None = None) -> None:
        self._dis = cv2.DISOpticalFlow.create(DIS_PRESETS[preset])
        if finest_level is not None:
            self._dis.setFinestScale(finest_level)

    def pair_flow(self, gray_HW: Bytes, next_HW: Bytes) -> Floats:
        return np.asarray(self._dis.calc(gray_HW, next_HW, None), np.float32)  # type: ignore[call-overload]


class FarnebackFlow(DenseFlow):
    """Polynomial expansion (Farnebäck 2003), the flow of improved dense trajectories."""

    def pair_flow(self, gray_HW: Bytes, next_HW: Bytes) -> Floats:
        flow = cv2.calcOpticalFlowFarneback(gray_HW, next_HW, None, 0.5, 3, 9, 3, 5, 1.1, 0)  # type: ignore[call-overload]
        return np.asarray(flow, np.float32)


def follow(points_N2: Floats, flow_THW2: Floats) -> Floats:
    """Tracks (T, N, 2) of points through T-1 flow fields, each sampled bilinearly at the point's place at that time."""
    height, width = flow_THW2.shape[1:3]
    track = [points_N2.astype(np.float32)]
    for flow_HW2 in flow_THW2:
        here = track[-1]
        step = look_up(flow_HW2, np.nan_to_num(here)[:, None]).reshape(-1, 2)
        there = here + step
        there[~((there >= 0) & (there <= (width - 1, height - 1))).all(axis=1)] = np.nan
        track.append(there)
    return np.stack(track)


def returns(engine: FlowEngine, gray_THW: Bytes, tracks_TN2: Floats, max_px: float) -> Bools:
    """bool (N,): which tracks, followed back from where they last are, end within `max_px` of their start.

    A track that jumped to another point does not find back; one that is lost before the last frame cannot.
    """
    ends_N2 = tracks_TN2[-1]
    is_back_N = np.isfinite(ends_N2[:, 0])
    # Straight from the last frame to the first: half the cost of going by those between, and tells as much.
    back_N2 = engine.tracks(gray_THW[[-1, 0]], ends_N2[is_back_N])[-1]
    # A comparison with NaN, a track that is lost on its way back, is False.
    is_back_N[is_back_N] = ((back_N2 - tracks_TN2[0, is_back_N]) ** 2).sum(axis=1) <= max_px**2
    return np.asarray(is_back_N, np.bool_)


def look_up(image: npt.NDArray[Any], places_HW2: Floats, interpolation: int = cv2.INTER_LINEAR) -> npt.NDArray[Any]:
    """Values (H, W[, C]) of an image at places (x, y), of the image's dtype; the border's values outside of it."""
    if not places_HW2.size:
        return np.zeros((*places_HW2.shape[:2], *image.shape[2:]), image.dtype)
    return cv2.remap(image, places_HW2, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload, no-any-return]


@compiled
def gray_at(gray_HW: Bytes, x: np.float32, y: np.float32) -> np.float32:
    """Gray level at a place, linear between pixels; the border's outside of the frame."""
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
