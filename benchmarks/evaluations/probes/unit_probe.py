"""Per-unit probe: a linear probe on every residual unit of stage 3 by itself. Where in the trunk are the classes?

Maps mean-pooled to one vector, standardised; otherwise the fit is the linear probe's: softmax regression by L-BFGS, the
penalty and the batch norm statistics chosen on a held-out fifth of the train split, for every unit by itself.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from benchmarks.evaluations.base import Context, Evaluation, Results, check_labelled, folds_of, score
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.features.store import Features
from benchmarks.evaluations.features.variants import FrozenConfig, Variant, paired_requests, probed
from benchmarks.evaluations.probes.linear_probe import standardize
from benchmarks.evaluations.probes.softmax import choose_l2

__all__ = ["EVALUATION", "UnitProbeConfig", "run"]


class UnitProbeConfig(FrozenConfig):
    """Options of the per-unit probe."""

    pooling: Literal["mean", "max"] = "mean"
    """How the maps are pooled."""
    pool: int = Field(default=1, ge=1)
    """Every map is pooled to pool x pool; features grow with its square, and there is a fit for every unit."""
    l2_grid: list[float] = Field(default_factory=lambda: [0.001, 0.01, 0.1, 1.0, 10.0], min_length=1)
    """Values the L2 penalty is chosen from; every value costs a fit a unit."""
    max_iterations: int = Field(default=200, ge=1)
    """L-BFGS iterations of every fit at most."""


def run(context: Context, config: UnitProbeConfig) -> Results:
    """Return top1_pct of the unit that is best on held-out train images, and units_top1_pct of all, in order."""
    return probed(context, requests(context, config), lambda variants: _results(variants, config))


def requests(context: Context, config: UnitProbeConfig) -> list[FeatureRequest]:
    """Return the train and the test features of all units under every wanted set of batch norm statistics."""
    return paired_requests(context, config, pooling=config.pooling, pool=config.pool, units="all")


def _results(variants: list[Variant], config: UnitProbeConfig) -> Results:
    # 1. Every unit under every set of statistics: (held-out loss, statistics, scores); the lowest loss stands.
    units: list[tuple[float, str, dict[str, float]]] = []
    for unit in range(len(variants[0].train.values_MVND)):
        fits = [(*_fit(one.train, one.test, unit, config), one.norm_statistics) for one in variants]
        loss, scores, name = min(fits, key=lambda one: one[0])
        units.append((loss, name, scores))
    # 2. The best unit, chosen without a look at the test split.
    best = int(np.argmin([loss for loss, *_ in units]))
    return {
        **units[best][2],
        "best_unit": best,
        "units_top1_pct": [scores["top1_pct"] for *_, scores in units],
        "units_norm_statistics": [name for _, name, _ in units],
    }


def _fit(train: Features, test: Features, unit: int, config: UnitProbeConfig) -> tuple[float, dict[str, float]]:
    """Return the held-out loss and the scores on the test split of one unit."""
    train_MVND, test_MVND = (np.array(one.values_MVND[unit][0])[None, None] for one in (train, test))
    standardize(train_MVND, test_MVND)
    chosen = choose_l2(
        train_MVND[:, 0],
        train.labels_N,
        int(train.labels_N.max()) + 1,
        folds_of(train.labels_N),
        held_out=range(1),
        grid=config.l2_grid,
        max_iterations=config.max_iterations,
    )
    return chosen.held_out_loss, score(chosen.layer.logits(test_MVND[:, 0]), test.labels_N)


EVALUATION = Evaluation(config_class=UnitProbeConfig, run=run, check=check_labelled, requests=requests)
