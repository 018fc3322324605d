"""Linear probe: accuracy of one linear layer on the frozen trunk (paper section 5.1, ImageNet frozen).

Canvases of the whole image, last map of stage 3 max-pooled to 3 x 3, flattened, standardised by the train split's
mean and deviation, one softmax layer with an L2 penalty fitted by full-batch L-BFGS. The penalty is the value of the
grid with the lowest cross-entropy on a held-out fifth of every class of the train split; then the layer is fitted on
all of it. With few labels a fifth is too small to choose by, so all five fifths take their turn. The same held-out
samples decide whether the trunk's batch norm statistics are re-estimated on the train images. The test split is scored
once.

Unlike the paper: the layer sees mirrored views at most, no translation or colour changes, and is fitted to the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

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
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.features.store import Features
from benchmarks.evaluations.features.variants import FrozenConfig, paired_requests, probed
from benchmarks.evaluations.probes.minibatch import Scaling, SgdOptions, choose_l2_sgd, logits_of
from benchmarks.evaluations.probes.softmax import Chosen, choose_l2, in_row_space
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import load_manifest

__all__ = ["EVALUATION", "LinearProbeConfig", "check", "probe", "requests", "run", "standardize"]

Floats = npt.NDArray[Any]
MOST_LBFGS_ROWS = 200_000
"""Above, `solver: auto` takes mini-batches: 200,000 rows of 9,216 features are 7 GiB, and held twice."""


class LinearProbeConfig(FrozenConfig):
    """Options of the linear probe."""

    pool: int = Field(default=3, ge=1)
    """The last map is max-pooled to pool x pool; features and memory grow with its square."""
    augment: Literal["none", "flip"] = "flip"
    """`flip` also fits on mirrored train images: twice the time and memory."""
    lasso: bool = False
    """Beside the plain probe, one that learns a mix of all stage-3 units together with the layer (`top1_lasso_pct`);
    time and memory grow with the number of units."""
    lasso_l1: float = Field(default=1e-3, ge=0.0)
    """L1 penalty on the mix; larger gives fewer units."""
    labels_per_class: list[int] = Field(default_factory=lambda: [20])
    """Also probe with only so many labels per class, each the mean of `num_draws` draws."""
    num_draws: int = Field(default=3, ge=1)
    """Cost of every entry of `labels_per_class` grows with it."""
    l2_grid: list[float] = Field(default_factory=lambda: [0.001, 0.01, 0.1, 1.0, 10.0], min_length=1)
    """Values the L2 penalty is chosen from; every value costs a fit."""
    max_iterations: int = Field(default=200, ge=1)
    """L-BFGS iterations of every fit at most."""
    solver: Literal["auto", "lbfgs", "sgd"] = "auto"
    """`lbfgs` is exact and holds the features in memory, twice; `sgd` reads batches from their files. `auto`: `sgd`
    above 200,000 rows (images times views). Few labels are always fitted by `lbfgs`."""
    sgd_epochs: int = Field(default=30, ge=1)
    """Passes over the features of every fit by `sgd`; each value of `l2_grid` is a fit."""
    sgd_lr: float = Field(default=1.0, gt=0.0)
    """Learning rate of `sgd`, divided by the number of features."""

    @model_validator(mode="after")
    def _mix_is_exact(self) -> "LinearProbeConfig":
        if self.lasso and self.solver == "sgd":
            raise ValueError("lasso: true needs solver: lbfgs or auto; sgd fits the plain probe only")
        return self


def run(context: Context, config: LinearProbeConfig) -> Results:
    """Probe a trunk. Results: top1_pct, top5_pct (more than 5 classes), the same with `_N_labels` before `_pct`, the
    penalty and batch norm statistics chosen, with `lasso` the same with `_lasso` and the mix, and the seconds taken.

    Raises UsageError or DataError where trunk, shards or labels are missing.
    """
    return probed(
        context,
        requests(context, config),
        lambda variants: probe({one.norm_statistics: (one.train, one.test) for one in variants}, config),
    )


def requests(context: Context, config: LinearProbeConfig) -> list[FeatureRequest]:
    """Return the train and the test features under every wanted set of batch norm statistics."""
    units = "all" if config.lasso else "last"
    return paired_requests(context, config, flipped_train_view=config.augment == "flip", pool=config.pool, units=units)


def check(context: Context, config: LinearProbeConfig) -> None:
    """Check the labelled images. Raises UsageError, too, where the train split is too large to learn a mix of units."""
    check_labelled(context, config)
    if config.lasso and config.solver == "auto":
        num_images = len(load_manifest(context.the_images()).select("image", context.train_split))
        num_rows = num_images * (2 if config.augment == "flip" else 1)
        if num_rows > MOST_LBFGS_ROWS:
            raise UsageError(
                f"lasso: true on {num_rows:,} rows of features (images times views): above {MOST_LBFGS_ROWS:,}, "
                "solver: auto takes mini-batches, which fit the plain probe only. Give solver: lbfgs, which holds the "
                "features of all units in memory twice; fewer images; or lasso: false."
            )


def probe(variants: Mapping[str, tuple[Features, Features]], config: LinearProbeConfig) -> Results:
    """Return all results of one trunk from its (train, test) features under every name of batch norm statistics."""
    train, test = next(iter(variants.values()))
    results: Results = {
        "num_train": len(train.labels_N),
        "num_test": len(test.labels_N),
        "num_features": train.values_MVND[0][0].shape[-1],
    }
    if _solver(train, config) == "sgd":
        return results | {"solver": "sgd"} | _probe_sgd(variants, config)
    # 1. Standardised once, for all fits below.
    ready = {name: _Variant.of(train, test) for name, (train, test) in variants.items()}
    # 2. The plain probe of the last unit, and beside it the one on a learned mix of all units.
    last = {name: one.last_unit() for name, one in ready.items()}
    results |= _probe(last, train.labels_N, test.labels_N, config, is_mix=False)
    if config.lasso:
        mixed = _probe(ready, train.labels_N, test.labels_N, config, is_mix=True)
        results |= {_lasso_name(name): value for name, value in mixed.items()}
    return results


def _solver(train: Features, config: LinearProbeConfig) -> Literal["lbfgs", "sgd"]:
    if config.solver != "auto":
        return config.solver
    return "sgd" if len(train.labels_N) * len(train.values_MVND[0]) > MOST_LBFGS_ROWS else "lbfgs"


def _probe_sgd(variants: Mapping[str, tuple[Features, Features]], config: LinearProbeConfig) -> Results:
    """Return the plain probe's results with all features left in their files."""
    options = SgdOptions(epochs=config.sgd_epochs, lr=config.sgd_lr)
    answers = []
    # 1. All labels: the statistics with the lowest held-out loss.
    for name, (train, test) in variants.items():
        views = train.values_MVND[-1]
        scaling, labels_N = Scaling.of(views), train.labels_N
        chosen = choose_l2_sgd(views, labels_N, folds_of(labels_N), scaling, grid=config.l2_grid, options=options)
        answers.append(_Answer(variant=name, chosen=chosen, test_NK=logits_of(chosen.layer, test.last_ND(), scaling)))
    answer = min(answers, key=lambda one: one.chosen.held_out_loss)
    train, test = variants[answer.variant]
    results: Results = {
        **score(answer.test_NK, test.labels_N),
        "l2": answer.chosen.l2,
        "norm_statistics": answer.variant,
        "held_out_loss": answer.chosen.held_out_loss,
    }
    # 2. Few labels fit in memory, and are fitted exactly, on features scaled as those of all.
    for per_class in config.labels_per_class:
        scores = []
        for draw in range(config.num_draws):
            rows = draw_labelled(train.labels_N, per_class, draw)
            scores.append(_few_labels_pct(train, test, rows, config))
        results |= mean_over_draws(scores, per_class)
    return results


def _few_labels_pct(train: Features, test: Features, rows: Int64s, config: LinearProbeConfig) -> dict[str, float]:
    views, scaling = train.values_MVND[-1], Scaling.of(train.values_MVND[-1])
    drawn_MVND = np.stack([scaling.apply(view[rows]) for view in views])[None]
    variant = _Variant(train_MVND=drawn_MVND, test_MND=scaling.apply(np.array(test.last_ND()))[None])
    every_row = np.arange(len(rows))
    labels_N = train.labels_N[rows]
    answer = _fit_one("", variant, labels_N, every_row, config=config, held_out=range(NUM_FOLDS), is_mix=False)
    return score(answer.test_NK, test.labels_N)


def _lasso_name(name: str) -> str:
    """Return top1_lasso_20_labels_pct for top1_20_labels_pct, and l2_lasso for l2: top-1 and top-5 stay in front."""
    first, _, rest = name.partition("_")
    is_score = first in ("top1", "top5")
    return f"{first}_lasso_{rest}" if is_score else name if name == "lasso_mix" else f"{name}_lasso"


def _probe(
    variants: "Mapping[str, _Variant]", labels_N: Int64s, test_N: Int64s, config: LinearProbeConfig, *, is_mix: bool
) -> Results:
    """Return the results of one kind of layer: on the last unit, or on a mix of all."""
    fit = partial(_fit, variants, labels_N, config=config, is_mix=is_mix)
    # 1. All labels: one held-out fifth is enough to choose by.
    answer = fit(np.arange(len(labels_N)), held_out=range(1))
    results: Results = {
        **score(answer.test_NK, test_N),
        "l2": answer.chosen.l2,
        "norm_statistics": answer.variant,
        "held_out_loss": answer.chosen.held_out_loss,
    }
    if is_mix:
        results["lasso_mix"] = [round(float(weight), 4) for weight in answer.chosen.layer.mix_M]
    # 2. Few labels: a fifth of them is too small to choose by, so that all five take their turn.
    for per_class in config.labels_per_class:
        answers = [
            fit(draw_labelled(labels_N, per_class, draw), held_out=range(NUM_FOLDS)) for draw in range(config.num_draws)
        ]
        results |= mean_over_draws([score(answer.test_NK, test_N) for answer in answers], per_class)
        results[f"norm_statistics_{per_class}_labels"] = [answer.variant for answer in answers]
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """Standardised features of one trunk under one set of batch norm statistics."""

    train_MVND: Floats
    test_MND: Floats

    @classmethod
    def of(cls, train: Features, test: Features) -> "_Variant":
        train_MVND, test_MVND = _stacked(train), _stacked(test)
        standardize(train_MVND, test_MVND)
        return cls(train_MVND=train_MVND, test_MND=test_MVND[:, 0])

    def last_unit(self) -> "_Variant":
        return _Variant(train_MVND=self.train_MVND[-1:], test_MND=self.test_MND[-1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """Answers of a fitted layer on the test split, (N, K), and what was chosen on the way."""

    variant: str
    chosen: Chosen
    test_NK: Floats


def _fit(
    variants: Mapping[str, _Variant],
    labels_N: Int64s,
    rows: Int64s,
    *,
    config: LinearProbeConfig,
    held_out: range,
    is_mix: bool,
) -> _Answer:
    """Return the answer of the variant with the lowest cross-entropy on the held-out folds; the first if equal."""
    answers = [
        _fit_one(name, one, labels_N, rows, config=config, held_out=held_out, is_mix=is_mix)
        for name, one in variants.items()
    ]
    return min(answers, key=lambda answer: answer.chosen.held_out_loss)


def _fit_one(
    name: str,
    variant: _Variant,
    labels_N: Int64s,
    rows: Int64s,
    *,
    config: LinearProbeConfig,
    held_out: range,
    is_mix: bool,
) -> _Answer:
    num_units, num_views, num_images, num_features = variant.train_MVND.shape
    # All rows in their order need no copy: features of large sets fill most of the memory.
    every_row = len(rows) == num_images
    chosen_MVND = variant.train_MVND if every_row else variant.train_MVND[:, :, rows]
    chosen_MND = chosen_MVND.reshape(num_units, num_views * len(rows), num_features)
    test_MND = variant.test_MND
    # Not for a mix of units: the span depends on the mix, which is still to be learned.
    if not is_mix:
        reduced = in_row_space(chosen_MND[0], test_MND[0])
        chosen_MND, test_MND = reduced[0][None], reduced[1][None]
    chosen = choose_l2(
        chosen_MND,
        np.tile(labels_N[rows], num_views),
        int(labels_N.max()) + 1,
        # Both views of an image stay on the same side, or the held-out fifth would be half known.
        np.tile(folds_of(labels_N[rows]), num_views),
        held_out=held_out,
        grid=config.l2_grid,
        l1=config.lasso_l1 if is_mix else 0.0,
        max_iterations=config.max_iterations,
    )
    return _Answer(variant=name, chosen=chosen, test_NK=chosen.layer.logits(test_MND))


def _stacked(features: Features) -> Floats:
    """Return a copy in memory, float32 (M, V, N, D)."""
    return np.stack([np.stack(views) for views in features.values_MVND])


def standardize(train_MVND: Floats, test_MVND: Floats) -> None:
    """Standardise both in place by the train split's mean and deviation (no labels). A constant feature becomes 0."""
    mean, deviation = train_MVND.mean(axis=(1, 2), keepdims=True), train_MVND.std(axis=(1, 2), keepdims=True)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6 * np.abs(mean) + 1e-12)
    for values in (train_MVND, test_MVND):
        values -= mean
        values *= scale


EVALUATION = Evaluation(config_class=LinearProbeConfig, run=run, check=check, requests=requests)
