"""Ridge regression on one-hot answers with a free bias, in closed form: how both floors answer.

The penalty is chosen by squared error: on a held-out fifth of the train split, with few labels on all fifths in turn.

Letters: N samples, D features, K classes.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import linalg

from benchmarks.evaluations.base import (
    NUM_FOLDS,
    Context,
    Int64s,
    Results,
    draw_labelled,
    folds_of,
    mean_over_draws,
    score,
)
from pipelines.base.blas_threads import one_blas_thread
from pipelines.base.config import Config
from pipelines.run.canvases import evaluation_canvases
from pipelines.shards.format.manifest import load_manifest

__all__ = ["Canvas", "Floats", "FloorConfig", "fit_ridge", "floor_results", "run_floor"]

Floats = npt.NDArray[np.float64]
Canvas = npt.NDArray[np.uint8]


class FloorConfig(Config):
    """Options that both floors have."""

    canvas_px: int = Field(default=256, ge=16)
    """Side of the square cut from the image, before resizing. A suite takes the pretraining's if not given."""
    labels_per_class: list[int] = Field(default_factory=lambda: [20])
    """Also with only so many labels per class, each the mean of `num_draws` draws."""
    num_draws: int = Field(default=3, ge=1)
    """Cost of every entry of `labels_per_class` grows with it."""
    l2_grid: list[float] = Field(default_factory=lambda: [0.01, 0.1, 1.0, 10.0, 100.0], min_length=1)
    """Values the ridge penalty, relative to the mean squared feature, is chosen from."""


def run_floor(context: Context, config: FloorConfig, features_of: Callable[[Canvas], Floats]) -> Results:
    """Return the results of ridge regression on features of the canvases of both splits.

    features_of(canvas), uint8 RGB of canvas_px square -> features (D,). Raises UsageError or DataError.
    """
    splits = (context.train_split, context.test_split)
    train, test = (_features(context.the_images(), split, config.canvas_px, features_of) for split in splits)
    return floor_results(*train, *test, config)


def _features(
    images: Path, split: str, canvas_px: int, features_of: Callable[[Canvas], Floats]
) -> tuple[Floats, Int64s]:
    """Return features (N, D) and labels (N,)."""
    table = load_manifest(images).select("image", split)
    rows, labels = [], []
    for batch in evaluation_canvases(table, canvas_px=canvas_px, batch_size=64):
        rows += [features_of(canvas) for canvas in batch.pixels.numpy()]
        labels.append(np.asarray(batch.labels, dtype=np.int64))
    return np.stack(rows), np.concatenate(labels)


def floor_results(
    train_ND: Floats, train_labels_N: Int64s, test_ND: Floats, test_labels_N: Int64s, options: FloorConfig
) -> Results:
    """Return results named like the linear probe's: top-1 and top-5 with all labels and with few."""
    start_s = time.monotonic()
    # By the train split's mean: the test split has no part in the fit.
    mean_D = train_ND.mean(axis=0)
    train_ND, test_ND = train_ND - mean_D, test_ND - mean_D
    every_row = np.arange(len(train_labels_N))
    with one_blas_thread():
        l2, answers_NK = _answer(train_ND, train_labels_N, every_row, test_ND, options, folds=1)
        results: Results = {**score(answers_NK, test_labels_N), "l2": l2, "num_features": train_ND.shape[1]}
        for per_class in options.labels_per_class:
            draws = []
            for draw in range(options.num_draws):
                rows = draw_labelled(train_labels_N, per_class, draw)
                answers_NK = _answer(train_ND, train_labels_N, rows, test_ND, options, folds=NUM_FOLDS)[1]
                draws.append(score(answers_NK, test_labels_N))
            results |= mean_over_draws(draws, per_class)
    return results | {"probe_s": time.monotonic() - start_s}


def fit_ridge(
    features_ND: Floats, labels_N: Int64s, num_classes: int, l2s: list[float]
) -> dict[float, tuple[Floats, Floats]]:
    """Return (weight (D, K), bias (K,)) by penalty. Minimises |X W + b - Y|^2 + l2 * trace(X'X)/D * |W|^2, Y one-hot.

    Solved in the smaller of D and N dimensions.
    """
    targets_NK = np.eye(num_classes)[labels_N]
    mean_D, mean_K = features_ND.mean(axis=0), targets_NK.mean(axis=0)
    # Centred, so that the bias is free of the penalty and drops out of the equations.
    centred_ND, centred_NK = features_ND - mean_D, targets_NK - mean_K
    is_wide = len(features_ND) < features_ND.shape[1]
    gram = centred_ND @ centred_ND.T if is_wide else centred_ND.T @ centred_ND
    scale = float(np.square(centred_ND).sum()) / features_ND.shape[1]
    fits = {}
    for l2 in l2s:
        damped = gram + l2 * scale * np.eye(len(gram))
        right = centred_NK if is_wide else centred_ND.T @ centred_NK
        solved = linalg.solve(damped, right, assume_a="pos")
        weight_DK = centred_ND.T @ solved if is_wide else solved
        fits[l2] = (weight_DK, mean_K - mean_D @ weight_DK)
    return fits


def _answer(
    train_ND: Floats, labels_N: Int64s, rows: Int64s, test_ND: Floats, options: FloorConfig, *, folds: int
) -> tuple[float, Floats]:
    """Return the penalty chosen on the first `folds` held-out fifths of `rows`, and test answers (N, K)."""
    known_ND, known_N, num_classes = train_ND[rows], labels_N[rows], int(labels_N.max()) + 1
    fold_N, errors = folds_of(known_N), dict.fromkeys(options.l2_grid, 0.0)
    for fold in range(folds):
        kept, left_out = fold_N != fold, fold_N == fold
        targets_NK = np.eye(num_classes)[known_N[left_out]]
        for l2, (weight, bias) in fit_ridge(known_ND[kept], known_N[kept], num_classes, options.l2_grid).items():
            errors[l2] += float(np.square(known_ND[left_out] @ weight + bias - targets_NK).sum())
    best = min(errors, key=errors.__getitem__)
    weight, bias = fit_ridge(known_ND, known_N, num_classes, [best])[best]
    return best, test_ND @ weight + bias
