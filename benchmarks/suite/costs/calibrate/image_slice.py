"""A slice of a folder of labelled images: some images of every class, read where they lie; nothing is copied."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import Manifest, ManifestWriter, load_manifest
from pipelines.shards.format.shard_place import shard_places
from pipelines.shards.format.storage import storage_of
from pipelines.shards.format.table import Elsewhere

__all__ = ["write_slice"]


def write_slice(images: Path, per_class: Mapping[str, int], out: Path) -> dict[str, int]:
    """Write a manifest into `out` with at most so many images of every class by split; return the images by split.

    Images are spread evenly over those of a class. Raises UsageError for shards that are not on this machine.
    """
    manifest, num_images = load_manifest(images), dict[str, int]()
    out.mkdir(parents=True, exist_ok=True)
    with ManifestWriter(storage_of(out), manifest.labels) as writer:
        for split, most in per_class.items():
            table = manifest.select("image", split)
            chosen = _spread(table.label, most)
            num_images[split] = int(chosen.sum())
            start = 0
            for index in table.batch_indices:
                end = start + manifest.shards[index].num_samples
                _add(writer, manifest, index, chosen[start:end])
                start = end
    return num_images


def _spread(labels_N: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.bool_]:
    """Return which rows to keep: at most so many of every class, evenly spaced."""
    chosen = np.zeros(len(labels_N), dtype=bool)
    for label in np.unique(labels_N):
        rows = np.flatnonzero(labels_N == label)
        places = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)
        chosen[rows[places]] = True
    return chosen


def _add(writer: ManifestWriter, manifest: Manifest, index: int, chosen: npt.NDArray[np.bool_]) -> None:
    shard = manifest.shards[index]
    if not chosen.any():
        return
    (place,) = shard_places(manifest.folder, [shard])
    if place.url is not None:
        raise UsageError(f"{place.url}: shards behind a URL are not measured. Copy some to this machine first.")
    elsewhere = Elsewhere(
        location=str(place.path.absolute()), modified_ns=place.path.stat().st_mtime_ns, is_trusted=True
    )
    samples = manifest.samples_of(index).filter(pa.array(chosen))
    writer.add(replace(shard, num_samples=samples.num_rows, elsewhere=elsewhere), samples)
