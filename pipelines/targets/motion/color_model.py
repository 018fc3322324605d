"""Colors of what moves and of what surrounds it, learned from one frame, as log odds of every color.

Histograms instead of the mixtures of GrabCut (Rother et al. 2004): blurred by one bin, they are as smooth and cost a
fraction. Letters: h w rows and columns of nodes.
"""

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled
from pipelines.targets.motion.work_frames import shrink

__all__ = ["NUM_BINS", "color_bins", "color_odds", "node_colors"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

NUM_BINS = 8
"""Of each axis of Lab."""
CHROMA_STRETCH = 4.0
"""a and b of Lab are stretched by this much, because photos fill a third of their range."""
MIN_NODES = 20.0


def node_colors(color_3HW: Bytes, nodes: tuple[int, int]) -> Floats:
    """Return Lab colors of the nodes, float32 (h, w, 3) in [0, 255], of RGB planes (3, H, W) at the clip's size."""
    rgb_hw3 = np.dstack([shrink(plane, nodes, 1) for plane in color_3HW])
    lab_hw3 = cv2.cvtColor(rgb_hw3, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab_hw3[..., 1:] = np.clip(128 + (lab_hw3[..., 1:] - 128) * CHROMA_STRETCH, 0, 255)
    return lab_hw3


def color_bins(lab_hw3: Floats) -> Indices:
    """Return the index (h, w) of each node's color, 0 to NUM_BINS^3 - 1."""
    bins = np.minimum(lab_hw3 * (NUM_BINS / 256), NUM_BINS - 1).astype(np.int64)
    return np.asarray((bins[..., 0] * NUM_BINS + bins[..., 1]) * NUM_BINS + bins[..., 2])


@compiled
def color_odds(bins_hw: Indices, moving_hw: Floats, still_hw: Floats) -> Floats:
    """Return log odds (NUM_BINS^3,) that a node of each color moves, from nodes weighted as moving and as still."""
    # 1. Count, with a margin of one bin of zeros.
    size = NUM_BINS + 2
    counts = np.zeros((2, size, size, size))
    for row in range(bins_hw.shape[0]):
        for column in range(bins_hw.shape[1]):
            color = bins_hw[row, column]
            i, j, k = color // NUM_BINS**2 + 1, color // NUM_BINS % NUM_BINS + 1, color % NUM_BINS + 1
            counts[0, i, j, k] += moving_hw[row, column]
            counts[1, i, j, k] += still_hw[row, column]
    total_moving, total_still = counts[0].sum() + 1e-6, counts[1].sum() + 1e-6
    # 2. Blur by (1/4, 1/2, 1/4) along each axis: colors next to a bin's border belong to both.
    for axis in range(3):
        blurred = np.zeros_like(counts)
        for i in range(1, size - 1):
            for j in range(1, size - 1):
                for k in range(1, size - 1):
                    for which in range(2):
                        here = counts[which]
                        if axis == 0:
                            sides = here[i - 1, j, k] + here[i + 1, j, k]
                        elif axis == 1:
                            sides = here[i, j - 1, k] + here[i, j + 1, k]
                        else:
                            sides = here[i, j, k - 1] + here[i, j, k + 1]
                        blurred[which, i, j, k] = 0.5 * here[i, j, k] + 0.25 * sides
        counts = blurred
    # 3. Log ratios of shares. One node of each color is added to both: few nodes say little.
    odds = np.empty(NUM_BINS**3, np.float32)
    least = 1.0 / max(total_moving, MIN_NODES)
    for color in range(NUM_BINS**3):
        i, j, k = color // NUM_BINS**2 + 1, color // NUM_BINS % NUM_BINS + 1, color % NUM_BINS + 1
        odds[color] = np.log((counts[0, i, j, k] / total_moving + least) / (counts[1, i, j, k] / total_still + least))
    return odds
