"""Count the ab bins of all images in a folder of shards, for colorization's rebalancing weights."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from pipelines.base.errors import DataError
from pipelines.base.progress import progress_bar
from pipelines.run.canvases import evaluation_canvases
from pipelines.shards.format.manifest import load_manifest
from pipelines.shards.format.storage import storage_of
from pipelines.targets.color.color_prior import FORMAT_VERSION, PRIOR_NAME, ColorPrior, shard_hashes
from pipelines.targets.color.lab import NUM_BINS, ab_at_stride, has_color
from pipelines.targets.color.soft_encoding import soft_encode

__all__ = ["count_prior"]


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
    """Count the colors of all 8 x 8 blocks of all images, and save the shares in `folder` (a path or a URL).

    A block adds the weights of its soft target, so that the counts are those of colorization's targets.

    Gray images (no |a| or |b| above 5) are left out, as they are in training. Raises UsageError (no such folder,
    no images in the split) and DataError (a bad sample; no image with color).
    """
    manifest = load_manifest(folder)
    table = manifest.select("image", split)
    # In float64: a million images have a billion blocks, and float32 counts stop growing at 16 million.
    counts, num_images, num_gray = torch.zeros(NUM_BINS, dtype=torch.float64), 0, 0
    with progress_bar("counting colors", total=len(table), unit="images") as progress:
        for batch in evaluation_canvases(table, canvas_px=canvas_px, batch_size=batch_size, num_threads=num_threads):
            pixels = torch.as_tensor(batch.pixels)
            added, gray = _count(pixels, num_neighbors, sigma)
            counts, num_images, num_gray = counts + added, num_images + len(pixels), num_gray + gray
            progress.advance(len(pixels))
    # Shares of no counts would be divisions by 0.
    if num_gray == num_images:
        raise DataError(
            f"{folder}: all {num_images} images of split {split} are gray; colorization needs color images."
        )
    # The shards' hashes go with the shares, so that counts of other shards are refused later.
    prior = ColorPrior(
        split=split,
        num_images=num_images,
        num_gray_images=num_gray,
        num_neighbors=num_neighbors,
        sigma=sigma,
        shards=shard_hashes(manifest, split),
        prior=tuple((counts / counts.sum()).tolist()),
    )
    content = {"format_version": FORMAT_VERSION, **asdict(prior)}
    storage_of(folder).write(PRIOR_NAME, json.dumps(content).encode())
    return prior


def _count(pixels: torch.Tensor, num_neighbors: int, sigma: float) -> tuple[torch.Tensor, int]:
    """Return soft counts per bin, float64 (313,), and the number of gray images, of canvases uint8 (B, S, S, 3)."""
    ab = ab_at_stride(pixels)
    is_colored = has_color(ab)
    bins, weights = soft_encode(ab[is_colored], num_neighbors, sigma)
    counts = torch.bincount(bins.flatten(), weights.flatten().double(), minlength=NUM_BINS)
    return counts, int((~is_colored).sum())
