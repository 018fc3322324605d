"""Composites made as they are read: objects cut out with alpha, pasted on photos, with exact masks and boxes.

Real pixels in a synthetic composition: say so beside every number of it. Cut-outs and photos are split by their name,
never by composite: no object and no background is on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from benchmarks.evaluations.image_files import read_image
from pipelines.base.errors import DataError, UsageError
from pipelines.base.rng import rng_for

__all__ = ["COMPOSITES_NEED", "Composite", "CompositeSplit", "is_composites", "open_composites"]

Pixels = npt.NDArray[np.uint8]
FOLDERS = ("cutouts", "photos")
COMPOSITES_NEED = "composites: cutouts/*.png with alpha, photos/*.jpg; real pixels, synthetic composition"
MOST_SHOWN = 5
SIDE_PX = 240
OBJECT_SHARES = (0.25, 0.6)
"""Longest side of an object, as a share of the composite's side: drawn between these."""
COVERED = 128
"""Least alpha, of 255, at which a pixel counts as object."""
SPLITS = {"train": "train", "trainval": "train", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """`rgb_HW3`: uint8 RGB, SIDE_PX square. `mask_HW`: uint8, 1 where the object is, else 0."""

    rgb_HW3: Pixels
    mask_HW: Pixels

    def box_4(self) -> npt.NDArray[np.float32]:
        """Return the object's box x0 y0 x1 y1 in pixels, x1 and y1 just outside. Raises DataError without an object."""
        rows, columns = (np.flatnonzero(self.mask_HW.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            raise DataError("the cut-out has no opaque pixel")
        return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeSplit:
    """Cut-outs and photos of one side. Every cut-out stands in `per_cutout` composites."""

    split: str
    cutouts: tuple[Path, ...]
    photos: tuple[Path, ...]
    per_cutout: int

    def __len__(self) -> int:
        return len(self.cutouts) * self.per_cutout

    def cutout(self, index: int) -> Path:
        """Return the file of the object in a composite."""
        return self.cutouts[index // self.per_cutout]

    def name(self, index: int) -> str:
        return f"{self.cutout(index).stem}-{index % self.per_cutout}"

    def make(self, index: int) -> Composite:
        """Return a composite, drawn from its cut-out's name and its number alone. Raises DataError."""
        path = self.cutout(index)
        rng = rng_for(0, index % self.per_cutout, path.stem, f"composites {self.split}")
        background = _square(read_image(self.photos[int(rng.integers(len(self.photos)))]), rng)
        return _pasted(_read_cutout(path), background, rng)


def is_composites(data: Path) -> bool:
    """Return whether a folder has the cut-outs and photos that composites are made of."""
    return all((data / name).is_dir() for name in FOLDERS)


def open_composites(data: Path, splits: Sequence[str], *, per_cutout: int) -> list[CompositeSplit]:
    """Return "train" or "trainval" (two of three cut-outs and photos) and "test" (every third).

    Reads the headers of all files. Raises UsageError for another split, DataError for too few or unfit files.
    """
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise UsageError(f"{data}: composites have no split {unknown[0]}. Allowed: {', '.join(SPLITS)}.")
    cutouts, photos = (_files(data / name) for name in FOLDERS)
    _check_headers(data, cutouts, photos)
    return [
        CompositeSplit(split=split, cutouts=_side(cutouts, split), photos=_side(photos, split), per_cutout=per_cutout)
        for split in (SPLITS[name] for name in splits)
    ]


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(found) < 3:
        raise DataError(f"{folder}: {len(found)} images; need at least 3, of which one is kept for the test split.")
    return found


def _side(files: Sequence[Path], split: str) -> tuple[Path, ...]:
    return tuple(path for index, path in enumerate(files) if (index % 3 == 2) == (split == "test"))


def _check_headers(data: Path, cutouts: Sequence[Path], photos: Sequence[Path]) -> None:
    """Raise one DataError for all files that are no images, or cut-outs without alpha."""
    wrong = [str(path) for path in cutouts if _mode(path) != "RGBA"]
    wrong += [str(path) for path in photos if _mode(path) is None]
    if wrong:
        raise DataError(
            f"{data}: {len(wrong)} of {len(cutouts) + len(photos)} files are unfit: {', '.join(wrong[:MOST_SHOWN])}. "
            "A cut-out is a PNG of red, green, blue and alpha with 8 bits each, a photo any image. Take the others out."
        )


def _mode(path: Path) -> str | None:
    """Return Pillow's name of the kind of pixels, from the file's header; None if that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _read_cutout(path: Path) -> Pixels:
    rgba = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if rgba is None or rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.dtype != np.uint8:
        raise DataError(f"{path}: no image of 8 bits with alpha. A cut-out is a PNG of red, green, blue and alpha.")
    return np.asarray(rgba[..., [2, 1, 0, 3]], dtype=np.uint8)


def _square(photo_HW3: Pixels, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a random square of the photo at SIDE_PX, float32."""
    height, width = photo_HW3.shape[:2]
    side = min(height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = photo_HW3[top : top + side, left : left + side]
    return cv2.resize(crop, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)


def _pasted(cutout_HW4: Pixels, background_HW3: npt.NDArray[np.float32], rng: np.random.Generator) -> Composite:
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
    return Composite(rgb_HW3=np.round(image).astype(np.uint8), mask_HW=mask_HW)
