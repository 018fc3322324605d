"""Sizes and means against NumPy."""

import numpy as np
import pytest

from pipelines.targets.motion.work_frames import node_grid, node_means, shrink


@pytest.mark.parametrize(
    ("size", "nodes"), [((240, 320), (60, 80)), ((100, 132), (26, 34)), ((480, 640), (60, 80)), ((32, 32), (8, 8))]
)
def test_two_nodes_a_cell_up_to_a_width(size, nodes):
    assert node_grid(*size) == nodes


def test_a_plane_is_shrunk_by_means_and_its_border_repeated():
    plane = np.random.default_rng(0).integers(0, 256, (20, 29), dtype=np.uint8)
    found = shrink(plane, node_grid(20, 29), 2)
    padded = np.pad(plane, ((0, 4), (0, 3)), mode="edge").astype(float)
    expected = padded.reshape(12, 2, 16, 2).mean(axis=(1, 3))
    assert found.shape == (12, 16)
    assert np.abs(found - expected).max() <= 0.5


def test_node_means_are_means():
    values = np.random.default_rng(0).random((12, 16, 2)).astype(np.float32)
    expected = values.reshape(6, 2, 8, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(node_means(values), expected, atol=1e-6)
