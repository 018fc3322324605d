"""How often each ab bin occurs in a folder of shards, and the rebalancing weights that follow. After Zhang et al. 2016.

`count_prior` writes `color_prior.json` into the folder; `load_prior` reads it and refuses one counted on other shards.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipelines.color import NUM_BINS, ab_at_stride, ab_bins, has_color
from pipelines.errors import DataError
from pipelines.progress import progress_bar
from pipelines.shards.manifest import Manifest, load_manifest
from pipelines.shards.mirror import PRIOR_NAME
from pipelines.shards.storage import storage_of
from pipelines.soft_encoding import soft_encode

__all__ = ["PRIOR_NAME", "ColorPrior", "class_rebalancing", "count_prior", "load_prior"]

FORMAT_VERSION = 1
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorPrior:
    """Counted colors of one split. `prior`: 313 shares, sum 1. `shards`: sha256 by shard name."""

    split: str
    num_images: int
    num_gray_images: int
    num_neighbors: int
    sigma: float
    shards: dict[str, str]
    prior: tuple[float, ...]


def count_prior(
    folder: Path | str,
    split: str = "train",
    *,
    canvas_px: int = 256,
    batch_size: int = 64,
    num_threads: int = 0,
    num_neighbors: int = 5,
    sigma: float = 5.0,
) -> ColorPrior:
    """Soft-count the color of every 8 x 8 block of every image, and save it in `folder` (a path or a URL).

    Gray images (no |a| or |b| above 5) are left out, as they are in training. Raises UsageError (no such folder,
    no images in the split) and DataError (a bad sample; no image with color).
    """
    from pipelines.canvases import evaluation_canvases  # brings the decoders, which reading a prior does not need

    manifest = load_manifest(folder)
    table = manifest.select("image", split)
    counts, num_images, num_gray = torch.zeros(NUM_BINS, dtype=torch.float64), 0, 0
    with progress_bar("counting colors", total=len(table), unit="images") as progress:
        for batch in evaluation_canvases(table, canvas_px=canvas_px, batch_size=batch_size, num_threads=num_threads):
            pixels = torch.as_tensor(batch.pixels)
            added, gray = _count(pixels, num_neighbors, sigma)
            counts, num_images, num_gray = counts + added, num_images + len(pixels), num_gray + gray
            progress.advance(len(pixels))
    if num_gray == num_images:
        raise DataError(
            f"{folder}: all {num_images} images of split {split} are gray; colorization needs color images."
        )
    prior = ColorPrior(
        split=split,
        num_images=num_images,
        num_gray_images=num_gray,
        num_neighbors=num_neighbors,
        sigma=sigma,
        shards=_hashes(manifest, split),
        prior=tuple((counts / counts.sum()).tolist()),
    )
    content = {"format_version": FORMAT_VERSION, **asdict(prior)}
    storage_of(folder).write(PRIOR_NAME, json.dumps(content).encode())
    return prior


def _count(pixels: torch.Tensor, num_neighbors: int, sigma: float) -> tuple[torch.Tensor, int]:
    """Soft counts per bin, float64 (313,), and the number of gray images, of uint8 (B, S, S, 3)."""
    ab = ab_at_stride(pixels)
    is_colored = has_color(ab)
    bins, weights = soft_encode(ab[is_colored], num_neighbors, sigma)
    counts = torch.bincount(bins.flatten(), weights.flatten().double(), minlength=NUM_BINS)
    return counts, int((~is_colored).sum())


def _hashes(manifest: Manifest, split: str) -> dict[str, str]:
    return {s.name: s.sha256 for s in manifest.shards if s.kind == "image" and s.split == split}


def load_prior(folder: Path | str) -> npt.NDArray[np.float64] | None:
    """The counted shares, float64 (313,), or None when none were counted. Raises DataError when they do not fit."""
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
    if shards != _hashes(load_manifest(folder), split):
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
    """Weight per bin, float32 (313,): 1 / ((1 - lambda) p + lambda / 313), lambda = `uniform_share`.

    p is the prior smoothed over the ab plane by a Gaussian of `sigma`; the weights' mean under p is 1.
    """
    smooth = _smooth(np.asarray(prior, dtype=np.float64), sigma)
    weight = 1 / ((1 - uniform_share) * smooth + uniform_share / NUM_BINS)
    return (weight / (smooth @ weight)).astype(np.float32)


def _smooth(prior: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    bins = ab_bins().astype(np.float64)
    squared = ((bins[:, None] - bins[None]) ** 2).sum(-1)
    kernel = np.exp(-squared / (2 * sigma**2))
    # Each bin gives away exactly its share, so border bins lose nothing and the sum stays 1.
    smooth: npt.NDArray[np.float64] = prior @ (kernel / kernel.sum(1, keepdims=True))
    return smooth
