"""The samples of a comparison: taken from shards, numbered, written as plain files and as shards of their own.

    folder/files/000000.jpg ...   folder/shards/   folder/boxes.npy   folder/reference.npy

Only JPEGs that every decoder reads alike are taken: gray or RGB, upright. What is left out is counted.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.loaders.options import CompareOptions
from benchmarks.loaders.reference import write_reference
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress
from pipelines.base.rng import rng_for
from pipelines.read.reader import SampleReader
from pipelines.run.sample_source import canvas_boxes
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.shards.format.image_headers import read_header
from pipelines.shards.format.manifest import SampleTable, load_manifest

__all__ = ["Samples", "prepare_samples"]

SHARDS_PER_CORE = 2
"""Loaders whose workers each read shards of their own need at least one for each."""
CANVAS_SCALE = (0.75, 1.0)
MODES = ("gray", "rgb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What was taken. num_left_out: images that decoders differ on. Sizes are of the whole images."""

    num_samples: int
    num_left_out: int
    image_bytes: float
    median_width_px: float
    median_height_px: float


def prepare_samples(options: CompareOptions, folder: Path) -> Samples:
    """Write everything below `folder`. Raises UsageError if there are too few samples."""
    table = load_manifest(options.shards).select("image", "train")
    count = min(options.num_samples, len(table))
    chosen = np.unique(np.linspace(0, len(table) - 1, count).astype(np.int64))
    rows, encoded = _upright_jpegs(table, chosen.tolist())
    num_upright, whole = len(rows), options.whole_batches(len(rows))
    if not whole:
        raise UsageError(
            f"{options.shards}: {len(rows)} of the {len(chosen)} images looked at are JPEGs that every loader reads "
            f"alike (gray or RGB, upright); need at least one batch of {options.batch_size}. Give a smaller batch size."
        )
    rows, encoded = rows[:whole], encoded[:whole]
    width_N, height_N = table.width[rows], table.height[rows]
    uniform_N4 = rng_for(0, 0, "loaders", "canvas").random((whole, 4))
    boxes_N4 = canvas_boxes(uniform_N4, width_N, height_N, CANVAS_SCALE, options.canvas_px)
    np.save(folder / "boxes.npy", boxes_N4)
    paths = _write_files(folder / "files", encoded)
    write_reference(paths, boxes_N4, options.canvas_px, folder / "reference.npy")
    _write_shards(folder, whole, options.num_cores)
    return Samples(
        num_samples=whole,
        num_left_out=len(chosen) - num_upright,
        image_bytes=sum(map(len, encoded)) / whole,
        median_width_px=float(np.median(width_N)),
        median_height_px=float(np.median(height_N)),
    )


def _upright_jpegs(table: SampleTable, chosen: list[int]) -> tuple[list[int], list[bytes]]:
    reader, rows, encoded = SampleReader(table), [], []
    for row in chosen:
        content = bytes(reader.read(row))
        try:
            header = read_header(content)
        except ValueError:
            continue
        if header.extension == "jpg" and header.orientation == 1 and header.mode in MODES:
            rows.append(row)
            encoded.append(content)
    return rows, encoded


def _write_files(folder: Path, encoded: list[bytes]) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{row:06d}.jpg" for row in range(len(encoded))]
    for path, content in zip(paths, encoded, strict=True):
        path.write_bytes(content)
    return paths


def _write_shards(folder: Path, num_samples: int, num_cores: int) -> None:
    """Keys are the samples' numbers."""
    per_shard = -(-num_samples // (SHARDS_PER_CORE * num_cores))
    config = BuildConfig(
        sources=[folder / "files"],
        out=folder / "shards",
        labels="off",
        check="header",
        samples_per_shard=per_shard,
        num_workers=num_cores,
    )
    with quiet_progress():
        build_shards(config)
