"""Resampling of patches: compiled loops against OpenCV's area and linear interpolation."""

import cv2
import numpy as np
import pytest

from pipelines.targets.views.resampling import resample_plane, smallest_px


@pytest.mark.parametrize("patch_px", [7, 36, 61, 96])
def test_compiled_loops_do_what_opencv_does(patch_px: int) -> None:
    plane = np.random.default_rng(patch_px).random((patch_px, patch_px)).astype(np.float32)
    for small_px in range(smallest_px(patch_px), patch_px):
        small = cv2.resize(plane, (small_px, small_px), interpolation=cv2.INTER_AREA)
        resampled = plane.copy()
        resample_plane(resampled, small_px)
        expected = cv2.resize(small, plane.shape, interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(resampled, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("small_px", [24, 25])
def test_a_patch_that_is_not_scaled_down_stays_as_it_is(small_px: int) -> None:
    plane = np.random.default_rng(0).random((24, 24)).astype(np.float32)
    before = plane.copy()
    resample_plane(plane, small_px)
    assert np.array_equal(plane, before)


def test_the_smallest_size_is_a_tenth_of_the_side() -> None:
    assert [smallest_px(side) for side in (1, 8, 61, 96, 192)] == [1, 1, 6, 10, 20]
