"""Soft encoding of colors: the nearest of the 313 ab bins and their Gaussian weights. After Zhang et al. 2016.

Bins lie on a grid of step 10. If all grid points around a color are bins, the nearest ones depend only on the color's
place in its cell, and a table of all places in steps of 1/64 lists them. Elsewhere (at the border of the gamut, or
between steps) the few bins that can be nearest are sorted. Both ways agree to the bit.

Letters: N colors, K neighbours.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from pipelines.kernels.compiled import compiled
from pipelines.targets.color.lab import AB_STEPS_PER_UNIT, BIN_AB, NUM_BINS, ab_bins

__all__ = ["soft_encode"]

Float32s = npt.NDArray[np.float32]

AB_LIMIT = 130
PART_COLORS = 16384
CELL_AB = 5
CELLS_PER_AXIS = 2 * AB_LIMIT // CELL_AB
PLACE_BITS = 9
STEPS_PER_BIN = BIN_AB * AB_STEPS_PER_UNIT
LIMIT_STEPS = AB_LIMIT * AB_STEPS_PER_UNIT
AB_PER_STEP = 1 / AB_STEPS_PER_UNIT
BIN_CELLS = 2 * AB_LIMIT // BIN_AB
CORNERS = np.array([(a, b) for a in range(-1, 3) for b in range(-1, 3)], np.int32)
"""Grid points around a cell, in units of bins from its lower corner, in the order of bins."""
MAX_LISTED_NEIGHBORS = 8
"""Largest K for the table: so many points of CORNERS are always nearer than any other grid point."""
NOT_LISTED = -1


def soft_encode(ab: torch.Tensor, num_neighbors: int = 5, sigma: float = 5.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest bins of each color and their Gaussian weights.

    ab: float32 (..., 2) within +-130. Returns bins, int64 (..., K), nearest first, ties to the lower bin; and
    weights, float32 (..., K), exp(-distance² / 2 sigma²) normalised to sum 1. Both are views of K planes.
    """
    flat = ab.reshape(-1, 2)
    is_on_cpu = ab.device.type == "cpu"
    nearest = _nearest_by_table if is_on_cpu and num_neighbors <= MAX_LISTED_NEIGHBORS else _nearest_by_sorting
    bins = torch.empty((num_neighbors, len(flat)), dtype=torch.int64, device=ab.device)
    weights = torch.empty((num_neighbors, len(flat)), dtype=torch.float32, device=ab.device)
    # A CPU works on parts that fit its cache; a GPU is faster with all colors at once.
    part = PART_COLORS if is_on_cpu else max(len(flat), 1)
    for start in range(0, len(flat), part):
        chosen = slice(start, start + part)
        bins[:, chosen], squared = nearest(flat[chosen], num_neighbors)
        # Distances relative to the nearest bin: far from every bin all weights would underflow to 0. This is a softmax;
        # torch.softmax over the first axis takes ten times as long.
        gaussian = (squared - squared[0]).mul_(-0.5 / sigma**2).exp_()
        torch.div(gaussian, gaussian.sum(0), out=weights[:, chosen])
    shape = (num_neighbors, *ab.shape[:-1])
    return bins.view(shape).movedim(0, -1), weights.view(shape).movedim(0, -1)


def _nearest_by_table(ab: torch.Tensor, num_neighbors: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bins, int64 (K, N), and squared distances, float32 (K, N), of colors (N, 2); by the table if possible."""
    listed = _patterns(num_neighbors)
    bins = np.empty((num_neighbors, len(ab)), np.int64)
    squared = np.empty((num_neighbors, len(ab)), np.float32)
    _look_up(ab.contiguous().numpy(), listed.pattern, listed.offset_PK2, listed.bins_RK, bins, squared)
    found = torch.from_numpy(bins), torch.from_numpy(squared)
    # Colors that the table does not list are few; sorting all 313 distances for them costs nothing that shows.
    rest = torch.from_numpy(np.flatnonzero(bins[0] == NOT_LISTED))
    if len(rest):
        for planes, searched in zip(found, _nearest_by_sorting(ab[rest], num_neighbors), strict=True):
            planes[:, rest] = searched
    return found


@compiled
def _look_up(
    ab_N2: Float32s,
    pattern: npt.NDArray[np.unsignedinteger],
    offset_PK2: Float32s,
    bins_RK: npt.NDArray[np.int16],
    bins_KN: npt.NDArray[np.int64],
    squared_KN: Float32s,
) -> None:
    """Write bins and squared distances of colors that the table lists; others get NOT_LISTED."""
    num_patterns, per_bin = np.uint32(len(offset_PK2)), np.uint32(STEPS_PER_BIN)
    for index in range(len(ab_N2)):
        steps_a = ab_N2[index, 0] * np.float32(AB_STEPS_PER_UNIT) + np.float32(LIMIT_STEPS)
        steps_b = ab_N2[index, 1] * np.float32(AB_STEPS_PER_UNIT) + np.float32(LIMIT_STEPS)
        # 1. Only whole steps inside the limits are in the table.
        is_listed = 0 < steps_a < 2 * LIMIT_STEPS and 0 < steps_b < 2 * LIMIT_STEPS
        if not is_listed or steps_a != np.floor(steps_a) or steps_b != np.floor(steps_b):
            bins_KN[:, index] = NOT_LISTED
            continue
        # 2. The place in the cell gives the pattern of nearest grid points, cell and pattern give their bins.
        cell_a, cell_b = np.uint32(steps_a) // per_bin, np.uint32(steps_b) // per_bin
        place_a, place_b = np.uint32(steps_a) - cell_a * per_bin, np.uint32(steps_b) - cell_b * per_bin
        its_pattern = np.uint32(pattern[place_a * per_bin + place_b])
        row = (cell_a * np.uint32(BIN_CELLS) + cell_b) * num_patterns + its_pattern
        a, b = np.float32(place_a) * np.float32(AB_PER_STEP), np.float32(place_b) * np.float32(AB_PER_STEP)
        # 3. Distances from the cell's corner, in which all numbers are small and exact.
        for k in range(len(bins_KN)):
            far_a, far_b = offset_PK2[its_pattern, k, 0] - a, offset_PK2[its_pattern, k, 1] - b
            bins_KN[k, index] = bins_RK[row, k]
            squared_KN[k, index] = far_a * far_a + far_b * far_b


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patterns:
    """Table of the K nearest grid points for every place in a cell. A pattern is one such list; there are P of them.

    pattern: (640 * 640,), the pattern of each place, a first. offset_PK2: float32, a and b of the points from the
    cell's lower corner. bins_RK: int16, R = 26 * 26 * P: the points' bins for each cell and pattern, NOT_LISTED in all
    K if one of the points is no bin.
    """

    pattern: npt.NDArray[np.unsignedinteger]
    offset_PK2: npt.NDArray[np.float32]
    bins_RK: npt.NDArray[np.int16]


@lru_cache(maxsize=4)
def _patterns(num_neighbors: int) -> _Patterns:
    """Make the table for K = `num_neighbors`."""
    # 1. Squared distances in whole steps, so that ties are exact.
    place = np.arange(STEPS_PER_BIN, dtype=np.int32)
    squared_a, squared_b = ((place[:, None] - CORNERS[:, axis] * STEPS_PER_BIN) ** 2 for axis in (0, 1))
    # 2. Sort: one key holds distance, then place in the order of bins, so that ties go to the lower bin.
    key = (squared_a[:, None] + squared_b) * len(CORNERS) + np.arange(len(CORNERS), dtype=np.int32)
    nearest = np.sort(key.reshape(-1, len(CORNERS)), axis=-1)[:, :num_neighbors] % len(CORNERS)
    # 3. Places with the same list of points share a pattern.
    code = nearest.astype(np.int64) @ len(CORNERS) ** np.arange(num_neighbors)
    _, first, pattern = np.unique(code, return_index=True, return_inverse=True)
    points_PK2 = CORNERS[nearest[first]]
    # 4. In every cell of the plane, the bins at those points.
    bins_CCPK = _grid_of_bins()[
        np.arange(BIN_CELLS)[:, None, None, None] + 1 + points_PK2[..., 0],
        np.arange(BIN_CELLS)[None, :, None, None] + 1 + points_PK2[..., 1],
    ]
    bins_CCPK[(bins_CCPK == NOT_LISTED).any(-1)] = NOT_LISTED
    return _Patterns(
        pattern=pattern.reshape(-1).astype(np.min_scalar_type(len(first) - 1)),
        offset_PK2=(points_PK2 * BIN_AB).astype(np.float32),
        bins_RK=bins_CCPK.reshape(-1, num_neighbors),
    )


def _grid_of_bins() -> npt.NDArray[np.int16]:
    """Return the bin at each grid point from -140 to 150 on both axes, int16; NOT_LISTED where there is none."""
    grid = np.full((BIN_CELLS + 4, BIN_CELLS + 4), NOT_LISTED, np.int16)
    a, b = (ab_bins().T / BIN_AB).astype(int) + AB_LIMIT // BIN_AB + 1
    grid[a, b] = np.arange(NUM_BINS)
    return grid


def _nearest_by_sorting(ab: torch.Tensor, num_neighbors: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bins, int64 (K, N), and squared distances, float32 (K, N), of colors (N, 2), by sorting candidates."""
    candidates, candidate_a, candidate_b = _candidates(num_neighbors, ab.device)
    cell = ((ab + AB_LIMIT) / CELL_AB).long().clamp_(0, CELLS_PER_AXIS - 1)
    row = cell[:, 0] * CELLS_PER_AXIS + cell[:, 1]
    squared = candidate_a.index_select(0, row).sub_(ab[:, :1]).square_()
    squared += candidate_b.index_select(0, row).sub_(ab[:, 1:]).square_()
    # The bits of a float of at least 0 sort like integers. So one key can hold distance, then place among the
    # candidates, which are in the order of bins: ties go to the lower bin, without a stable sort.
    place = torch.arange(candidates.shape[1], device=ab.device)
    key = squared.view(torch.int32).long().bitwise_left_shift_(PLACE_BITS).bitwise_or_(place)
    key = _sorted(key)[:, :num_neighbors].T.contiguous()
    flat_place = (key & (1 << PLACE_BITS) - 1).add_(row * candidates.shape[1])
    bins = candidates.view(-1).index_select(0, flat_place.view(-1)).view(key.shape)
    return bins, (key >> PLACE_BITS).int().view(torch.float32)


def _sorted(key: torch.Tensor) -> torch.Tensor:
    # On a CPU NumPy sorts many short rows of integers 5 times as fast as torch.
    return torch.from_numpy(np.sort(key.numpy(), axis=-1)) if key.device.type == "cpu" else key.sort(dim=-1).values


@lru_cache(maxsize=8)
def _candidates(num_neighbors: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return for each 5 x 5 cell of the ab plane the bins that can be among the K nearest of a point in it.

    Three tensors (cells, candidates): bins, and their a and b.

    Rows are in the order of bins, and filled up with bins at an infinite distance.
    """
    # A bin can be among them unless K others are nearer, each at its farthest point of the cell, than this one at its
    # nearest. So searching 13 bins instead of 313 is exact.
    low = np.arange(-AB_LIMIT, AB_LIMIT, CELL_AB)[:, None, None]
    bins = ab_bins().astype(np.float64)
    nearest_sq = np.maximum(np.maximum(low - bins, bins - low - CELL_AB), 0) ** 2
    farthest_sq = np.maximum(np.abs(low - bins), np.abs(low + CELL_AB - bins)) ** 2
    nearest_sq = (nearest_sq[:, None, :, 0] + nearest_sq[None, :, :, 1]).reshape(-1, NUM_BINS)
    farthest_sq = (farthest_sq[:, None, :, 0] + farthest_sq[None, :, :, 1]).reshape(-1, NUM_BINS)
    bound = np.partition(farthest_sq, num_neighbors - 1, axis=-1)[:, num_neighbors - 1, None]
    is_candidate = nearest_sq <= bound
    width = int(is_candidate.sum(-1).max())
    order = np.argsort(~is_candidate, axis=-1, kind="stable")[:, :width].copy()
    is_filler = ~np.take_along_axis(is_candidate, order, -1)
    a, b = (np.where(is_filler, np.inf, bins[order, axis]).astype(np.float32) for axis in (0, 1))
    return torch.from_numpy(order).to(device), torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)
