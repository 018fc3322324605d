"""One pass of a trunk over a split: images in, pooled activations out, appended to files as they come.

Memory does not grow with the number of images: two batches of canvases, the activations of one, nothing else.

Letters: N images, D = channels * pool * pool features, B batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import torch
from torch.nn import functional

from pipelines.decode.base import thread_count
from pipelines.run.canvases import EvaluationBatch, prepared_canvases
from pipelines.shards.format.manifest import SampleTable, load_manifest
from training.trunk import Trunk

__all__ = ["FeatureFile", "image_inputs", "write_features"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureFile:
    """File open for writing, and what goes into it: float32 rows of D features, one image a row, in shard order."""

    file: BinaryIO
    unit: int
    """Unit of stage 3, counted from 0."""
    is_flipped: bool
    pooling: Literal["max", "mean"]
    pool: int

    @property
    def what(self) -> tuple[int, bool, str, int]:
        return self.unit, self.is_flipped, self.pooling, self.pool


@torch.no_grad()
def write_features(
    trunk: Trunk, table: SampleTable, files: Sequence[FeatureFile], *, canvas_px: int, batch_size: int
) -> None:
    """Pass the images of a table through the trunk once and append the rows of every file."""
    device = next(trunk.parameters()).device
    trunk.to(memory_format=torch.channels_last).eval()
    for inputs_BCHW in _table_inputs(table, device, canvas_px, batch_size):
        # A view at a time: the maps of one are gone before those of the next are made.
        for is_flipped in sorted({one.is_flipped for one in files}):
            units = trunk(inputs_BCHW.flip(-1) if is_flipped else inputs_BCHW).units
            for one in files:
                if one.is_flipped == is_flipped:
                    # Each unit is pooled before units are mixed: the paper mixes the maps, which need pool^-2 the room.
                    one.file.write(_pooled(units[one.unit], one.pooling, one.pool).cpu().numpy().data)


def image_inputs(
    images: Path, split: str, *, canvas_px: int, batch_size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Return the images of a split as the trunk takes them: float32 (B, 3, S, S) in [0, 1], in shard order."""
    table = load_manifest(images).select("image", split)
    return _table_inputs(table, device, canvas_px, batch_size)


def _table_inputs(table: SampleTable, device: torch.device, canvas_px: int, batch_size: int) -> Iterator[torch.Tensor]:
    def inputs(batch: EvaluationBatch) -> torch.Tensor:
        # In place, the same to the bit: a second batch of floats took as long again.
        return batch.pixels.to(device).permute(0, 3, 1, 2).float().div_(255)

    # Made ahead, beside the forward pass of the batch before; on a CPU the pass keeps the other cores.
    num_threads = max(1, thread_count(0) - torch.get_num_threads()) if device.type == "cpu" else 0
    return prepared_canvases(table, inputs, canvas_px=canvas_px, batch_size=batch_size, num_threads=num_threads)


def _pooled(map_BCHW: torch.Tensor, pooling: Literal["max", "mean"], pool: int) -> torch.Tensor:
    """Return float32 (B, D), contiguous."""
    reduce = functional.adaptive_max_pool2d if pooling == "max" else functional.adaptive_avg_pool2d
    return reduce(map_BCHW.float(), pool).flatten(1).contiguous()
