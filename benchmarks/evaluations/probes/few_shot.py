"""Few-shot: accuracy with 1, 5 and 20 labels a class, over many draws that are the same for every trunk.

Features as the linear probe sees them, standardised by the whole train split (no labels). Ridge regression on one-hot
answers with a free bias, in closed form. The penalty, and the batch norm statistics, have the smallest exact
leave-one-out error, summed over the draws of the largest number of labels; the smaller ones take the same. With 1
label a class nothing could be left out.

Letters: N labelled rows, T test rows, D features, K classes, P penalties.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from benchmarks.evaluations.base import (
    Context,
    Evaluation,
    Int64s,
    Results,
    check_labelled,
    draw_labelled,
    mean_over_draws,
    score,
)
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.features.variants import FrozenConfig, Variant, paired_requests, probed
from benchmarks.evaluations.probes.linear_probe import standardize
from benchmarks.results.statistics import summarize
from pipelines.base.blas_threads import one_blas_thread

__all__ = ["EVALUATION", "FewShotConfig", "ridge_path", "run"]

Floats = npt.NDArray[Any]


class FewShotConfig(FrozenConfig):
    """Options of the few-shot evaluation."""

    pool: int = Field(default=3, ge=1)
    """The last map is max-pooled to pool x pool; features grow with its square."""
    labels_per_class: list[int] = Field(default_factory=lambda: [1, 5, 20], min_length=1)
    """Labels a class; every value costs `num_draws` fits."""
    num_draws: int = Field(default=20, ge=2)
    """Draws of labelled images; the interval shrinks with its root."""
    l2_grid: list[float] = Field(default_factory=lambda: [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0], min_length=1)
    """Ridge penalties relative to the mean squared feature; nearly free."""


def run(context: Context, config: FewShotConfig) -> Results:
    """Return for every number of labels the mean top-1 (top1_5_labels_pct), all draws, and a 95 % interval of the mean.

    The interval is Student's, over draws of labels: it covers other labelled images, not another test set.
    """
    with one_blas_thread():
        return probed(context, requests(context, config), lambda variants: _results(variants, config))


def requests(context: Context, config: FewShotConfig) -> list[FeatureRequest]:
    """Return the train and the test features under every wanted set of batch norm statistics."""
    return paired_requests(context, config, pool=config.pool)


def _results(variants: list[Variant], config: FewShotConfig) -> Results:
    labels_N = variants[0].train.labels_N
    num_classes = int(labels_N.max()) + 1
    draws = {
        count: [draw_labelled(labels_N, count, draw) for draw in range(config.num_draws)]
        for count in config.labels_per_class
    }
    most = max(config.labels_per_class)
    # 1. The penalty and the statistics, by what is left out of the largest draws.
    candidates = []
    for index, one in enumerate(variants):
        train_ND, test_TD = _standardized(one.train.last_ND(), one.test.last_ND())
        errors_P = np.zeros(len(config.l2_grid))
        if most > 1:
            for rows in draws[most]:
                errors_P += ridge_path(train_ND[rows], labels_N[rows], num_classes, config.l2_grid)[1]
        candidates.append((float(errors_P.min()), index, config.l2_grid[int(errors_P.argmin())], train_ND, test_TD))
    _, index, l2, train_ND, test_TD = min(candidates, key=lambda one: one[:2])
    if most == 1:
        l2 = sorted(config.l2_grid)[len(config.l2_grid) // 2]
    results: Results = {"l2": l2, "norm_statistics": variants[index].norm_statistics}
    test_labels_N = variants[index].test.labels_N
    # 2. Every draw, scored on the whole test split.
    for count, rows_of_draws in draws.items():
        scores = []
        for rows in rows_of_draws:
            weights_DK, bias_K = ridge_path(train_ND[rows], labels_N[rows], num_classes, [l2])[0][0]
            scores.append(score(test_TD @ weights_DK + bias_K, test_labels_N))
        results |= mean_over_draws(scores, count)
        spread = summarize([one["top1_pct"] for one in scores])
        results[f"top1_{count}_labels_ci95"] = [spread.ci95_low, spread.ci95_high]
    return results | {"num_draws": config.num_draws, "num_test": len(test_labels_N)}


def ridge_path(
    rows_ND: Floats, labels_N: Int64s, num_classes: int, l2s: list[float]
) -> tuple[list[tuple[Floats, Floats]], Floats]:
    """Return (weight (D, K), bias (K,)) by penalty, and the exact squared leave-one-out errors by penalty, (P,).

    Minimises |X W + b - Y|^2 + l2 * trace(X'X)/N * |W|^2 with Y one-hot and b free, X centred.
    """
    rows_ND, targets_NK = rows_ND.astype(np.float64), np.eye(num_classes)[labels_N]
    mean_D, mean_K = rows_ND.mean(axis=0), targets_NK.mean(axis=0)
    centred_ND, centred_NK = rows_ND - mean_D, targets_NK - mean_K
    # In the space of the rows: 400 labelled rows need a problem of 400, not of thousands of features.
    values_N, vectors_NN = np.linalg.eigh(centred_ND @ centred_ND.T)
    values_N = values_N.clip(0.0)
    rotated_NK = vectors_NN.T @ centred_NK
    fits, errors = [], []
    for l2 in l2s:
        penalty = l2 * values_N.sum() / len(values_N) + 1e-12
        dual_NK = vectors_NN @ (rotated_NK / (values_N + penalty)[:, None])
        weight_DK = centred_ND.T @ dual_NK
        fits.append((weight_DK, mean_K - mean_D @ weight_DK))
        # Leave-one-out residual of a linear smoother: residual / (1 - leverage); the bias has leverage 1/N.
        leverage_N = (vectors_NN**2 @ (values_N / (values_N + penalty))) + 1 / len(values_N)
        left_out_NK = penalty * dual_NK / np.maximum(1 - leverage_N, 1e-9)[:, None]
        errors.append(float(np.square(left_out_NK).sum()))
    return fits, np.array(errors)


def _standardized(train_ND: Floats, test_TD: Floats) -> tuple[Floats, Floats]:
    train, test = np.array(train_ND)[None, None], np.array(test_TD)[None, None]
    standardize(train, test)
    return train[0, 0], test[0, 0]


EVALUATION = Evaluation(
    config_class=FewShotConfig, run=run, check=check_labelled, requests=requests, metric="top1_5_labels_pct"
)
