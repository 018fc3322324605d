"""Pairs of composites: a cut-out object on two backgrounds, at two places. Its features should be nearer than others'.

Real pixels, synthetic composition. Everything follows from the seed and the file's name.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.base.errors import DataError
from pipelines.base.rng import rng_for

__all__ = ["cutout_files", "cutout_pairs"]

Pixels = npt.NDArray[np.uint8]
SIDE_SHARES = (0.4, 0.7)
"""Longer side of the object, as a share of the canvas."""


def cutout_files(folder: Path) -> list[Path]:
    """Return the PNG files below a folder, sorted. Raises DataError if they are fewer than 2 or have no alpha."""
    files = sorted(folder.rglob("*.png")) if folder.is_dir() else []
    if len(files) < 2:
        raise DataError(f"cutouts = {folder}: {len(files)} PNG files; need a folder of at least 2 RGBA cut-outs.")
    _read(files[0])
    return files


def cutout_pairs(files: list[Path], backgrounds: Iterator[Pixels], seed: int) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield two composites of each cut-out, uint8 RGB of the backgrounds' size. Takes two backgrounds a file."""
    for path in files:
        object_HW4, rng = _read(path), rng_for(seed, 0, path.name, "cutout_pairs")
        yield _pasted(object_HW4, next(backgrounds), rng), _pasted(object_HW4, next(backgrounds), rng)


def _pasted(object_HW4: Pixels, background_SS3: Pixels, rng: np.random.Generator) -> Pixels:
    side = len(background_SS3)
    scale = rng.uniform(*SIDE_SHARES) * side / max(object_HW4.shape[:2])
    height, width = (max(1, min(side, round(length * scale))) for length in object_HW4.shape[:2])
    resized = cv2.resize(object_HW4, (width, height), interpolation=cv2.INTER_AREA).astype(np.float64)
    top, left = int(rng.integers(0, side - height + 1)), int(rng.integers(0, side - width + 1))
    canvas = background_SS3.astype(np.float64)
    place = canvas[top : top + height, left : left + width]
    alpha = resized[..., 3:] / 255
    place[:] = alpha * resized[..., :3] + (1 - alpha) * place
    pasted: Pixels = canvas.round().astype(np.uint8)
    return pasted


def _read(path: Path) -> Pixels:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        raise DataError(f"{path}: need a PNG with an alpha channel (RGBA).")
    return np.ascontiguousarray(image[..., [2, 1, 0, 3]], dtype=np.uint8)
