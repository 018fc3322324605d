"""The homography that most of some tracked points follow, by weighing down those that do not, again and again.

Gauss-Newton steps on the distance in the second frame, with Geman and McClure's weights, whose scale falls to the
tolerance (graduated non-convexity, Blake and Zisserman 1987): first a shift, then an affine motion, then all eight
numbers. A third of a random search's time, where most points agree; where they do not it may settle on the wrong ones.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled

__all__ = ["settle"]

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

SCALES = (2.0, 2.0, 1.0, 1.0, 1.0)
"""Of every step, in tolerances. Begun at 8, eight numbers bend to an object that moves slowly before a background with
little texture, and both seem to agree."""
NUM_AFFINE_STEPS = 3
NUM_AFFINE = 6
NUM_ALL = 8


@compiled
def settle(from_N2: Floats, to_N2: Floats, tolerance_px: float) -> Matrix:
    """The homography (3, 3) that takes points (N, 2) to where they are seen, N at least 4.

    The last entry is 1. The identity, but for a shift, where points lie on a line.
    """
    center_x, center_y = np.mean(from_N2[:, 0]), np.mean(from_N2[:, 1])
    # In units of the points' spread all numbers are of one size, which equations need to be solved well.
    unit = max(np.std(from_N2[:, 0]), np.std(from_N2[:, 1]), np.float32(1.0))
    h = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    h[2] = np.median(to_N2[:, 0] - from_N2[:, 0]) / unit
    h[5] = np.median(to_N2[:, 1] - from_N2[:, 1]) / unit
    sums, right = np.empty((NUM_ALL, NUM_ALL)), np.empty(NUM_ALL)
    slope_x, slope_y = np.zeros(NUM_ALL), np.zeros(NUM_ALL)
    for step in range(len(SCALES)):
        size = NUM_AFFINE if step < NUM_AFFINE_STEPS else NUM_ALL
        sums[:], right[:] = 0.0, 0.0
        square = (SCALES[step] * tolerance_px / unit) ** 2
        for n in range(len(from_N2)):
            x, y = (from_N2[n, 0] - center_x) / unit, (from_N2[n, 1] - center_y) / unit
            depth = h[6] * x + h[7] * y + 1.0
            there_x, there_y = (h[0] * x + h[1] * y + h[2]) / depth, (h[3] * x + h[4] * y + h[5]) / depth
            off_x = (to_N2[n, 0] - center_x) / unit - there_x
            off_y = (to_N2[n, 1] - center_y) / unit - there_y
            weight = (square / (square + off_x * off_x + off_y * off_y)) ** 2
            slope_x[0], slope_x[1], slope_x[2] = x / depth, y / depth, 1.0 / depth
            slope_y[3], slope_y[4], slope_y[5] = x / depth, y / depth, 1.0 / depth
            slope_x[6], slope_x[7] = -there_x * x / depth, -there_x * y / depth
            slope_y[6], slope_y[7] = -there_y * x / depth, -there_y * y / depth
            for i in range(size):
                at_x, at_y = weight * slope_x[i], weight * slope_y[i]
                right[i] += at_x * off_x + at_y * off_y
                for j in range(i, size):
                    sums[i, j] += at_x * slope_x[j] + at_y * slope_y[j]
        if not _solve(sums, right, size):
            break
        for i in range(size):
            h[i] += right[i]
    return _in_pixels(h, center_x, center_y, unit)


@compiled
def _solve(sums: Matrix, right: Matrix, size: int) -> bool:
    """Gaussian elimination of a symmetric matrix, of which the upper half is read; the solution replaces `right`. False
    if there is none."""
    for i in range(size):
        if sums[i, i] <= 1e-9 * size:
            return False
        for row in range(i + 1, size):
            factor = sums[i, row] / sums[i, i]
            right[row] -= factor * right[i]
            for j in range(row, size):
                sums[row, j] -= factor * sums[i, j]
    for i in range(size - 1, -1, -1):
        for j in range(i + 1, size):
            right[i] -= sums[i, j] * right[j]
        right[i] /= sums[i, i]
    return True


@compiled
def _in_pixels(h: Matrix, center_x: np.floating[Any], center_y: np.floating[Any], unit: np.floating[Any]) -> Matrix:
    """The homography of eight numbers, which are for points from a center, in units."""
    matrix = np.array([[h[0], h[1], h[2] * unit], [h[3], h[4], h[5] * unit], [h[6] / unit, h[7] / unit, 1.0]])
    for row in range(3):
        matrix[row, 2] -= matrix[row, 0] * center_x + matrix[row, 1] * center_y
    for column in range(3):
        matrix[0, column] += center_x * matrix[2, column]
        matrix[1, column] += center_y * matrix[2, column]
    matrix /= matrix[2, 2]
    return matrix
