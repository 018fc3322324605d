"""Composites made as they are read: objects cut out with alpha, pasted on photos, with exact masks.

Real pixels in a synthetic composition: say so beside every number of it. Cut-outs and photos are split by their name,
never by composite: no object and no background is on both sides.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.evaluations.dense.masked_images import MaskedImage, MaskedSplit
from benchmarks.evaluations.image_files import read_image
from pipelines.base.errors import DataError, UsageError
from pipelines.base.rng import rng_for

__all__ = ["is_composites", "open_composites"]

FOLDERS = ("cutouts", "photos")
SIDE_PX = 240
OBJECT_SHARES = (0.25, 0.6)
"""Longest side of an object, as a share of the composite's side: drawn between these."""
COVERED = 128
"""Least alpha, of 255, at which a pixel counts as object."""


def is_composites(data: Path) -> bool:
    """Return whether a folder has the cut-outs and photos that composites are made of."""
    return all((data / name).is_dir() for name in FOLDERS)


def open_composites(data: Path, splits: Sequence[str], *, per_cutout: int) -> list[MaskedSplit]:
    """Return "train" (two of three cut-outs and photos) and "test" (every third): object against background.

    Every cut-out stands in `per_cutout` composites, each drawn from its name and number alone. Raises UsageError or
    DataError.
    """
    if unknown := sorted(set(splits) - {"train", "test"}):
        raise UsageError(f"{data}: composites have no split {unknown[0]}. Allowed: train, test.")
    cutouts, photos = (_files(data / name) for name in FOLDERS)
    return [_split(split, _half(cutouts, split), _half(photos, split), per_cutout) for split in splits]


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(found) < 3:
        raise DataError(f"{folder}: {len(found)} images; need at least 3, of which one is kept for the test split.")
    return found


def _half(files: Sequence[Path], split: str) -> list[Path]:
    return [path for index, path in enumerate(files) if (index % 3 == 2) == (split == "test")]


def _split(split: str, cutouts: Sequence[Path], photos: Sequence[Path], per_cutout: int) -> MaskedSplit:
    def read(index: int) -> MaskedImage:
        cutout = cutouts[index // per_cutout]
        rng = rng_for(0, index % per_cutout, cutout.stem, f"composites {split}")
        background = _square(read_image(photos[int(rng.integers(len(photos)))]), rng)
        return _pasted(_read_cutout(cutout), background, rng)

    names = [f"{path.stem}-{number}" for path in cutouts for number in range(per_cutout)]
    groups = [path.stem for path in cutouts for _ in range(per_cutout)]
    return MaskedSplit(names=tuple(names), groups=tuple(groups), class_names=("background", "object"), read=read)


def _read_cutout(path: Path) -> npt.NDArray[np.uint8]:
    rgba = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if rgba is None or rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.dtype != np.uint8:
        raise DataError(f"{path}: no image of 8 bits with alpha. A cut-out is a PNG of red, green, blue and alpha.")
    return np.asarray(rgba[..., [2, 1, 0, 3]], dtype=np.uint8)


def _square(photo_HW3: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a random square of the photo at SIDE_PX, float32."""
    height, width = photo_HW3.shape[:2]
    side = min(height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = photo_HW3[top : top + side, left : left + side]
    return cv2.resize(crop, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)


def _pasted(
    cutout_HW4: npt.NDArray[np.uint8], background_HW3: npt.NDArray[np.float32], rng: np.random.Generator
) -> MaskedImage:
    height, width = cutout_HW4.shape[:2]
    scale = float(rng.uniform(*OBJECT_SHARES)) * SIDE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(cutout_HW4, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        resized = resized[:, ::-1]
    top, left = (int(rng.integers(SIDE_PX - side + 1)) for side in (size[1], size[0]))
    window = (slice(top, top + size[1]), slice(left, left + size[0]))
    alpha = resized[..., 3:].astype(np.float32) / 255
    image = background_HW3.copy()
    image[window] = alpha * resized[..., :3] + (1 - alpha) * image[window]
    mask_HW = np.zeros((SIDE_PX, SIDE_PX), dtype=np.uint8)
    mask_HW[window] = resized[..., 3] >= COVERED
    return MaskedImage(rgb_HW3=np.round(image).astype(np.uint8), mask_HW=mask_HW)
