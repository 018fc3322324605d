"""What a trunk's features are worth as a run goes: their effective rank, and 20-NN accuracy on labelled images.

N images (or patches), C channels.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.model import Model
from training.trunk import TrunkOutput

__all__ = ["effective_rank", "nearest_neighbour_accuracy", "watched_features"]

NUM_NEIGHBOURS, TEMPERATURE = 20, 0.07


@contextmanager
def watched_features(model: Model) -> Iterator[list[torch.Tensor]]:
    """Fill a list with the features of every forward pass inside the block: float32 (N, C), means over the map."""
    found: list[torch.Tensor] = []

    def keep(module: object, inputs: object, output: TrunkOutput) -> None:
        found.append(output.last.detach().float().mean((2, 3)))

    handle = model.trunk.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def effective_rank(features_NC: torch.Tensor) -> float:
    """Return RankMe (Garrido et al., ICML 2023): exp of the entropy of the singular values, from 1 to min(N, C).

    NaN for features that are not finite: the loss of the same step ends the run, with a message.
    """
    if not torch.isfinite(features_NC).all():
        return math.nan
    values = torch.linalg.svdvals(features_NC.double().cpu())
    share = values / values.sum().clamp_min(1e-30) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def nearest_neighbour_accuracy(
    train_NC: torch.Tensor, train_labels_N: torch.Tensor, test_NC: torch.Tensor, test_labels_N: torch.Tensor
) -> float:
    """Return the share in [0, 1] of test images that their 20 nearest training images name right.

    Nearest by cosine; each votes with exp(cosine / 0.07) for its label, as in Wu et al., CVPR 2018. Labels are int64
    from 0; with fewer than 20 training images, all vote.
    """
    train_NC = torch.nn.functional.normalize(train_NC.float(), dim=1)
    test_NC = torch.nn.functional.normalize(test_NC.float(), dim=1)
    near = (test_NC @ train_NC.T).topk(min(NUM_NEIGHBOURS, len(train_NC)), dim=1)
    num_labels = int(max(train_labels_N.max(), test_labels_N.max())) + 1
    votes = torch.zeros(len(test_NC), num_labels, device=test_NC.device)
    votes.scatter_add_(1, train_labels_N[near.indices], (near.values / TEMPERATURE).exp())
    return float((votes.argmax(1) == test_labels_N).float().mean())
