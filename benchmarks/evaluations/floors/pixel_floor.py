"""Pixel floor: accuracy of ridge regression on tiny images. A trunk that is not above it has learned nothing useful.

Images as the linear probe sees them, averaged down to 24 x 24 RGB; ridge on one-hot answers with a free bias, closed
form, penalty chosen like the linear probe's, but by squared error: on a held-out fifth of the train split, with few
labels on all fifths in turn.
"""

import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import linalg

from benchmarks.evaluations.base import (
    NUM_FOLDS,
    Context,
    Evaluation,
    Int64s,
    Results,
    check_labelled,
    draw_labelled,
    folds_of,
    mean_over_draws,
    score,
)
from pipelines.base.config import Config
from pipelines.run.canvases import evaluation_canvases
from pipelines.shards.format.manifest import load_manifest

__all__ = ["EVALUATION", "PixelFloorConfig", "fit_ridge", "run"]

Floats = npt.NDArray[np.float64]


class PixelFloorConfig(Config):
    """Options of the pixel floor."""

    canvas_px: int = Field(default=256, ge=16)
    """Side of the square cut from the image, before averaging. A suite takes the pretraining's if not given."""
    side_px: int = Field(default=24, ge=1)
    """Side of the tiny image; cost grows with its sixth power (features cubed)."""
    labels_per_class: list[int] = Field(default_factory=lambda: [20])
    """Also with only so many labels per class, each the mean of `num_draws` draws."""
    num_draws: int = Field(default=3, ge=1)
    """Cost of every entry of `labels_per_class` grows with it."""
    l2_grid: list[float] = Field(default_factory=lambda: [0.001, 0.01, 0.1, 1.0, 10.0, 100.0], min_length=1)
    """Values the ridge penalty, relative to the mean squared pixel, is chosen from."""


def run(context: Context, config: PixelFloorConfig) -> Results:
    """Return results named like the linear probe's. Raises UsageError or DataError."""
    start_s = time.monotonic()
    images = context.the_images()
    train_ND, train_labels_N = _tiny_images(images, context.train_split, config)
    test_ND, test_labels_N = _tiny_images(images, context.test_split, config)
    # By the train split's mean: the test split has no part in the fit.
    mean_D = train_ND.mean(axis=0)
    train_ND, test_ND = train_ND - mean_D, test_ND - mean_D
    every_row = np.arange(len(train_labels_N))
    l2, answers_NK = _answer(train_ND, train_labels_N, every_row, test_ND, config, folds=1)
    results: Results = {**score(answers_NK, test_labels_N), "l2": l2, "num_features": train_ND.shape[1]}
    for per_class in config.labels_per_class:
        draws = []
        for draw in range(config.num_draws):
            rows = draw_labelled(train_labels_N, per_class, draw)
            answers_NK = _answer(train_ND, train_labels_N, rows, test_ND, config, folds=NUM_FOLDS)[1]
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
    train_ND: Floats, labels_N: Int64s, rows: Int64s, test_ND: Floats, config: PixelFloorConfig, *, folds: int
) -> tuple[float, Floats]:
    """Return the penalty chosen on the first `folds` held-out fifths of `rows`, and test answers (N, K)."""
    known_ND, known_N, num_classes = train_ND[rows], labels_N[rows], int(labels_N.max()) + 1
    fold_N, errors = folds_of(known_N), dict.fromkeys(config.l2_grid, 0.0)
    for fold in range(folds):
        kept, left_out = fold_N != fold, fold_N == fold
        targets_NK = np.eye(num_classes)[known_N[left_out]]
        for l2, (weight, bias) in fit_ridge(known_ND[kept], known_N[kept], num_classes, config.l2_grid).items():
            errors[l2] += float(np.square(known_ND[left_out] @ weight + bias - targets_NK).sum())
    best = min(errors, key=errors.__getitem__)
    weight, bias = fit_ridge(known_ND, known_N, num_classes, [best])[best]
    return best, test_ND @ weight + bias


def _tiny_images(images: Path, split: str, config: PixelFloorConfig) -> tuple[Floats, Int64s]:
    """Return pixels in [0, 1], (N, side * side * 3), and labels (N,)."""
    table = load_manifest(images).select("image", split)
    rows, labels = [], []
    size = (config.side_px, config.side_px)
    for batch in evaluation_canvases(table, canvas_px=config.canvas_px, batch_size=64):
        for canvas in batch.pixels.numpy():
            rows.append(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).ravel() / 255.0)
        labels.append(np.asarray(batch.labels, dtype=np.int64))
    return np.stack(rows), np.concatenate(labels)


EVALUATION = Evaluation(config_class=PixelFloorConfig, run=run, check=check_labelled, needs_trunk=False)
