"""Images with label masks, read lazily. A mask is uint8 (H, W) of the image's size: class index, or 255 for ignored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from benchmarks.evaluations.dense.iou import IGNORED
from benchmarks.evaluations.image_files import read_image
from pipelines.base.errors import DataError

__all__ = ["Mask", "MaskedImage", "MaskedSplit", "read_mask", "split_of_files"]

Mask = npt.NDArray[np.uint8]
MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedImage:
    """`rgb_HW3`: uint8 RGB. `mask_HW`: uint8 class index, 255 for ignored."""

    rgb_HW3: npt.NDArray[np.uint8]
    mask_HW: Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedSplit:
    """Names of the images of a split in their order; read(index) decodes or makes one. `groups`: images of one group
    (a video, a cut-out) are alike, and stay on one side of a held-out fold."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    class_names: tuple[str, ...]
    read: Callable[[int], MaskedImage]


def split_of_files(
    names: Sequence[str],
    groups: Sequence[str],
    pairs: Sequence[tuple[Path, Path]],
    class_names: Sequence[str],
    *,
    where: str,
    convert: Callable[[Mask], Mask],
) -> MaskedSplit:
    """Return a split of files. Raises DataError where it is empty, or files are missing or of unequal sizes."""
    if not names:
        raise DataError(f"{where}: names no image.")
    wrong = [problem for image, mask in pairs if (problem := _problem(image, mask)) is not None]
    if wrong:
        raise DataError(
            f"{where}: {len(wrong)} of {len(names)} images are unfit: {'; '.join(wrong[:MOST_SHOWN])}. "
            "Correct them, or take them out of the split."
        )

    def read(index: int) -> MaskedImage:
        image, mask = pairs[index]
        mask_HW = convert(read_mask(mask))
        if (highest := int(np.where(mask_HW == IGNORED, 0, mask_HW).max())) >= len(class_names):
            raise DataError(f"{mask}: has class {highest}; need 0 to {len(class_names) - 1}, or 255 for ignored.")
        return MaskedImage(rgb_HW3=read_image(image), mask_HW=mask_HW)

    return MaskedSplit(names=tuple(names), groups=tuple(groups), class_names=tuple(class_names), read=read)


def _problem(image: Path, mask: Path) -> str | None:
    """Return what is wrong with a pair, by the headers of its files."""
    sizes = []
    for path in (image, mask):
        try:
            with Image.open(path) as opened:
                sizes.append(opened.size)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            return f"{path} is missing or no image"
    return None if sizes[0] == sizes[1] else f"{mask} is {sizes[1]}, its image {sizes[0]} (width, height)"


def read_mask(path: Path) -> Mask:
    """Return the stored numbers of a mask, uint8 (H, W): palette indices, gray values, or 0 and 1. Raises DataError."""
    # Pillow, not OpenCV, which turns palette indices into colors.
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise DataError(
                    f"{path}: an image of mode {image.mode}; a mask has one channel of 8 bits or a palette."
                )
            return np.asarray(image).astype(np.uint8)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError(f"{path}: cannot be decoded ({error}). Replace the file or take its name out.") from error
