"""Pictures of single answers, against hand-made ones."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from pipelines.preview.contact_sheet import PANEL_PX
from pipelines.preview.target_pictures import (
    BLUE,
    ORANGE,
    ab_picture,
    ab_plane,
    compass,
    flow_picture,
    mosaic,
    outlined,
    overlaid,
    picture_of,
)
from pipelines.targets.color.lab import ab_bins


def test_picture_of_float_and_of_bytes() -> None:
    pixels = torch.arange(2 * 3 * 3, dtype=torch.uint8).reshape(2, 3, 3)
    assert np.array_equal(picture_of(pixels), pixels.numpy())
    assert np.array_equal(picture_of(pixels.permute(2, 0, 1).float() / 255), pixels.numpy())


@pytest.mark.parametrize(
    ("place", "row", "column"),
    [(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 0), (4, 1, 2), (5, 2, 0), (6, 2, 1), (7, 2, 2)],
)
def test_compass_marks_the_cell_in_reading_order_around_the_centre(place: int, row: int, column: int) -> None:
    picture = compass(place)
    corner = [round(PANEL_PX * (cell + 0.12) / 3) for cell in range(3)]
    colors = {(r, c): tuple(picture[corner[r], corner[c]].tolist()) for r in range(3) for c in range(3)}
    assert colors.pop((1, 1)) == BLUE
    assert colors.pop((row, column)) == ORANGE
    assert set(colors.values()) == {(255, 255, 255)}


def test_outlines_stand_where_the_box_is() -> None:
    picture = outlined(np.zeros((PANEL_PX, PANEL_PX, 3), np.uint8), [((20, 40, 80, 100), "", ORANGE)])
    is_drawn = (picture == ORANGE).all(-1)
    rows, columns = np.flatnonzero(is_drawn.any(1)), np.flatnonzero(is_drawn.any(0))
    assert (columns[0], rows[0], columns[-1], rows[-1]) == (20, 40, 79, 99)
    assert not is_drawn[60, 50]


def test_colors_have_the_asked_ab() -> None:
    ab = np.array([[[20.0, 30.0], [-25.0, 10.0]]])
    found = rgb2lab(ab_picture(ab))
    assert np.abs(found[..., 1:] - ab).max() < 1.5
    assert np.abs(found[..., 0] - 68).max() < 1


def test_ab_plane_frames_the_bins_and_draws_their_shares() -> None:
    bins = np.array([156, 157])
    ab = ab_bins()[bins[0]]
    picture = ab_plane(bins, np.array([0.8, 0.2]))
    x, y = round(PANEL_PX / 2 + 0.8 * (ab[0] - 5)), round(PANEL_PX / 2 - 0.8 * ab[1])
    assert picture[y - 4, x].max() < 60  # the dark frame above the bin
    dark_rows = [(picture[100:, left + 5].max(-1) < 60).nonzero()[0] for left in (8, 23)]
    heights = [rows[-1] - rows[0] for rows in dark_rows]
    assert heights == [56, 14]


def test_flow_colors_tell_direction_and_stillness() -> None:
    flow = np.zeros((100, 100, 2), np.float32)
    flow[:, 50:] = (5.0, 0.0)
    picture = flow_picture(flow)
    still, right = picture[40, 20], picture[40, 180]
    assert still.min() > 240
    assert right[0] > 240
    assert right[1:].max() < 20


def test_overlay_tints_moving_blocks_and_hatches_ignored_ones() -> None:
    frame = np.full((16, 20, 3), 100, np.uint8)
    moving, weight = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    moving[0, 0], moving[1, 1], weight[1, 1], weight[0, 2] = 1, 1, 0, 0
    picture = overlaid(frame, moving, weight)
    assert (picture[:8, :8] == np.rint(0.35 * 100 + 0.65 * np.array(ORANGE))).all()
    assert set(np.unique(picture[8:, 8:16])) == {100, round(0.3 * 100 + 0.7 * 255)}
    assert set(np.unique(picture[:8, 16:])) == {100, round(0.3 * 100 + 0.7 * 255)}
    assert (picture[8:, :8] == 100).all()


def test_mosaic_is_in_reading_order_with_marks_and_gaps() -> None:
    pictures = [np.full((60, 60, 3), 20 * index, np.uint8) for index in range(6)]
    picture = mosaic(pictures, 3, {1: ("B", ORANGE)})
    scale = PANEL_PX / 130
    centres = [
        picture[round((30 + 70 * row) * scale), round((30 + 70 * column) * scale), 0]
        for row in (0, 1)
        for column in (0, 1, 2)
    ]
    assert centres == [0, 20, 40, 60, 80, 100]
    assert (picture[round(65 * scale), round(30 * scale)] == 255).all()
    columns = np.flatnonzero((picture == ORANGE).all(-1).any(0))
    assert round(70 * scale) - 2 <= columns[0] <= columns[-1] <= round(130 * scale) + 2
