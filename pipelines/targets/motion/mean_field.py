"""Mean field on a grid of nodes: each adds its neighbours' opinions to its own log odds (Krähenbühl and Koltun 2011).

A node has 24 neighbours, in the 5 x 5 nodes around it. Letters: h w rows and columns of nodes; 12 ties are half of the
neighbours, as a tie holds for both of its ends.
"""

import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled

__all__ = ["MARGIN", "neighbour_ties", "opinion_grid", "smooth_odds"]

Floats = npt.NDArray[np.float32]

MARGIN = 2
"""How far neighbours are away, and the width of the margin of zeros around opinions and ties."""
NUM_TIES = 12
MIN_CONTRAST = 20.0
DAMPING = 0.75


@compiled
def neighbour_ties(colors_hw3: Floats, smoothness: float) -> Floats:
    """Return (12, h + 4, w + 4): how much a node and each neighbour after it in reading order count for each other.

    Less where colors differ, relative to the frame's mean contrast (Boykov and Jolly 2001), and less with distance.
    smoothness: log odds that a neighbourhood of one color and one opinion adds, times 8 / 24 and inverse distances.
    """
    # 1. The mean squared difference of neighbouring colors is the unit in which colors differ.
    height, width = colors_hw3.shape[:2]
    contrast = 0.0
    for row in range(height - 1):
        for column in range(width - 1):
            for channel in range(3):
                here = colors_hw3[row, column, channel]
                right, down = colors_hw3[row, column + 1, channel] - here, colors_hw3[row + 1, column, channel] - here
                contrast += right * right + down * down
    per_square = np.float32(1 / max(contrast / ((height - 1) * (width - 1)), MIN_CONTRAST))
    # 2. One plane of ties per neighbour.
    ties = np.zeros((NUM_TIES, height + 2 * MARGIN, width + 2 * MARGIN), np.float32)
    n = 0
    for down in range(MARGIN + 1):
        for right in range(-MARGIN, MARGIN + 1):
            if down == 0 and right <= 0:
                continue
            most = np.float32(smoothness * 8 / 24 / np.sqrt(down * down + right * right))
            for row in range(height - down):
                for column in range(max(0, -right), width - max(0, right)):
                    square = np.float32(0)
                    for channel in range(3):
                        off = colors_hw3[row, column, channel] - colors_hw3[row + down, column + right, channel]
                        square += off * off
                    ties[n, row + MARGIN, column + MARGIN] = most * _falling(square * per_square)
            n += 1
    return ties


@compiled
def _falling(square: np.float32) -> np.float32:
    """Return exp(-square), within 0.04: a fraction runs in vectors, and is as good as a measure of likeness."""
    part = np.float32(1) / (np.float32(1) + np.float32(0.125) * square)
    part *= part
    part *= part
    return part * part


def opinion_grid(odds_hw: Floats) -> Floats:
    """Return opinions (h + 4, w + 4), tanh of half the log odds, -1 still to 1 moving, with a margin of 0."""
    return np.pad(np.tanh(odds_hw / 2), MARGIN).astype(np.float32)


@compiled
def smooth_odds(odds_hw: Floats, ties: Floats, opinions: Floats, num_sweeps: int) -> Floats:
    """Return log odds (h, w) with the neighbours' opinions added. `opinions` (h + 4, w + 4) is updated in place."""
    height, width = odds_hw.shape
    result_hw = odds_hw.copy()
    for _ in range(num_sweeps):
        # 1. All nodes at once listen to the opinions of the last sweep, so that loops run in vectors.
        result_hw[:] = odds_hw
        n = 0
        for down in range(MARGIN + 1):
            for right in range(-MARGIN, MARGIN + 1):
                if down == 0 and right <= 0:
                    continue
                for row in range(height):
                    y, above = row + MARGIN, row + MARGIN - down
                    for column in range(width):
                        x = column + MARGIN
                        result_hw[row, column] += (
                            ties[n, y, x] * opinions[y + down, x + right]
                            + ties[n, above, x - right] * opinions[above, x - right]
                        )
                n += 1
        # 2. Opinions follow only in part, or two neighbours could swap theirs for ever.
        for row in range(height):
            for column in range(width):
                opinion = _opinion(result_hw[row, column])
                here = opinions[row + MARGIN, column + MARGIN]
                opinions[row + MARGIN, column + MARGIN] = here + np.float32(DAMPING) * (opinion - here)
    return result_hw


@compiled
def _opinion(odds: np.float32) -> np.float32:
    """Return tanh of half the log odds, within 0.03: a fraction has the same bits everywhere and runs in vectors."""
    half = min(max(np.float32(0.5) * odds, np.float32(-3)), np.float32(3))
    square = half * half
    return half * (np.float32(27) + square) / (np.float32(27) + np.float32(9) * square)
