"""Sizes of the samples in a folder of shards, and how much moves in its clips. Nothing is decoded.

Sizes come from samples.arrow. Motion comes from the clips' sidecars: of all of them, or
of clips spread evenly over the shards where there are more than MAX_CLIPS.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.base.errors import DataError
from pipelines.shards.format.index import index_name, parse_index
from pipelines.shards.format.manifest import Kind, Manifest, Shard, load_manifest
from pipelines.shards.format.storage import Storage, storage_of

__all__ = ["FolderStats", "GroupStats", "MotionStats", "Spread", "measure"]

MAX_CLIPS = 20_000
# Camera noise and compression alone move a still picture by 0.1 to 0.3 gray levels (cuts.motion_of).
NEAR_STATIC = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Quantiles of one number over samples; p5: 5 % of the samples lie below."""

    min: float
    p5: float
    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> "Spread":
        # Values that occur, not interpolated ones: sides of images are whole pixels.
        low, p5, median, p95, high = np.quantile(values, [0, 0.05, 0.5, 0.95, 1], method="nearest").tolist()
        return cls(min=low, p5=p5, median=median, p95=p95, max=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionStats:
    """Motion of a split's clips, in gray levels (`cuts.motion_of`). `near_static_ratio`: share below `near_static`."""

    num_clips: int
    motion: Spread
    near_static: float
    near_static_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStats:
    """Numbers on all samples of one kind and split. `sample_bytes`: of the image or clip, without sidecars."""

    kind: Kind
    split: str
    num_samples: int
    width_px: Spread
    height_px: Spread
    sample_bytes: Spread
    motion: MotionStats | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderStats:
    folder: str
    groups: tuple[GroupStats, ...]


def measure(location: Path | str) -> FolderStats:
    """Measure sizes and motion per kind and split. Raises UsageError or DataError if there is no readable manifest."""
    manifest, storage = load_manifest(location), storage_of(location)
    pairs = sorted(
        {(shard.kind, shard.split) for shard in manifest.shards}, key=lambda pair: (pair[0] != "image", pair)
    )
    return FolderStats(folder=str(location), groups=tuple(_group(manifest, storage, *pair) for pair in pairs))


def _group(manifest: Manifest, storage: Storage, kind: Kind, split: str) -> GroupStats:
    table = manifest.select(kind, split)
    return GroupStats(
        kind=kind,
        split=split,
        num_samples=len(table),
        width_px=Spread.of(table.width),
        height_px=Spread.of(table.height),
        sample_bytes=Spread.of(table.size),
        motion=_motion(storage, table.shards) if kind == "clip" else None,
    )


def _motion(storage: Storage, shards: Sequence[Shard]) -> MotionStats | None:
    """Summarize motion; None if the shards were built without measuring it."""
    stride = -(-sum(shard.num_samples for shard in shards) // MAX_CLIPS)
    found = [value for shard in shards for value in _shard_motion(storage, shard, stride)]
    if not found:
        return None
    motion = np.asarray(found)
    return MotionStats(
        num_clips=len(motion),
        motion=Spread.of(motion),
        near_static=NEAR_STATIC,
        near_static_ratio=float((motion < NEAR_STATIC).mean()),
    )


def _shard_motion(storage: Storage, shard: Shard, stride: int) -> Iterator[float]:
    """Yield the motion of every `stride`-th clip of a shard, from its sidecar."""
    try:
        places = _sidecars(storage, shard)[::stride]
        with storage.open(shard.name) as file:
            for offset, size in places:
                file.seek(offset)
                facts = json.loads(file.read(size))
                if isinstance(facts.get("motion"), int | float):
                    yield float(facts["motion"])
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{shard.name}: cannot read its sidecars ({error}). See what is wrong: fourfold shards verify "
            f"{storage.location}"
        ) from error


def _sidecars(storage: Storage, shard: Shard) -> list[tuple[int, int]]:
    """Return (offset, size) of the JSON sidecars in a shard."""
    members = chain.from_iterable(parse_index(storage.read(index_name(shard.name))))
    return [(offset, size) for extension, offset, size, _ in members if extension == "json"]
