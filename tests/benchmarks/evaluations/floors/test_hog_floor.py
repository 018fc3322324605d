from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from skimage.feature import hog

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.floors.hog_floor import HogFloorConfig, oriented_gradients, run
from tests.made.tiny_shards import write_shards


def stripes(label: int, rng: np.random.Generator) -> np.ndarray:
    """A random color with stripes, upright or lying: only the direction of edges tells the class."""
    image = np.zeros((32, 32, 3)) + rng.integers(40, 160, 3)
    (image if label else image.swapaxes(0, 1))[::4] += 60
    return (image + rng.integers(0, 20, image.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    return write_shards(
        tmp_path, {s: [(i % 2, stripes(i % 2, rng)) for i in range(n)] for s, n in {"train": 30, "val": 20}.items()}
    )


def test_directions_of_edges_are_told(images: Path) -> None:
    results = run(
        Context(trunk=None, images=images, store=images), HogFloorConfig(canvas_px=32, side_px=32, labels_per_class=[3])
    )
    assert results["top1_pct"] == 100
    assert results["top1_3_labels_pct"] > 90
    assert results["num_features"] == 3 * 3 * 36


@pytest.mark.parametrize("shape", [(32, 32), (64, 40)])
def test_descriptor_equals_scikit_image(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    theirs = hog(image, pixels_per_cell=(8, 8), cells_per_block=(2, 2), block_norm="L2-Hys", channel_axis=2)
    np.testing.assert_allclose(oriented_gradients(image), theirs, atol=1e-6)


def test_side_that_is_no_multiple_of_a_cell_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of 8"):
        HogFloorConfig(side_px=36)
