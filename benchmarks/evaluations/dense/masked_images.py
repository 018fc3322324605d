"""Images with label masks, read lazily. A mask is uint8 (H, W) of the image's size: class index, or 255 for ignored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from benchmarks.evaluations.dense.iou import IGNORED
from benchmarks.evaluations.image_files import read_image
from pipelines.base.errors import DataError, UsageError

__all__ = ["MaskedImage", "MaskedSplit", "open_davis", "open_voc_masks", "read_mask"]

Mask = npt.NDArray[np.uint8]
MOST_SHOWN = 5
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


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


def open_voc_masks(data: Path, splits: Sequence[str]) -> list[MaskedSplit]:
    """Return splits of VOC's SegmentationClass masks: 21 classes, 255 at borders. Raises UsageError or DataError."""
    opened = []
    for split in splits:
        listed = data / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listed.is_file():
            raise UsageError(
                f"{data}: has no split {split} ({listed}). VOC layout needs JPEGImages, SegmentationClass and "
                "ImageSets/Segmentation: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/."
            )
        names = listed.read_text(encoding="utf-8").split()
        pairs = [(data / f"JPEGImages/{name}.jpg", data / f"SegmentationClass/{name}.png") for name in names]
        opened.append(_split_of(names, names, pairs, VOC_CLASSES, where=str(listed), convert=lambda mask: mask))
    return opened


def open_davis(data: Path, splits: Sequence[str]) -> list[MaskedSplit]:
    """Return single frames of DAVIS: object against background; whole sequences are in one split.

    SPLIT.txt names the sequences of a split, one a line, in the folder or in ImageSets; without such files every third
    sequence, by name, is "test" and the others are "train". Raises UsageError or DataError.
    """
    images, masks = (_resolution(data / name) for name in ("JPEGImages", "Annotations"))
    sequences = sorted(folder.name for folder in images.iterdir() if folder.is_dir())
    opened = []
    for split in splits:
        own = _sequences(data, split, sequences)
        if missing := [one for one in own if not (images / one).is_dir() or not (masks / one).is_dir()]:
            raise DataError(f"{data}: sequence {missing[0]} of split {split} has no images or no masks.")
        frames = [path for one in own for path in sorted((images / one).glob("*.jpg"))]
        pairs = [(path, masks / path.parent.name / f"{path.stem}.png") for path in frames]
        names = [f"{path.parent.name}/{path.stem}" for path in frames]
        groups = [path.parent.name for path in frames]
        # Instances have numbers of their own; any of them is object.
        where = f"{data}, split {split}"
        opened.append(_split_of(names, groups, pairs, ("background", "object"), where=where, convert=_any_object))
    return opened


def _any_object(mask_HW: Mask) -> Mask:
    labels_HW = np.minimum(mask_HW, 1)
    labels_HW[mask_HW == IGNORED] = IGNORED
    return labels_HW


def _resolution(folder: Path) -> Path:
    """Return the folder of sequences: DAVIS has one of the resolution, such as 480p, between."""
    if not folder.is_dir():
        raise UsageError(
            f"{folder.parent}: has no folder {folder.name}. DAVIS layout needs JPEGImages/SEQUENCE/*.jpg and "
            "Annotations/SEQUENCE/*.png: https://davischallenge.org/."
        )
    return next((inner for inner in (folder / "480p", folder / "1080p") if inner.is_dir()), folder)


def _sequences(data: Path, split: str, there: Sequence[str]) -> list[str]:
    lists = [data / f"{split}.txt", *sorted(data.glob(f"ImageSets/*/{split}.txt"))]
    for path in lists:
        if path.is_file():
            return path.read_text(encoding="utf-8").split()
    if split in ("train", "test") and len(there) >= 2:
        return [
            name
            for index, name in enumerate(there)
            if (index % 3 == 2 or (len(there) == 2 and index)) == (split == "test")
        ]
    raise UsageError(f"{data}: nothing says which sequences are split {split}. Add {split}.txt with a name per line.")


def _split_of(
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
