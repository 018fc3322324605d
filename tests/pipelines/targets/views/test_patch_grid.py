"""Grids against a plain loop over cells, the original's numbers of pairs, and its lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.base.batch_rng import BatchRng
from pipelines.targets.views.patch_grid import PatchGrid, neighbour_pairs, paper_lengths

PLACES = {(-1, -1): 0, (0, -1): 1, (1, -1): 2, (-1, 0): 3, (1, 0): 4, (-1, 1): 5, (0, 1): 6, (1, 1): 7}


@pytest.mark.parametrize(("rows", "cols", "count"), [(3, 3, 40), (4, 4, 84), (3, 4, 58), (1, 2, 2), (1, 1, 0)])
def test_all_neighbours_in_both_directions(rows: int, cols: int, count: int) -> None:
    pairs = neighbour_pairs(rows, cols)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.position.tolist(), strict=True))
    cells = [(row, col) for row in range(rows) for col in range(cols)]
    expected = {
        (i, j, PLACES[(b[1] - a[1], b[0] - a[0])])
        for i, a in enumerate(cells)
        for j, b in enumerate(cells)
        if i != j and max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1
    }
    assert found == expected
    assert len(pairs.first) == count


def test_both_directions_of_a_pair_have_opposite_labels() -> None:
    pairs = neighbour_pairs(3, 3)
    label = dict(zip(zip(pairs.first, pairs.second, strict=True), pairs.position, strict=True))
    assert all(label[second, first] == 7 - position for (first, second), position in label.items())


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(3, 5),
    cols=st.integers(3, 5),
    patch_px=st.integers(1, 30),
    gap_px=st.integers(0, 20),
    jitter_px=st.integers(0, 9),
    room_px=st.integers(0, 40),
)
def test_patches_lie_on_the_canvas_in_their_cells(
    rows: int, cols: int, patch_px: int, gap_px: int, jitter_px: int, room_px: int
) -> None:
    grid = PatchGrid(rows=rows, cols=cols, patch_px=patch_px, gap_px=gap_px, jitter_px=jitter_px)
    canvas_px = grid.needed_px + room_px
    corner_xy = grid.draw(np.random.default_rng(0), canvas_px, 50)
    assert corner_xy.shape == (50, rows * cols, 2)
    assert corner_xy.min() >= 0
    assert corner_xy.max() + patch_px <= canvas_px
    cell_xy = np.array([(col, row) for row in range(rows) for col in range(cols)])
    off_xy = corner_xy - (patch_px + gap_px) * cell_xy
    assert (np.ptp(off_xy, axis=1) <= 2 * jitter_px).all()


def test_place_and_jitter_use_all_their_room() -> None:
    grid = PatchGrid(rows=3, cols=3, patch_px=10, gap_px=5, jitter_px=2)
    corner_xy = grid.draw(BatchRng(0, [0] * 400, [str(key) for key in range(400)], "grid"), grid.needed_px + 6, 2)
    assert corner_xy.shape == (400, 2, 9, 2)
    assert np.unique(corner_xy[:, :, 0]).tolist() == list(range(11))
    step = corner_xy[:, :, 1, 0] - corner_xy[:, :, 0, 0]
    assert np.unique(step).tolist() == list(range(11, 20))


@pytest.mark.parametrize(
    ("canvas_px", "scale_px", "cells", "expected"),
    [(398, 256, 3, (96, 48, 7)), (542, 256, 3, (96, 48, 7)), (542, 256, 4, (96, 48, 7)), (150, 96, 3, (36, 18, 3))],
)
def test_lengths_are_the_originals_where_they_fit(
    canvas_px: int, scale_px: int, cells: int, expected: tuple[int, int, int]
) -> None:
    assert paper_lengths(canvas_px, scale_px, cells) == expected


@pytest.mark.parametrize("canvas_px", range(3, 400, 13))
@pytest.mark.parametrize("cells", [3, 5])
def test_lengths_fit_every_canvas_that_has_a_pixel_per_patch(canvas_px: int, cells: int) -> None:
    patch_px, gap_px, jitter_px = paper_lengths(canvas_px, 256, cells)
    if canvas_px >= cells:
        assert cells * patch_px + (cells - 1) * gap_px + 2 * jitter_px <= canvas_px
