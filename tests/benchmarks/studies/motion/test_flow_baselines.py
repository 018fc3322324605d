"""Baselines on a square that a moving background cannot hide."""

import numpy as np
import pytest

from benchmarks.studies.motion.flow_baselines import ten_lines, two_lines
from tests.made.composites import MadeCameraPath, compose, cutout, iou, photo


@pytest.mark.parametrize("way", [two_lines, ten_lines])
def test_a_square_is_found(way):
    made = compose(
        photo(0),
        cutout(1),
        rng=np.random.default_rng(0),
        camera=MadeCameraPath(shift_px=(1.0, 0.5)),
        object_height_px=90,
        object_start_xy=(150, 120),
        object_step_xy=(4.0, 0.0),
        num_frames=3,
    )
    assert iou(way(made.clip), made.mask) >= 0.55


@pytest.mark.parametrize("way", [two_lines, ten_lines])
def test_frames_that_are_all_alike_are_no_error(way):
    assert way(np.full((3, 64, 80, 3), 90, np.uint8)).shape == (8, 10)
