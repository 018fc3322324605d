"""Frozen features under every wanted set of batch norm statistics, train and test split of each: what all probes read.

A probe gives its options and a function from variants to results; the requests and the seconds are the same for all.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from benchmarks.evaluations.base import Context, Results
from benchmarks.evaluations.features.request import NORM_NAMES, FeatureRequest, norm_variants
from benchmarks.evaluations.features.store import Features, features_of
from pipelines.base.config import Config

__all__ = ["FrozenConfig", "Variant", "paired_requests", "probed"]


class FrozenConfig(Config):
    """Options of every probe of frozen features."""

    canvas_px: int = Field(default=256, ge=16)
    """Side of the square the trunk sees; cost grows with its square. A suite takes the pretraining's if not given."""
    recalibrate_norm: bool | Literal["auto"] = "auto"
    """Batch norm statistics estimated anew on the unlabelled train images: one more pass over them. `auto`: the better
    of both on held-out train images, at twice the cost. Trunks trained on patches gain, random ones lose."""
    batch_size: int = Field(default=64, ge=1)
    """Images per forward pass; memory grows with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Features of both splits under one set of batch norm statistics, by its name in results."""

    norm_statistics: str
    train: Features
    test: Features


def paired_requests(
    context: Context, config: FrozenConfig, *, flipped_train_view: bool = False, **what: Any
) -> list[FeatureRequest]:
    """Return the train and the test features, in turn, under every wanted set of batch norm statistics.

    `what`: pooling, pool and units of the requests.
    """
    return [
        FeatureRequest(
            split=split,
            canvas_px=config.canvas_px,
            flipped_view=flipped_train_view and split == context.train_split,
            is_recalibrated=is_recalibrated,
            batch_size=config.batch_size,
            **what,
        )
        for is_recalibrated in norm_variants(config.recalibrate_norm)
        for split in (context.train_split, context.test_split)
    ]


def probed(
    context: Context, requests: Sequence[FeatureRequest], results_of: Callable[[list[Variant]], Results]
) -> Results:
    """Return the results of a probe on the features of `paired_requests`, and the seconds of both (feature_s, probe_s).

    Raises UsageError or DataError where trunk or shards are missing.
    """
    start_s = time.monotonic()
    found = features_of(context, requests)
    variants = [
        Variant(norm_statistics=NORM_NAMES[request.is_recalibrated], train=train, test=test)
        for request, train, test in zip(requests[::2], found[::2], found[1::2], strict=True)
    ]
    feature_s = time.monotonic() - start_s
    results = results_of(variants)
    return results | {"feature_s": feature_s, "probe_s": time.monotonic() - start_s - feature_s}
