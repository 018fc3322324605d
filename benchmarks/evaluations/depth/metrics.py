"""Depth metrics: predicted and measured depth in meters come in, percentages and errors go out.

Every valid pixel of every image counts once, as in Eigen et al. (2014): sums are pooled over images, not averaged per
image. N pixels.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["DepthSums"]

LEAST_M = 1e-3
"""Predictions are raised to this depth: ratios and logarithms need positive numbers."""
RATIOS = {"under_1.25_pct": 1.25, "under_1.25_2_pct": 1.25**2, "under_1.25_3_pct": 1.25**3}


class DepthSums:
    """Running sums of the depth metrics; memory does not grow with the number of images."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys([*RATIOS, "mae_m", "mre", "log10", "squared"], 0.0)
        self.num_pixels = 0

    def add(self, predicted_m: npt.NDArray[np.float32], measured_m: npt.NDArray[np.float32]) -> None:
        """Count the pixels of one or more images, arrays of equal shape. Measured 0 or NaN means unknown: left out."""
        is_valid = measured_m > 0  # False for NaN
        # float64: a float32 sum over the 200 million pixels of NYUv2's test split would drop its last images.
        truth_N = measured_m[is_valid].astype(np.float64)
        guess_N = np.maximum(predicted_m[is_valid].astype(np.float64), LEAST_M)
        ratio_N = np.maximum(guess_N / truth_N, truth_N / guess_N)
        error_N = np.abs(guess_N - truth_N)
        for name, limit in RATIOS.items():
            self._sums[name] += 100.0 * float((ratio_N < limit).sum())
        self._sums["mae_m"] += float(error_N.sum())
        self._sums["mre"] += float((error_N / truth_N).sum())
        self._sums["log10"] += float(np.abs(np.log10(guess_N) - np.log10(truth_N)).sum())
        self._sums["squared"] += float(np.square(error_N).sum())
        self.num_pixels += len(truth_N)

    def results(self) -> dict[str, float]:
        """Return under_1.25_pct, under_1.25_2_pct, under_1.25_3_pct, mae_m, mre, log10 and rmse_m over all pixels."""
        means = {name: value / max(self.num_pixels, 1) for name, value in self._sums.items()}
        rmse_m = means.pop("squared") ** 0.5
        return {**means, "rmse_m": rmse_m}
