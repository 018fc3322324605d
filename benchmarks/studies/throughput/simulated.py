"""Data sets of any size that take the room of one shard: a real tar under many names, and a manifest of all samples."""

import os
from pathlib import Path
from typing import BinaryIO

import cv2
import pyarrow as pa

from benchmarks.studies.throughput.made_shards import made_picture
from pipelines.shards.format.manifest import ManifestWriter, Shard
from pipelines.shards.format.storage import storage_of
from pipelines.shards.format.tar_writer import Sample, TarFacts, TarWriter

__all__ = ["simulated_shards"]

NUM_DIFFERENT_IMAGES = 64


def simulated_shards(folder: Path, *, num_shards: int, samples_per_shard: int, image_px: int) -> Path:
    """A folder of shards whose tars are hard links of one; keys differ. `image_px`: side of the JPEGs. The folder."""
    folder.mkdir(parents=True)
    first = folder / "train-images-000000.tar"
    with first.open("wb") as file:
        facts = _write_tar(file, samples_per_shard, image_px)
    with ManifestWriter(storage_of(folder), ("anything",)) as manifest:
        for index in range(num_shards):
            name = f"train-images-{index:06d}.tar"
            if index:
                os.link(first, folder / name)
            keys = pa.array([f"{index:06d}-{row:06d}" for row in range(samples_per_shard)])
            manifest.add(_shard(name, facts), facts.samples.set_column(0, facts.samples.schema.field(0), keys))
    return folder


def _write_tar(file: BinaryIO, count: int, image_px: int) -> TarFacts:
    encoded = [_jpeg(seed, image_px) for seed in range(min(count, NUM_DIFFERENT_IMAGES))]
    writer = TarWriter(file)
    for row in range(count):
        members = [("jpg", encoded[row % len(encoded)])]
        writer.add(Sample(f"{row:06d}", members, image_px, image_px, 0))
    return writer.finish()


def _jpeg(seed: int, image_px: int) -> bytes:
    return cv2.imencode(".jpg", made_picture(seed, image_px, image_px))[1].tobytes()


def _shard(name: str, facts: TarFacts) -> Shard:
    return Shard(
        name=name,
        kind="image",
        split="train",
        num_samples=facts.samples.num_rows,
        shard_bytes=facts.num_bytes,
        sha256=facts.sha256,
    )
