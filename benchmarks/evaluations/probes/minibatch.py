"""Softmax regression by mini-batch SGD, for features that do not fit in memory: read batch by batch from their files.

The objective is that of `softmax.py` without a mix: mean cross-entropy + l2/2 * |W|^2. SGD with momentum and a cosine
schedule ends near its minimum, not at it; the same numbers give the same layer on one machine.

Letters: V views, N images, D features, K classes, B batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from benchmarks.evaluations.base import Int64s
from benchmarks.evaluations.probes.softmax import Chosen, Softmax
from benchmarks.evaluations.trunk_source import best_device
from pipelines.base.rng import rng_for

__all__ = ["Scaling", "SgdOptions", "choose_l2_sgd", "logits_of"]

Floats = npt.NDArray[Any]
BLOCK_ROWS = 4096
"""Rows read at a time where the order does not matter: 150 MB for 9,216 features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SgdOptions:
    """`lr` is divided by the number of features: with standardised features, their number bounds the curvature."""

    epochs: int
    lr: float
    batch_size: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Mean (D,) of the train features, and 1 / deviation (D,), 0 for a constant feature."""

    mean_D: Floats
    scale_D: Floats

    @classmethod
    def of(cls, views_VND: Sequence[Floats]) -> "Scaling":
        """Return the scaling of features in files, in two passes over blocks of rows."""
        count = sum(len(view) for view in views_VND)
        mean_D = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(views_VND)) / count
        square_D = sum(np.square(block - mean_D).sum(axis=0, dtype=np.float64) for block in _blocks(views_VND))
        deviation_D = np.sqrt(square_D / count)
        usable = deviation_D > 1e-6 * np.abs(mean_D) + 1e-12
        scale_D = np.divide(1, deviation_D, out=np.zeros_like(deviation_D), where=usable)
        return cls(mean_D=mean_D.astype(np.float32), scale_D=scale_D.astype(np.float32))

    def apply(self, rows_BD: Floats) -> Floats:
        scaled: Floats = (rows_BD - self.mean_D) * self.scale_D
        return scaled


def choose_l2_sgd(
    views_VND: Sequence[Floats],
    labels_N: Int64s,
    folds_N: Int64s,
    scaling: Scaling,
    *,
    grid: Sequence[float],
    options: SgdOptions,
) -> Chosen:
    """Return the value of `grid` with the lowest cross-entropy on fold 0, and its layer fitted on all images."""
    kept, left_out = np.flatnonzero(folds_N != 0), np.flatnonzero(folds_N == 0)
    num_classes = int(labels_N.max()) + 1
    losses = {}
    for l2 in grid:
        layer = _fit(views_VND, labels_N, kept, num_classes, scaling, l2=l2, options=options)
        losses[l2] = _loss(layer, views_VND[0], labels_N, left_out, scaling)
    best = min(losses, key=losses.__getitem__)
    layer = _fit(views_VND, labels_N, np.arange(len(labels_N)), num_classes, scaling, l2=best, options=options)
    return Chosen(l2=best, held_out_loss=losses[best], layer=layer)


def logits_of(layer: Softmax, features_ND: Floats, scaling: Scaling) -> Floats:
    """Return the answers of a layer on features in a file, (N, K), block by block."""
    return np.concatenate(
        [
            scaling.apply(features_ND[start : start + BLOCK_ROWS]) @ layer.weight_DK + layer.bias_K
            for start in range(0, len(features_ND), BLOCK_ROWS)
        ]
    )


def _fit(
    views_VND: Sequence[Floats],
    labels_N: Int64s,
    rows: Int64s,
    num_classes: int,
    scaling: Scaling,
    *,
    l2: float,
    options: SgdOptions,
) -> Softmax:
    device, num_features = best_device(), views_VND[0].shape[1]
    weight = torch.zeros(num_classes, num_features, device=device, requires_grad=True)
    bias = torch.zeros(num_classes, device=device, requires_grad=True)
    # The bias is free of the penalty, as in the exact fit.
    groups = [{"params": [weight], "weight_decay": l2}, {"params": [bias], "weight_decay": 0.0}]
    # A large penalty adds to the curvature, so that the rate must fall with it.
    rate = options.lr / (num_features + options.lr * l2)
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    steps_per_epoch = max(1, -(-len(rows) * len(views_VND) // options.batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * steps_per_epoch)
    for epoch in range(options.epochs):
        # Images in a new order; of each, a view that the epoch draws: after V epochs each was seen about once.
        order = rng_for(0, epoch, "order", "linear_probe").permutation(np.repeat(rows, len(views_VND)))
        views = rng_for(0, epoch, "views", "linear_probe").integers(0, len(views_VND), len(order))
        for start in range(0, len(order), options.batch_size):
            chosen, view = order[start : start + options.batch_size], views[start : start + options.batch_size]
            inputs = np.stack([views_VND[one][row] for row, one in zip(chosen, view, strict=True)])
            inputs_BD = torch.from_numpy(scaling.apply(inputs)).to(device)
            targets = torch.from_numpy(labels_N[chosen]).to(device)
            loss = functional.cross_entropy(functional.linear(inputs_BD, weight, bias), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    weight_DK = weight.detach().cpu().numpy().T
    return Softmax(weight_DK=weight_DK, bias_K=bias.detach().cpu().numpy(), mix_M=np.ones(1))


def _loss(layer: Softmax, features_ND: Floats, labels_N: Int64s, rows: Int64s, scaling: Scaling) -> float:
    total = 0.0
    for start in range(0, len(rows), BLOCK_ROWS):
        chosen = rows[start : start + BLOCK_ROWS]
        logits = scaling.apply(features_ND[chosen]) @ layer.weight_DK + layer.bias_K
        answers, targets = torch.from_numpy(logits), torch.from_numpy(labels_N[chosen])
        total += float(functional.cross_entropy(answers, targets, reduction="sum"))
    return total / len(rows)


def _blocks(views_VND: Sequence[Floats]) -> Iterator[Floats]:
    for view in views_VND:
        for start in range(0, len(view), BLOCK_ROWS):
            yield view[start : start + BLOCK_ROWS]
