"""k-NN: every test image is answered by its nearest train images, by cosine of pooled features. Nothing is fitted.

Each of the k nearest votes for its class with exp(cosine / temperature), as in InstDisc and DINO. Exact: every test
image is compared with every train image, in blocks that fit in memory.

Letters: N train images, Q queries, D features, K classes.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch.nn import functional

from benchmarks.evaluations.base import Context, Evaluation, Int64s, Results, check_labelled, folds_of, score
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.features.store import Features
from benchmarks.evaluations.features.variants import FrozenConfig, Variant, paired_requests, probed

__all__ = ["EVALUATION", "KnnConfig", "knn_answers", "run"]

Floats = npt.NDArray[Any]
QUERY_BLOCK, TRAIN_BLOCK = 1024, 16384
"""Rows compared at a time: a block of cosines takes 64 MiB."""
MOST_HELD_OUT = 10_000
"""Held-out images that choose the batch norm statistics, at most: more cost time and change little."""


class KnnConfig(FrozenConfig):
    """Options of k-NN."""

    num_neighbours: int = Field(default=20, ge=1)
    """Train images that vote, at most all of them."""
    temperature: float = Field(default=0.07, gt=0.0)
    """Smaller lets the nearest decide alone."""
    pooling: Literal["mean", "max"] = "mean"
    """How the last map is pooled."""
    pool: int = Field(default=1, ge=1)
    """The last map is pooled to pool x pool; features grow with its square."""


def run(context: Context, config: KnnConfig) -> Results:
    """Return top1_pct, top5_pct (more than 5 classes), the statistics chosen and the seconds taken."""
    return probed(context, requests(context, config), lambda variants: _results(variants, config))


def requests(context: Context, config: KnnConfig) -> list[FeatureRequest]:
    """Return the train and the test features under every wanted set of batch norm statistics."""
    return paired_requests(context, config, pooling=config.pooling, pool=config.pool)


def _results(variants: list[Variant], config: KnnConfig) -> Results:
    # 1. The statistics, chosen without a look at the test split.
    held_out = [_held_out_pct(one.train, config) for one in variants] if variants[1:] else [0.0]
    chosen = variants[int(np.argmax(held_out))]
    # 2. The test split, once.
    train, test = chosen.train, chosen.test
    answers_QK = _answers(train.last_ND(), train.labels_N, test.last_ND(), config)
    return {
        **score(answers_QK, test.labels_N),
        "norm_statistics": chosen.norm_statistics,
        "num_train": len(train.labels_N),
        "num_test": len(test.labels_N),
        "num_features": train.last_ND().shape[1],
    }


def _answers(train_ND: Floats, labels_N: Int64s, query_QD: Floats, config: KnnConfig) -> npt.NDArray[np.float64]:
    return knn_answers(
        train_ND,
        labels_N,
        query_QD,
        int(labels_N.max()) + 1,
        num_neighbours=config.num_neighbours,
        temperature=config.temperature,
    )


@torch.no_grad()
def knn_answers(
    train_ND: Floats,
    labels_N: Int64s,
    query_QD: Floats,
    num_classes: int,
    *,
    num_neighbours: int,
    temperature: float,
) -> npt.NDArray[np.float64]:
    """Return the summed votes of the nearest train rows, (Q, K). Rows may be memory-mapped."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    num_neighbours = min(num_neighbours, len(train_ND))
    labels = torch.from_numpy(labels_N).to(device)
    votes_QK = np.empty((len(query_QD), num_classes))
    for start in range(0, len(query_QD), QUERY_BLOCK):
        query = _unit_rows(query_QD[start : start + QUERY_BLOCK], device)
        # The best so far, joined with the best of each block: memory stays that of two blocks.
        best, best_rows = torch.empty(len(query), 0, device=device), torch.empty(len(query), 0, dtype=torch.long)
        best_rows = best_rows.to(device)
        for first in range(0, len(train_ND), TRAIN_BLOCK):
            cosines = query @ _unit_rows(train_ND[first : first + TRAIN_BLOCK], device).T
            top, rows = cosines.topk(min(num_neighbours, cosines.shape[1]), dim=1)
            joined, joined_rows = torch.cat([best, top], dim=1), torch.cat([best_rows, rows + first], dim=1)
            best, order = joined.topk(min(num_neighbours, joined.shape[1]), dim=1)
            best_rows = joined_rows.gather(1, order)
        # In float64, and relative to the largest possible cosine: exp(1 / 0.07) is 1.6e6.
        weights = ((best.double() - 1) / temperature).exp()
        votes = torch.zeros(len(query), num_classes, dtype=torch.float64, device=device)
        votes.scatter_add_(1, labels[best_rows], weights)
        votes_QK[start : start + len(query)] = votes.cpu().numpy()
    return votes_QK


def _unit_rows(rows_ND: Floats, device: torch.device) -> torch.Tensor:
    """Return rows of length 1; a row of zeros stays as it is."""
    return functional.normalize(torch.from_numpy(np.array(rows_ND, dtype=np.float32)).to(device), dim=1)


def _held_out_pct(train: Features, config: KnnConfig) -> float:
    """Return top-1 of the first fold of the train split, answered by the other four."""
    train_ND, labels_N, folds_N = train.last_ND(), train.labels_N, folds_of(train.labels_N)
    kept, held = np.flatnonzero(folds_N != 0), np.flatnonzero(folds_N == 0)
    # Evenly spaced: shards may be sorted by class.
    held = held[:: -(-len(held) // MOST_HELD_OUT)]
    return score(_answers(train_ND[kept], labels_N[kept], train_ND[held], config), labels_N[held])["top1_pct"]


EVALUATION = Evaluation(config_class=KnnConfig, run=run, check=check_labelled, requests=requests)
