from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.floors.pixel_floor import PixelFloorConfig, run
from benchmarks.evaluations.floors.ridge import fit_ridge
from tests.made.tiny_shards import coloured, write_shards


@pytest.mark.parametrize(("num_samples", "num_features"), [(60, 10), (15, 40)], ids=["tall", "wide"])
@pytest.mark.parametrize("l2", [0.01, 1.0, 100.0])
def test_ridge_equals_sklearn(num_samples: int, num_features: int, l2: float) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(3, 2, size=(num_samples, num_features)), rng.integers(0, 3, num_samples)
    scale = np.square(features - features.mean(axis=0)).sum() / num_features
    theirs = Ridge(alpha=l2 * scale).fit(features, np.eye(3)[labels])
    weight, bias = fit_ridge(features, labels, 3, [l2])[l2]
    np.testing.assert_allclose(features @ weight + bias, theirs.predict(features), atol=1e-8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    counts = {"train": 60, "val": 30}
    return write_shards(tmp_path, {s: [(i % 3, coloured(i % 3, rng)) for i in range(n)] for s, n in counts.items()})


def context(images: Path) -> Context:
    return Context(trunk=None, images=images, store=images / "features")


def test_colours_are_told_from_pixels_alone(images: Path) -> None:
    config = PixelFloorConfig(canvas_px=32, side_px=8, labels_per_class=[3])
    results = run(context(images), config)
    assert results["top1_pct"] > 90
    assert results["top1_3_labels_pct"] > 60
    assert len(results["top1_3_labels_draws_pct"]) == 3
    assert results["num_features"] == 8 * 8 * 3


def test_same_numbers_every_time(images: Path) -> None:
    config = PixelFloorConfig(canvas_px=32, side_px=8, labels_per_class=[3])
    first, second = run(context(images), config), run(context(images), config)
    assert first | {"probe_s": 0} == second | {"probe_s": 0}
