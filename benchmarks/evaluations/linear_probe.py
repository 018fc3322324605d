"""Linear probe: accuracy of one linear layer on the frozen trunk (paper section 5.1, ImageNet frozen).

Canvases of the whole image, last map of stage 3 max-pooled to 3 x 3, flattened, standardised by the train split's
mean and deviation, one softmax layer with an L2 penalty fitted by full-batch L-BFGS. The penalty is the value of the
grid with the lowest cross-entropy on a held-out fifth of every class of the train split; then the layer is fitted on
all of it. With few labels a fifth is too small to choose by, so all five fifths take their turn. The same held-out
samples decide whether the trunk's batch norm statistics are re-estimated on the train images. The test split is scored
once.

Unlike the paper: the layer sees mirrored views at most, no translation or colour changes, and is fitted to the end.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from benchmarks.evaluations.base import (
    NUM_FOLDS,
    Evaluation,
    Int64s,
    Results,
    check_labels,
    draw_labelled,
    folds_of,
    mean_over_draws,
    score,
)
from benchmarks.evaluations.features import Features, frozen_features, image_inputs
from benchmarks.evaluations.softmax import Chosen, choose_l2, in_row_space
from pipelines.base.config import Config
from pipelines.base.errors import UsageError
from training.parallel import cpu_threads
from training.trunk import Trunk, load_trunk, recalibrate

__all__ = ["EVALUATION", "LinearProbeConfig", "probe", "run"]

Floats = npt.NDArray[Any]


class LinearProbeConfig(Config):
    """Options of the linear probe."""

    canvas_px: int = Field(default=256, ge=16)
    """Side of the square the trunk sees; cost grows with its square. A suite takes the pretraining's if not given."""
    pool: int = Field(default=3, ge=1)
    """The last map is max-pooled to pool x pool; features and memory grow with its square."""
    augment: Literal["none", "flip"] = "flip"
    """`flip` also fits on mirrored train images: twice the time and memory."""
    recalibrate_norm: bool | Literal["auto"] = "auto"
    """Re-estimate the batch norm statistics on the unlabelled train images first: one more pass over them. `auto`: the
    better of both on held-out train samples, at twice the cost. Trunks trained on patches gain, random
    ones lose."""
    lasso: bool = False
    """Learn the mix of all stage-3 units together with the layer; memory grows with the number of units."""
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
    batch_size: int = Field(default=64, ge=1)
    """Images per forward pass; memory grows with it."""


def run(
    trunk_dir: Path | None,
    config: LinearProbeConfig,
    images: Path,
    train_split: str = "train",
    test_split: str = "val",
) -> Results:
    """Probe the trunk of a pretraining run. Results: top1_pct, top5_pct (more than 5 classes), the same with
    `_N_labels` before `_pct`, the penalty and batch norm statistics chosen, the lasso mix, and the seconds taken.

    Raises UsageError or DataError where run, shards or labels are missing.
    """
    if trunk_dir is None:
        raise UsageError("linear_probe: no trunk given. Give the folder of a pretraining run.")
    start_s = time.monotonic()
    check_labels(images, train_split, test_split)
    # On a busy machine, threads that wait for each other took 14 times as long as one core fewer.
    with cpu_threads(0):
        variants = _features(trunk_dir, images, train_split, test_split, config)
    feature_s = time.monotonic() - start_s
    results = probe(variants, config)
    return results | {"feature_s": feature_s, "probe_s": time.monotonic() - start_s - feature_s}


def _features(
    trunk_dir: Path, images: Path, train_split: str, test_split: str, config: LinearProbeConfig
) -> dict[str, tuple[Features, Features]]:
    """Return (train, test) features of the trunk under every wanted set of batch norm statistics."""
    variants = {}
    for is_recalibrated in (False, True) if config.recalibrate_norm == "auto" else (config.recalibrate_norm,):
        # Loaded anew for each, since re-estimating changes the trunk's statistics in place.
        trunk = _trunk(trunk_dir, images, train_split, config, is_recalibrated=is_recalibrated)
        extract = partial(
            frozen_features,
            trunk,
            images,
            canvas_px=config.canvas_px,
            pool=config.pool,
            all_units=config.lasso,
            batch_size=config.batch_size,
        )
        train, test = extract(train_split, flipped_view=config.augment == "flip"), extract(test_split)
        variants["re-estimated" if is_recalibrated else "as trained"] = (train, test)
    return variants


def _trunk(trunk_dir: Path, images: Path, split: str, config: LinearProbeConfig, *, is_recalibrated: bool) -> Trunk:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trunk = load_trunk(trunk_dir).to(device)
    if is_recalibrated:
        sizes = {"canvas_px": config.canvas_px, "batch_size": config.batch_size}
        recalibrate(trunk, image_inputs(images, split, **sizes, device=device))
    return trunk


def probe(variants: Mapping[str, tuple[Features, Features]], config: LinearProbeConfig) -> Results:
    """Return all results of one trunk from its (train, test) features under every name of batch norm statistics."""
    # 1. Standardised once, for all fits below.
    ready = {name: _Variant.of(train, test) for name, (train, test) in variants.items()}
    train, test = next(iter(variants.values()))
    # 2. All labels: one held-out fifth is enough to choose by.
    answer = _fit(ready, train.labels_N, np.arange(len(train.labels_N)), config, held_out=range(1))
    results: Results = {
        **score(answer.test_NK, test.labels_N),
        "l2": answer.chosen.l2,
        "norm_statistics": answer.variant,
        "held_out_loss": answer.chosen.held_out_loss,
        "num_train": len(train.labels_N),
        "num_test": len(test.labels_N),
        "num_features": train.values_MVND.shape[-1],
    }
    if config.lasso:
        results["lasso_mix"] = [round(float(weight), 4) for weight in answer.chosen.layer.mix_M]
    # 3. Few labels: a fifth of them is too small to choose by, so that all five take their turn.
    for per_class in config.labels_per_class:
        answers = [
            _fit(
                ready, train.labels_N, draw_labelled(train.labels_N, per_class, draw), config, held_out=range(NUM_FOLDS)
            )
            for draw in range(config.num_draws)
        ]
        results |= mean_over_draws([score(answer.test_NK, test.labels_N) for answer in answers], per_class)
        results[f"norm_statistics_{per_class}_labels"] = [answer.variant for answer in answers]
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """Standardised features of one trunk under one set of batch norm statistics."""

    train_MVND: Floats
    test_MND: Floats

    @classmethod
    def of(cls, train: Features, test: Features) -> "_Variant":
        train_MVND, test_MND = _standardised(train.values_MVND, test.values_MVND)
        return cls(train_MVND=train_MVND, test_MND=test_MND)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """Answers of a fitted layer on the test split, (N, K), and what was chosen on the way."""

    variant: str
    chosen: Chosen
    test_NK: Floats


def _fit(
    variants: Mapping[str, _Variant], labels_N: Int64s, rows: Int64s, config: LinearProbeConfig, *, held_out: range
) -> _Answer:
    """Return the answer of the variant with the lowest cross-entropy on the held-out folds; the first if equal."""
    answers = [_fit_one(name, one, labels_N, rows, config, held_out=held_out) for name, one in variants.items()]
    return min(answers, key=lambda answer: answer.chosen.held_out_loss)


def _fit_one(
    name: str, variant: _Variant, labels_N: Int64s, rows: Int64s, config: LinearProbeConfig, *, held_out: range
) -> _Answer:
    num_units, num_views, _, num_features = variant.train_MVND.shape
    chosen_MND = variant.train_MVND[:, :, rows].reshape(num_units, num_views * len(rows), num_features)
    test_MND = variant.test_MND
    # Not with several units: the span depends on their mix, which is still to be learned.
    if num_units == 1:
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
        l1=config.lasso_l1 if config.lasso else 0.0,
        max_iterations=config.max_iterations,
    )
    return _Answer(variant=name, chosen=chosen, test_NK=chosen.layer.logits(test_MND))


def _standardised(train_MVND: Floats, test_MVND: Floats) -> tuple[Floats, Floats]:
    """Return both standardised by the train split's mean and deviation (no labels). A constant feature becomes 0."""
    mean, deviation = train_MVND.mean(axis=(1, 2), keepdims=True), train_MVND.std(axis=(1, 2), keepdims=True)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6 * np.abs(mean) + 1e-12)
    return (train_MVND - mean) * scale, ((test_MVND - mean) * scale)[:, 0]


EVALUATION = Evaluation(config_class=LinearProbeConfig, run=run)
