"""What the tests of the compared loaders share: a setting with samples made by hand, and batches of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.loaders.loader_samples import write_reference
from benchmarks.loaders.setting import Batch, Setting
from tests.made.pictures import encode, smooth_picture

CANVAS_PX = 32


def made_setting(folder: Path, *, num_samples: int = 8, batch_size: int = 4) -> Setting:
    """Files, boxes and reference below `folder`: JPEGs of 56 x 48 px, of each a box somewhere."""
    (folder / "files").mkdir(parents=True)
    paths = [folder / "files" / f"{row:06d}.jpg" for row in range(num_samples)]
    for row, path in enumerate(paths):
        path.write_bytes(encode(smooth_picture(row, 56, 48)))
    corners_N2 = np.random.default_rng(0).integers(0, 8, (num_samples, 2), np.int32)
    boxes_N4 = np.hstack([corners_N2, corners_N2 + 40])
    np.save(folder / "boxes.npy", boxes_N4)
    write_reference(paths, boxes_N4, CANVAS_PX, folder / "reference.npy")
    return Setting(
        folder=folder / "files",
        boxes_file=folder / "boxes.npy",
        reference_file=folder / "reference.npy",
        canvas_px=CANVAS_PX,
        batch_size=batch_size,
        num_cores=1,
    )


def right_batches(setting: Setting, order: Sequence[int] | None = None) -> list[Batch]:
    """What a loader without any difference gives, in the given order of samples."""
    rows = list(range(len(setting.boxes()))) if order is None else list(order)
    parts = [rows[first : first + setting.batch_size] for first in range(0, len(rows), setting.batch_size)]
    return [Batch(part, torch.from_numpy(setting.reference()[part])) for part in parts]
