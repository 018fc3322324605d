"""The camera's motion between two frames: the affine motion that most of the trusted flow follows.

Affine, because it is stiffer than a homography: it does not bend towards a large object. The frame's border is trusted
most, since objects rarely fill it (Papazoglou and Ferrari 2013 start from the border, too), and texture more than flat
areas. Between frames that are near in time the difference to a homography is below the flow's noise.

Letters: h w rows and columns of nodes. Lengths are in work pixels (work_frames.py); places (x, y) are in nodes from the
middle of the grid. A camera motion is float64 (2, 3): its product with (x, y, 1) is the shift of that node.
"""

import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled

__all__ = ["TRUSTED_SLOPE", "border_closeness", "fit_camera", "stray", "trust"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FIT_STEP = 3
"""Every third node of every third row takes part: neighbours tell the same."""
NUM_FIT_STEPS = 6
NUM_HALVINGS = 16
MIN_NOISE_PX = 0.1
BORDER_RATIO = 0.1
"""Trust falls to 1 / e within this share of the width."""
INNER_TRUST = 0.2
TRUSTED_SLOPE = 8.0
"""Half trust, in gray levels a pixel times 8. Flat areas have flow without meaning; sensor noise has slopes to 4."""


def border_closeness(height: int, width: int) -> Floats:
    """Return (h, w): 1 at the grid's border, falling exponentially towards its middle."""
    down, right = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    down, right = np.minimum(down, down[::-1]), np.minimum(right, right[::-1])
    distance_hw = 1 + np.minimum(down[:, None], right)
    return np.asarray(np.exp(-distance_hw / (BORDER_RATIO * width)), np.float32)


def trust(texture_hw: Floats) -> Floats:
    """Return the weight (h, w) of each node's flow in the fit. `texture_hw`: slopes, gray levels a pixel times 8."""
    # Flat areas and black bars would otherwise have their say at the border, where it counts most.
    square_hw = texture_hw * texture_hw
    textured_hw = square_hw / (square_hw + TRUSTED_SLOPE**2)
    return np.asarray((border_closeness(*texture_hw.shape) + INNER_TRUST) * textured_hw + 1e-3, np.float32)


@compiled
def fit_camera(flow_hw2: Floats, trust_hw: Floats) -> Doubles:
    """Return the affine motion (2, 3) that most of the trusted flow follows.

    Iteratively reweighted least squares with the weights of Geman and McClure, whose scale is the trusted median of the
    distances that are left.
    """
    height, width = trust_hw.shape
    num = ((height + FIT_STEP - 1) // FIT_STEP) * ((width + FIT_STEP - 1) // FIT_STEP)
    off, trusted, weight = np.empty(num), np.empty(num), np.empty(num)
    motion = np.zeros((2, 3))
    unit = 0.5 * width
    for step in range(NUM_FIT_STEPS):
        # 1. Distance of every node's flow from the motion so far.
        n, total = 0, 0.0
        for row in range(0, height, FIT_STEP):
            for column in range(0, width, FIT_STEP):
                x, y = (column - 0.5 * (width - 1)) / unit, (row - 0.5 * (height - 1)) / unit
                off_x = flow_hw2[row, column, 0] - (motion[0, 0] * x + motion[0, 1] * y + motion[0, 2])
                off_y = flow_hw2[row, column, 1] - (motion[1, 0] * x + motion[1, 1] * y + motion[1, 2])
                off[n], trusted[n] = np.sqrt(off_x * off_x + off_y * off_y), trust_hw[row, column]
                total += trusted[n]
                n += 1
        # 2. The scale of the weights: nodes with half of all trust are nearer than the noise.
        noise = _trusted_median(off, trusted, 0.5 * total)
        square = max(1.5 * noise, MIN_NOISE_PX) ** 2
        # 3. Fit again. At the first step there is no motion to be far from, so only trust counts.
        for n in range(num):
            weight[n] = trusted[n] * (square / (square + off[n] * off[n])) ** 2 if step else trusted[n]
        motion = _weighted_affine(flow_hw2, weight, unit)
    motion[:, :2] /= unit
    return motion


@compiled
def _trusted_median(off: Doubles, trusted: Doubles, half: float) -> float:
    """Return the distance, within a 2^16th of the largest, up to which nodes have `half` of the trust."""
    # Halving an interval takes a third of the time of sorting.
    low, high = 0.0, float(off.max())
    for _ in range(NUM_HALVINGS):
        middle, before = 0.5 * (low + high), 0.0
        for n in range(len(off)):
            before += trusted[n] if off[n] <= middle else 0.0
        if before >= half:
            high = middle
        else:
            low = middle
    return high


@compiled
def _weighted_affine(flow_hw2: Floats, weight: Doubles, unit: float) -> Doubles:
    """Return the affine motion (2, 3) of least weighted squares, of places in `unit` nodes."""
    height, width = flow_hw2.shape[:2]
    sums, right, place, n = np.zeros((3, 3)), np.zeros((3, 2)), np.empty(3), 0
    for row in range(0, height, FIT_STEP):
        for column in range(0, width, FIT_STEP):
            place[0], place[1] = (column - 0.5 * (width - 1)) / unit, (row - 0.5 * (height - 1)) / unit
            place[2] = 1.0
            for i in range(3):
                part = weight[n] * place[i]
                for j in range(3):
                    sums[i, j] += part * place[j]
                right[i, 0] += part * flow_hw2[row, column, 0]
                right[i, 1] += part * flow_hw2[row, column, 1]
            n += 1
    for i in range(3):
        sums[i, i] += 1e-9
    return np.ascontiguousarray(np.linalg.solve(sums, right).T)


@compiled
def stray(flow_hw2: Floats, camera: Doubles) -> Floats:
    """Return (h, w): how far each node moves beyond the camera."""
    height, width = flow_hw2.shape[:2]
    stray_hw = np.empty((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            x, y = column - 0.5 * (width - 1), row - 0.5 * (height - 1)
            off_x = flow_hw2[row, column, 0] - (camera[0, 0] * x + camera[0, 1] * y + camera[0, 2])
            off_y = flow_hw2[row, column, 1] - (camera[1, 0] * x + camera[1, 1] * y + camera[1, 2])
            stray_hw[row, column] = np.sqrt(off_x * off_x + off_y * off_y)
    return stray_hw
