import numpy as np
import pytest

from benchmarks.evaluations.depth.metrics import DepthSums


def reference(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """The metrics in ten lines of NumPy, from all pixels at once."""
    valid = np.isfinite(measured) & (measured != 0)
    p, d = predicted[valid].astype(float), measured[valid].astype(float)
    ratio = np.where(p > d, p / d, d / p)
    return {
        "under_1.25_pct": 100 * np.mean(ratio < 1.25),
        "under_1.25_2_pct": 100 * np.mean(ratio < 1.5625),
        "under_1.25_3_pct": 100 * np.mean(ratio < 1.953125),
        "mae_m": np.mean(np.abs(p - d)),
        "mre": np.mean(np.abs(p - d) / d),
        "log10": np.mean(np.abs(np.log10(p / d))),
        "rmse_m": np.sqrt(np.mean((p - d) ** 2)),
    }


def test_sums_of_images_of_unequal_size_equal_numpy_over_all_pixels() -> None:
    rng = np.random.default_rng(0)
    sums, pairs = DepthSums(), []
    for shape in ((8, 6), (5, 9), (1, 1)):
        measured = rng.uniform(0.5, 8, shape).astype(np.float32)
        predicted = (measured * rng.lognormal(0, 0.3, shape)).astype(np.float32)
        measured[rng.random(shape) < 0.3] = 0
        measured[0, 0] = np.nan
        pairs.append((predicted.ravel(), measured.ravel()))
        sums.add(predicted, measured)
    wanted = reference(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
    assert sums.results() == pytest.approx(wanted, rel=1e-6)
    assert 20 < wanted["under_1.25_pct"] < 90


def test_hand_made_pixels() -> None:
    sums = DepthSums()
    sums.add(np.array([2.0, 1.0, 4.0], dtype=np.float32), np.array([1.0, 1.0, 0.0], dtype=np.float32))
    results = sums.results()
    assert sums.num_pixels == 2
    assert results["under_1.25_pct"] == results["under_1.25_3_pct"] == 50
    assert (results["mae_m"], results["mre"], results["rmse_m"]) == pytest.approx((0.5, 0.5, 0.5**0.5))


def test_negative_predictions_count_as_the_least_depth() -> None:
    sums = DepthSums()
    sums.add(np.array([-1.0], dtype=np.float32), np.array([1.0], dtype=np.float32))
    assert sums.results()["log10"] == pytest.approx(3.0)
