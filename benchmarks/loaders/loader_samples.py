"""The samples of a comparison: taken from shards, numbered, written as plain files and as shards of their own.

    folder/files/000000.jpg ...   folder/shards/   folder/boxes.npy   folder/reference.npy

Only JPEGs that every decoder reads alike are taken: gray or RGB, upright. What is left out is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.loaders.options import CompareOptions
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress
from pipelines.base.rng import rng_for
from pipelines.read.reader import SampleReader
from pipelines.run.sample_source import canvas_boxes
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.shards.format.image_headers import read_header
from pipelines.shards.format.manifest import SampleTable, load_manifest

__all__ = ["Samples", "prepare_samples", "write_reference"]

SHARDS_PER_CORE = 2
"""Loaders whose workers each read shards of their own need at least one for each."""
CANVAS_SCALE = (0.75, 1.0)
MODES = ("gray", "rgb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples that were taken. num_left_out: images that decoders differ on. Sizes are of the whole images."""

    num_samples: int
    num_left_out: int
    image_bytes: float
    median_width_px: float
    median_height_px: float


def prepare_samples(options: CompareOptions, folder: Path) -> Samples:
    """Write everything below `folder`. Raises UsageError if there are too few samples."""
    # 1. Evenly spaced samples that all decoders agree on, as many as fill batches.
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
    # 2. A box for each, drawn as the pipeline draws it.
    width_N, height_N = table.width[rows], table.height[rows]
    uniform_N4 = rng_for(0, 0, "loaders", "canvas").random((whole, 4))
    boxes_N4 = canvas_boxes(uniform_N4, width_N, height_N, CANVAS_SCALE, options.canvas_px)
    np.save(folder / "boxes.npy", boxes_N4)
    # 3. Files, and shards of them; keys are the samples' numbers.
    paths = [folder / "files" / f"{row:06d}.jpg" for row in range(whole)]
    (folder / "files").mkdir()
    for path, content in zip(paths, encoded, strict=True):
        path.write_bytes(content)
    write_reference(paths, boxes_N4, options.canvas_px, folder / "reference.npy")
    # Only headers are checked: Pillow has just decoded all of the files for the reference.
    config = BuildConfig(
        sources=[folder / "files"],
        out=folder / "shards",
        labels="off",
        check="header",
        samples_per_shard=-(-whole // (SHARDS_PER_CORE * options.num_cores)),
        num_workers=options.num_cores,
    )
    with quiet_progress():
        build_shards(config)
    return Samples(
        num_samples=whole,
        num_left_out=len(chosen) - num_upright,
        image_bytes=sum(map(len, encoded)) / whole,
        median_width_px=float(np.median(width_N)),
        median_height_px=float(np.median(height_N)),
    )


def write_reference(images: Sequence[Path], boxes_N4: npt.NDArray[np.int32], canvas_px: int, out: Path) -> None:
    """Write what all canvases are compared with, by the plainest code there is: Pillow alone, image by image.

    uint8 RGB (N, S, S, 3) as .npy: each box cut out, then resized, linear and antialiased.
    """
    open_memmap: Any = np.lib.format.open_memmap  # not typed in every release of NumPy
    canvases = open_memmap(out, "w+", np.uint8, (len(images), canvas_px, canvas_px, 3))
    for path, box, canvas in zip(images, boxes_N4.tolist(), canvases, strict=True):
        with Image.open(path) as image:
            part = image.convert("RGB").crop(tuple(box))
        canvas[:] = np.asarray(part.resize((canvas_px, canvas_px), Image.Resampling.BILINEAR))
    canvases.flush()


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
