"""A grid of patches on a canvas, each moved at random, and the pairs of neighbours in it. After Doersch et al. 2015.

Patches are numbered in reading order. The label of a pair is the place of its second patch, seen from the first:

    0 1 2
    3 . 4
    5 6 7

Letters: G grids on one canvas, P = rows x cols patches of a grid, K ordered pairs of neighbours in it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipelines.base.batch_rng import BatchRng

__all__ = ["DIRECTIONS_XY", "NeighbourPairs", "PatchGrid", "neighbour_pairs", "paper_lengths"]

Int64s = npt.NDArray[np.int64]

DIRECTIONS_XY = np.array([(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)])
"""Step to the second patch of a pair in (x, y), by label."""
PAPER_CANVAS_PX = 256
PAPER_PATCH_PX, PAPER_GAP_PX, PAPER_JITTER_PX = 96, 48, 7


@dataclass(frozen=True, slots=True)
class NeighbourPairs:
    """first, second: numbers of patches; position: label, 0 to 7. All int64 (K,)."""

    first: Int64s
    second: Int64s
    position: Int64s


@lru_cache(maxsize=16)
def neighbour_pairs(rows: int, cols: int) -> NeighbourPairs:
    """All ordered pairs of patches that touch by a side or a corner; 40 in a grid of 3 x 3."""
    found = [
        (row * cols + col, (row + dy) * cols + col + dx, label)
        for row in range(rows)
        for col in range(cols)
        for label, (dx, dy) in enumerate(DIRECTIONS_XY.tolist())
        if 0 <= row + dy < rows and 0 <= col + dx < cols
    ]
    first, second, position = np.array(found, np.int64).reshape(-1, 3).T
    return NeighbourPairs(*(np.ascontiguousarray(one) for one in (first, second, position)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchGrid:
    """rows x cols cells; between two patches lie `gap_px`, before each moves by up to `jitter_px` on each axis."""

    rows: int
    cols: int
    patch_px: int
    gap_px: int
    jitter_px: int

    @property
    def num_patches(self) -> int:
        return self.rows * self.cols

    @property
    def needed_px(self) -> int:
        """Side of the smallest square canvas that holds the grid."""
        cells = max(self.rows, self.cols)
        return cells * self.patch_px + (cells - 1) * self.gap_px + 2 * self.jitter_px

    def draw(self, rng: np.random.Generator | BatchRng, canvas_px: int, num_grids: int) -> Int64s:
        """Top left corners (x, y) of all patches, int64 (..., G, P, 2), in reading order; inside the canvas.

        Each grid is placed uniformly, then each patch moves on its own.
        """
        pitch_px = self.patch_px + self.gap_px
        cells_xy = np.array([(col, row) for row in range(self.rows) for col in range(self.cols)])
        span_px = pitch_px * np.array([self.cols, self.rows]) - self.gap_px + 2 * self.jitter_px
        place = rng.integers(0, canvas_px - span_px + 1, (num_grids, 1, 2))
        moved = rng.integers(0, 2 * self.jitter_px + 1, (num_grids, self.num_patches, 2))
        return np.asarray(place + moved + pitch_px * cells_xy, np.int64)


def paper_lengths(canvas_px: int, scale_px: int, cells: int) -> tuple[int, int, int]:
    """Patch, gap and jitter for `cells` x `cells` patches: the original's 96, 48 and 7 on 256 px, scaled to `scale_px`
    and, where they do not fit, further down to `canvas_px`."""
    needed_px = cells * PAPER_PATCH_PX + (cells - 1) * PAPER_GAP_PX + 2 * PAPER_JITTER_PX
    unit = min(scale_px / PAPER_CANVAS_PX, canvas_px / needed_px)
    patch_px, gap_px = max(int(PAPER_PATCH_PX * unit), 1), int(PAPER_GAP_PX * unit)
    room_px = canvas_px - cells * patch_px - (cells - 1) * gap_px
    return patch_px, gap_px, max(0, min(round(PAPER_JITTER_PX * unit), room_px // 2))
