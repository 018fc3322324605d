"""Color prior: the share of each ab bin in a folder of shards, and rebalancing weights. After Zhang et al. 2016.

`count_prior` (pipelines/run/color_counts.py) writes `color_prior.json` into the folder of shards. `load_prior` reads
it, and refuses one that was counted on other shards.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.base.errors import DataError
from pipelines.shards.format.manifest import Manifest, load_manifest
from pipelines.shards.format.mirror import PRIOR_NAME
from pipelines.shards.format.storage import storage_of
from pipelines.targets.color.lab import NUM_BINS, ab_bins

__all__ = ["FORMAT_VERSION", "PRIOR_NAME", "ColorPrior", "class_rebalancing", "load_prior", "shard_hashes"]

FORMAT_VERSION = 1
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorPrior:
    """Color counts of one split. `prior`: 313 shares of sum 1. `shards`: sha256 by shard name."""

    split: str
    num_images: int
    num_gray_images: int
    num_neighbors: int
    sigma: float
    shards: dict[str, str]
    prior: tuple[float, ...]


def shard_hashes(manifest: Manifest, split: str) -> dict[str, str]:
    """Return the sha256 of each image shard of a split, by name."""
    return {s.name: s.sha256 for s in manifest.shards if s.kind == "image" and s.split == split}


def load_prior(folder: Path | str) -> npt.NDArray[np.float64] | None:
    """Return the counted shares, float64 (313,), or None if there are none.

    Raises DataError if the file is damaged or was counted on other shards.
    """
    fix = f"Count again: fourfold shards stats {folder}"
    try:
        content = json.loads(storage_of(folder).read(PRIOR_NAME))
        prior = np.asarray(content["prior"], dtype=np.float64)
        split, shards = content["split"], content["shards"]
        _check(content, prior)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}/{PRIOR_NAME}: damaged ({type(error).__name__}: {error}). {fix}") from error
    # Shards that were built anew have other colors, and a stale count would rebalance by them without a word.
    if shards != shard_hashes(load_manifest(folder), split):
        what = f"counted on other shards than the folder's split {split} holds now"
        raise DataError(f"{folder}/{PRIOR_NAME}: {what}. {fix}")
    return prior


def _check(content: dict[str, Any], prior: npt.NDArray[np.float64]) -> None:
    if content["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format_version {content['format_version']!r}, this fourfold reads {FORMAT_VERSION}")
    if prior.shape != (NUM_BINS,) or not (prior >= 0).all() or abs(prior.sum() - 1) > 1e-6:
        raise ValueError(f"prior of shape {prior.shape} and sum {prior.sum():.6g}, need {NUM_BINS} shares of sum 1")


def class_rebalancing(
    prior: Iterable[float] | npt.NDArray[Any], *, uniform_share: float = 0.5, sigma: float = 5.0
) -> Float32s:
    """Return the weight of each bin, float32 (313,): 1 / ((1 - lambda) p + lambda / 313), lambda = `uniform_share`.

    p is the prior smoothed over the ab plane by a Gaussian of `sigma`; the weights' mean under p is 1.
    """
    smooth = _smooth(np.asarray(prior, dtype=np.float64), sigma)
    # Normalised to mean 1, so that the loss and its learning rate mean the same with and without rebalancing.
    weight = 1 / ((1 - uniform_share) * smooth + uniform_share / NUM_BINS)
    return (weight / (smooth @ weight)).astype(np.float32)


def _smooth(prior: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    bins = ab_bins().astype(np.float64)
    squared = ((bins[:, None] - bins[None]) ** 2).sum(-1)
    kernel = np.exp(-squared / (2 * sigma**2))
    # Rows of sum 1: a bin spreads exactly its share, so that bins at the border of the gamut lose nothing.
    smooth: npt.NDArray[np.float64] = prior @ (kernel / kernel.sum(1, keepdims=True))
    return smooth
