"""Frozen features of a split: images in, pooled activations of the trunk out, one row per image in shard order.

Letters: M units, V views, N images, D = channels * pool * pool features, B batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch.nn import functional

from benchmarks.evaluations.base import Int64s
from pipelines.base.errors import UsageError
from pipelines.run.canvases import evaluation_canvases
from pipelines.shards.format.manifest import load_manifest
from training.trunk import Trunk

__all__ = ["Features", "frozen_features", "image_inputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of a split, float32 (M, V, N, D): M is 1 (the last unit) or all units of stage 3; int64 labels."""

    values_MVND: npt.NDArray[np.float32]
    labels_N: Int64s


@torch.no_grad()
def frozen_features(
    trunk: Trunk,
    images: Path,
    split: str,
    *,
    canvas_px: int,
    pool: int,
    flipped_view: bool = False,
    all_units: bool = False,
    batch_size: int = 64,
) -> Features:
    """Max-pool every image's last map (or all units' maps) to pool x pool. `flipped_view`: a mirrored view too."""
    table = load_manifest(images).select("image", split)
    device = next(trunk.parameters()).device
    trunk.to(memory_format=torch.channels_last).eval()
    rows: npt.NDArray[np.float32] | None = None
    labels = np.empty(len(table), dtype=np.int64)
    done = 0
    for batch in evaluation_canvases(table, canvas_px=canvas_px, batch_size=batch_size):
        inputs_BCHW = _inputs(batch.pixels, device)
        views = [inputs_BCHW, inputs_BCHW.flip(-1)] if flipped_view else [inputs_BCHW]
        pooled = torch.stack([_pooled(trunk, view, pool, all_units) for view in views], dim=1)
        if rows is None:
            rows = _allocate((*pooled.shape[:2], len(table), pooled.shape[3]), images)
        count = pooled.shape[2]
        rows[:, :, done : done + count] = pooled.cpu().numpy()
        labels[done : done + count] = batch.labels
        done += count
    assert rows is not None  # select() gives at least one sample
    return Features(values_MVND=rows, labels_N=labels)


def image_inputs(
    images: Path, split: str, *, canvas_px: int, batch_size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Yield the images of a split as the trunk takes them: float32 (B, 3, S, S) in [0, 1], in shard order."""
    table = load_manifest(images).select("image", split)
    for batch in evaluation_canvases(table, canvas_px=canvas_px, batch_size=batch_size):
        yield _inputs(batch.pixels, device)


def _inputs(pixels_BHWC: torch.Tensor, device: torch.device) -> torch.Tensor:
    return pixels_BHWC.to(device).permute(0, 3, 1, 2).float() / 255


def _pooled(trunk: Trunk, inputs_BCHW: torch.Tensor, pool: int, all_units: bool) -> torch.Tensor:
    """(M, B, D). Pooling each unit before they are mixed keeps memory small; the paper mixes the maps, then pools."""
    output = trunk(inputs_BCHW)
    maps = list(output.units) if all_units else [output.last]
    return torch.stack([functional.adaptive_max_pool2d(one.float(), pool).flatten(1) for one in maps])


def _allocate(shape: tuple[int, ...], images: Path) -> npt.NDArray[np.float32]:
    needed_bytes, free_bytes = 4 * int(np.prod(shape)), psutil.virtual_memory().available
    # The probe holds the features and a standardised copy of them, once or twice (recalibrate_norm: auto), and a part
    # of one copy while it fits; the second time, the first features are no longer free.
    if 4 * needed_bytes > free_bytes:
        raise UsageError(
            f"{images}: the probe needs {4 * needed_bytes / 2**30:.1f} GiB for features {shape}, "
            f"{free_bytes / 2**30:.1f} GiB are free. Use a smaller pool, augment: none, lasso: false, or fewer images."
        )
    return np.empty(shape, dtype=np.float32)
