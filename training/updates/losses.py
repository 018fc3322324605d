"""Losses of the heads, and the metrics logged beside them.

Every loss is a mean weighted by `weight`, sum(weight * loss) / sum(weight) over rows or cells; 0 if all weights are 0.
Of a batch that ranks share, the mean over ranks of their losses is the loss of the whole batch; metrics are of a rank's
own rows. R rows, S rows of all ranks, Q classes, K neighbouring bins, h w the cells of a map, D features.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.nn import functional as F

from training.ranks.shared_batch import all_rows, mean_over_ranks

__all__ = [
    "Loss",
    "balanced",
    "cross_entropy",
    "foreground_iou",
    "foreground_union",
    "masked_bce",
    "soft_cross_entropy",
    "triplet",
    "weighted_mean",
]

Foreground = Literal["as_is", "balanced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`total` is what is minimised; `metrics` are detached, for the log.

    `weight_sums`: sum of the weights that a mean was taken over, by the name of a metric. A name that is left out was
    taken over `batch.weight`. Metrics of several ranks are joined by it.
    """

    total: torch.Tensor
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)
    weight_sums: dict[str, torch.Tensor] = field(default_factory=dict)


def weighted_mean(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return sum(weight * value) / sum(weight); 0 if all weights are 0."""
    return (value * weight).sum() / weight.sum().clamp_min(1e-12)


def _shared_mean(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a weighted mean: the mean of the parts is sum(weight * value) / sum(weight) over all
    ranks. Of one rank, `weighted_mean`."""
    return (value * weight).sum() / mean_over_ranks(weight.sum()).clamp_min(1e-12)


def cross_entropy(logits_RQ: torch.Tensor, target_R: torch.Tensor, weight_R: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of int64 classes. A row of weight 0 may hold any class, also -1."""
    # float32, here and below: a softmax in bf16 has 3 digits, and its errors add up over classes.
    loss_R = F.cross_entropy(logits_RQ.float(), target_R.clamp_min(0), reduction="none")
    return _shared_mean(loss_R, weight_R)


def soft_cross_entropy(
    logits_RQhw: torch.Tensor, bins_RKhw: torch.Tensor, bin_weights_RKhw: torch.Tensor, weight_Rhw: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy with a target spread over K bins: -sum_k bin_weights * log softmax(logits)[bins]."""
    # Channels last, as convolutions leave them: a softmax over a strided axis takes three times as long on a CPU.
    log_RhwQ = logits_RQhw.permute(0, 2, 3, 1).float().log_softmax(-1)
    picked_RhwK = log_RhwQ.gather(-1, bins_RKhw.permute(0, 2, 3, 1))
    loss_Rhw = -(bin_weights_RKhw.permute(0, 2, 3, 1) * picked_RhwK).sum(-1)
    return _shared_mean(loss_Rhw, weight_Rhw)


def triplet(
    anchor_RD: torch.Tensor,
    positive_RD: torch.Tensor,
    is_negative_RS: torch.Tensor,
    weight_R: torch.Tensor,
    margin: float,
) -> Loss:
    """Return the mean of max(D(anchor, positive) - D(anchor, negative) + margin, 0), D the cosine distance (section 2).

    `is_negative_RS`: bool, row i may use the anchor of row j as a negative; of a batch that ranks share, row j of all
    ranks' rows. Triplets of one row share its weight; a triplet whose negative has weight 0 is left out. Metric
    "satisfied": share of triplets whose positive is nearer.
    """
    anchor_RD = F.normalize(anchor_RD.float(), dim=1)
    positive_RD = F.normalize(positive_RD.float(), dim=1)
    near_R = 1 - (anchor_RD * positive_RD).sum(1)
    far_RS = 1 - anchor_RD @ all_rows(anchor_RD).T
    gap_RS = near_R[:, None] - far_RS
    # A row with many negatives must not weigh more than one with few: each row's triplets share its weight.
    usable_RS = (is_negative_RS & (all_rows(weight_R) > 0)[None, :]).float()
    weight_RS = weight_R[:, None] * usable_RS / usable_RS.sum(1, keepdim=True).clamp_min(1)
    total = _shared_mean((gap_RS + margin).clamp_min(0), weight_RS)
    satisfied = weighted_mean((gap_RS < 0).float(), weight_RS)
    # Not the sum of weight_R: a row without any negative has no triplet.
    triplets = weight_RS.sum().detach()
    return Loss(
        total=total,
        metrics={"satisfied": satisfied.detach()},
        weight_sums={"satisfied": triplets},
    )


def masked_bce(
    logits_Rhw: torch.Tensor, moving_Rhw: torch.Tensor, weight_Rhw: torch.Tensor, foreground: Foreground = "as_is"
) -> torch.Tensor:
    """Return the sigmoid cross-entropy per cell with targets in {0, 1}.

    "balanced": foreground and background get the same total weight in the batch, so that rare motion is not ignored;
    the predicted probability is then no longer calibrated.
    """
    if foreground == "balanced":
        weight_Rhw = balanced(moving_Rhw, weight_Rhw)
    loss_Rhw = F.binary_cross_entropy_with_logits(logits_Rhw.float(), moving_Rhw, reduction="none")
    return _shared_mean(loss_Rhw, weight_Rhw)


def balanced(moving_Rhw: torch.Tensor, weight_Rhw: torch.Tensor) -> torch.Tensor:
    """Weights that sum to 1 over moving cells and to 1 over still ones, each in proportion to `weight_Rhw`; of a batch
    that ranks share, to 1 as a mean over ranks."""
    sums = torch.stack([(weight_Rhw * moving_Rhw).sum(), (weight_Rhw * (1 - moving_Rhw)).sum()])
    inside, outside = mean_over_ranks(sums).unbind()
    share_Rhw = moving_Rhw / inside.clamp_min(1e-12) + (1 - moving_Rhw) / outside.clamp_min(1e-12)
    return weight_Rhw * share_Rhw


def foreground_iou(logits_Rhw: torch.Tensor, moving_Rhw: torch.Tensor, weight_Rhw: torch.Tensor) -> torch.Tensor:
    """Return the IoU of predicted and true foreground over weighted cells; 0 if there is none in either."""
    predicted_Rhw = (logits_Rhw > 0).float()
    both = (weight_Rhw * predicted_Rhw * moving_Rhw).sum()
    return (both / foreground_union(logits_Rhw, moving_Rhw, weight_Rhw).clamp_min(1e-12)).detach()


def foreground_union(logits_Rhw: torch.Tensor, moving_Rhw: torch.Tensor, weight_Rhw: torch.Tensor) -> torch.Tensor:
    """Return the summed weight of cells that are predicted or true foreground: what the IoU is a mean over."""
    return (weight_Rhw * torch.maximum((logits_Rhw > 0).float(), moving_Rhw)).sum().detach()
