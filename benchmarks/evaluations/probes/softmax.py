"""Softmax regression on frozen features: deterministic, full batch, L-BFGS, L2 chosen by cross-validation.

Letters: M units mixed, N samples, D features, K classes. Features are (M, N, D), standardised. M is 1 without lasso.

Objective: mean cross-entropy + l2/2 * |W|^2 (the bias is free) + l1 * sum |alpha|, where the features are
sum_m alpha_m X_m with sum alpha^2 = 1 (the lasso of the paper's section 3.2, at evaluation).

The large products run in torch, and everything on one thread: the sums then do not depend on the number of cores, and
pools of threads that wait for each other took 14 times as long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize, special
from torch.nn import functional

from benchmarks.evaluations.base import Int64s
from pipelines.base.blas_threads import one_blas_thread

__all__ = ["Chosen", "Softmax", "choose_l2", "cross_entropy", "fit_softmax", "in_row_space"]

Floats = npt.NDArray[Any]
# |alpha| has no gradient at 0; sqrt(alpha^2 + this) has.
SMOOTHING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax:
    """A fitted layer: weight (D, K), bias (K,), mix alpha (M,) of unit norm."""

    weight_DK: Floats
    bias_K: Floats
    mix_M: Floats

    def logits(self, features_MND: Floats) -> Floats:
        """Return float64 (N, K), higher is likelier."""
        with one_blas_thread():
            answers_MNK = _answers(features_MND, self.weight_DK)
        logits_NK: Floats = np.einsum("m,mnk->nk", self.mix_M, answers_MNK) + self.bias_K
        return logits_NK


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Penalty with the lowest cross-entropy on the held-out samples, that cross-entropy, and the layer it gives."""

    l2: float
    held_out_loss: float
    layer: Softmax


def fit_softmax(
    features_MND: Floats,
    labels_N: Int64s,
    num_classes: int,
    *,
    l2: float,
    l1: float = 0.0,
    start: Softmax | None = None,
    max_iterations: int = 300,
) -> Softmax:
    """Minimise the objective from `start` (zeros, and an even mix, if None). Same numbers every time on one machine."""
    num_units, num_samples, num_features = features_MND.shape
    ends = np.cumsum([num_features * num_classes, num_classes])
    right_NK = np.eye(num_classes)[labels_N]

    # 1. The objective, of one vector with weights, bias and mix, as L-BFGS wants it.
    def unpack(values: Floats) -> tuple[Floats, Floats, Floats]:
        weight, bias_K, raw_mix_M = np.split(values, ends)
        return weight.reshape(num_features, num_classes), bias_K, raw_mix_M

    def objective(values: Floats) -> tuple[float, Floats]:
        weight_DK, bias_K, raw_mix_M = unpack(values)
        length = float(np.linalg.norm(raw_mix_M))
        mix_M = raw_mix_M / length
        parts_MNK = _answers(features_MND, weight_DK)
        logits_NK = np.einsum("m,mnk->nk", mix_M, parts_MNK) + bias_K
        smooth_M = np.sqrt(mix_M**2 + SMOOTHING)
        loss = cross_entropy(logits_NK, labels_N) + 0.5 * l2 * float(np.square(weight_DK).sum())
        error_NK = (special.softmax(logits_NK, axis=1) - right_NK) / num_samples
        slope_DK = np.einsum("m,mkd->dk", mix_M, _slopes(features_MND, error_NK)) + l2 * weight_DK
        slope_M = np.einsum("mnk,nk->m", parts_MNK, error_NK) + l1 * mix_M / smooth_M
        # The mix is a direction: its gradient is what is left across it.
        slope_M = (slope_M - mix_M * (mix_M @ slope_M)) / length
        gradient = np.concatenate([slope_DK.ravel(), error_NK.sum(axis=0), slope_M])
        return loss + l1 * float(smooth_M.sum()), gradient.astype(np.float64)

    # 2. From zeros, or from the fit of a similar penalty, which leaves fewer iterations.
    if start is None:
        even_M = np.full(num_units, num_units**-0.5)
        start = Softmax(weight_DK=np.zeros((num_features, num_classes)), bias_K=np.zeros(num_classes), mix_M=even_M)
    values = np.concatenate([start.weight_DK.ravel(), start.bias_K, start.mix_M])
    options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "ftol": 1e-7, "gtol": 1e-5}
    with one_blas_thread():
        found = optimize.minimize(objective, values, jac=True, method="L-BFGS-B", options=options)
    weight_DK, bias_K, raw_mix_M = unpack(found.x)
    # 3. Only the direction of the mix is determined: its length is set to 1.
    return Softmax(weight_DK=weight_DK, bias_K=bias_K, mix_M=raw_mix_M / np.linalg.norm(raw_mix_M))


def _answers(features_MND: Floats, weight_DK: Floats) -> Floats:
    """Return X W of every unit, (M, N, K)."""
    # With W stored as (K, D) this product of a tall with a narrow matrix is 2.5 times as fast.
    weight_KD = torch.from_numpy(np.ascontiguousarray(weight_DK.T, dtype=features_MND.dtype))
    return np.stack([functional.linear(torch.from_numpy(one), weight_KD).numpy() for one in features_MND])


def _slopes(features_MND: Floats, error_NK: Floats) -> Floats:
    """Return E' X of every unit, (M, K, D)."""
    error_KN = torch.from_numpy(np.ascontiguousarray(error_NK.T, dtype=features_MND.dtype))
    return np.stack([(error_KN @ torch.from_numpy(one)).numpy() for one in features_MND])


def cross_entropy(logits_NK: Floats, labels_N: Int64s) -> float:
    """Return the mean of -log softmax at the label."""
    at_label_N = np.take_along_axis(logits_NK, labels_N[:, None], axis=1)[:, 0]
    return float((special.logsumexp(logits_NK, axis=1) - at_label_N).mean())


def choose_l2(
    features_MND: Floats,
    labels_N: Int64s,
    num_classes: int,
    folds_N: Int64s,
    *,
    held_out: Sequence[int],
    grid: Sequence[float],
    l1: float = 0.0,
    max_iterations: int = 300,
) -> Chosen:
    """Return the value of `grid` with the lowest cross-entropy on the held-out folds, and its layer on all samples.

    Walks from the largest value down, each fit starting from the last, and stops one value after the best: the small
    values cost most and, once past the best, only overfit more.
    """
    # 1. A fit for each held-out fold and value. The largest value first: its weights are nearly zero, and each next
    # fit begins close to where it ends.
    splits = [(np.flatnonzero(folds_N != fold), np.flatnonzero(folds_N == fold)) for fold in held_out]
    fitted: dict[float, list[Softmax]] = {}
    losses: dict[float, float] = {}
    previous: list[Softmax | None] = [None] * len(splits)
    for l2 in sorted(grid, reverse=True):
        fitted[l2] = [
            fit_softmax(
                features_MND[:, kept],
                labels_N[kept],
                num_classes,
                l2=l2,
                l1=l1,
                start=start,
                max_iterations=max_iterations,
            )
            for (kept, _), start in zip(splits, previous, strict=True)
        ]
        answers = zip(fitted[l2], splits, strict=True)
        losses[l2] = sum(
            cross_entropy(layer.logits(features_MND[:, left_out]), labels_N[left_out]) * len(left_out)
            for layer, (_, left_out) in answers
        )
        previous = list(fitted[l2])
        if losses[l2] > min(losses.values()):
            break
    # 2. The value that served best, fitted once more on all samples: what was held out is data, too.
    best = min(losses, key=losses.__getitem__)
    # From the fit without the first of these folds: most samples are the same, so that few iterations are left.
    layer = fit_softmax(
        features_MND,
        labels_N,
        num_classes,
        l2=best,
        l1=l1,
        start=fitted[best][0],
        max_iterations=max_iterations,
    )
    num_left_out = sum(len(left_out) for _, left_out in splits)
    return Chosen(l2=best, held_out_loss=losses[best] / num_left_out, layer=layer)


def in_row_space(train_ND: Floats, test_ND: Floats) -> tuple[Floats, Floats]:
    """Return both in an orthonormal basis of the span of the training rows, if that is smaller than D.

    With an L2 penalty the best weights lie in that span, so the answers stay the same and 140 labelled rows need 140
    columns, not thousands.
    """
    if train_ND.shape[0] >= train_ND.shape[1]:
        return train_ND, test_ND
    basis_DN = np.linalg.qr(train_ND.T.astype(np.float64))[0].astype(train_ND.dtype)
    return train_ND @ basis_DN, test_ND @ basis_DN
