"""Images with boxes, read lazily: a folder in VOC or COCO layout, or composites, in; images with checked boxes out.

Boxes are float32 (K, 4), x0 y0 x1 y1 in pixels of the stored image, from 0, with x1 and y1 just outside: a box over the
whole image is 0 0 width height. `ignored` boxes (VOC: difficult, COCO: iscrowd) are not trained on and count neither as
found nor as missed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from benchmarks.evaluations.image_files import read_image
from pipelines.base.errors import DataError

__all__ = ["BoxedImage", "BoxedSplit", "check_classes", "checked_split"]

Pixels = npt.NDArray[np.uint8]
MOST_SHOWN = 5
SLACK_PX = 1.0
"""Boxes may leave the image by this much, as many published ones do, and are then cut at its border."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedImage:
    """One image and its boxes. `classes_K`: int64 index into the split's class names."""

    name: str
    path: Path
    boxes_K4: npt.NDArray[np.float32]
    classes_K: npt.NDArray[np.int64]
    ignored_K: npt.NDArray[np.bool_]
    make: Callable[[], Pixels] | None = None
    """Makes the pixels of a composite; None where they are in the file."""

    def read(self) -> Pixels:
        """Return uint8 RGB (H, W, 3). Raises DataError for a file that cannot be decoded."""
        return read_image(self.path) if self.make is None else self.make()


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedSplit:
    """Images of a split in their order, and the names of the classes."""

    images: tuple[BoxedImage, ...]
    class_names: tuple[str, ...]

    @property
    def num_boxes(self) -> int:
        """Number of boxes that are not ignored."""
        return sum(int((~image.ignored_K).sum()) for image in self.images)


def checked_split(images: Sequence[BoxedImage], class_names: Sequence[str], *, where: str) -> BoxedSplit:
    """Return the split with boxes cut at the images' borders. One DataError names all files and boxes that are unfit.

    Reads the header of every image file, and no pixels.
    """
    problems = [problem for image in images for problem in _problems(image)]
    if problems:
        raise DataError(
            f"{where}: {len(problems)} images or boxes are unfit: {'; '.join(problems[:MOST_SHOWN])}. "
            "Correct the annotations, or take these images out of the split."
        )
    if not any((~image.ignored_K).any() for image in images):
        raise DataError(f"{where}: {len(images)} images without a box that counts; need at least one.")
    cut = []
    for image in images:
        width, height = _size(image.path) or (0, 0)
        boxes_K4 = np.clip(image.boxes_K4, 0, np.array([width, height, width, height], dtype=np.float32))
        cut.append(replace(image, boxes_K4=boxes_K4))
    return BoxedSplit(images=tuple(cut), class_names=tuple(class_names))


def _problems(image: BoxedImage) -> Iterator[str]:
    size = _size(image.path)
    if size is None:
        yield f"{image.path} is missing or no image"
        return
    width, height = size
    for box in image.boxes_K4.tolist():
        x0, y0, x1, y1 = box
        # NaN fails every comparison.
        has_area = x1 > x0 and y1 > y0
        inside = x0 >= -SLACK_PX and y0 >= -SLACK_PX and x1 <= width + SLACK_PX and y1 <= height + SLACK_PX
        if not (has_area and inside):
            shown = " ".join(f"{value:g}" for value in box)
            yield f"{image.name} has the box {shown} (x0 y0 x1 y1) in an image of {width} x {height}"


def _size(path: Path) -> tuple[int, int] | None:
    """Return width and height from the file's header; None if that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def check_classes(train: BoxedSplit, test: BoxedSplit, *, where: str) -> None:
    """Raise DataError where the two splits have other classes, or the test split boxes of a class never trained on."""
    if train.class_names != test.class_names:
        differing = sorted(set(train.class_names) ^ set(test.class_names))
        raise DataError(
            f"{where}: the splits name other classes: {', '.join(differing[:MOST_SHOWN])} in one of them only. "
            "Both need the same classes."
        )
    trained = {int(index) for image in train.images for index in image.classes_K[~image.ignored_K]}
    tested = {int(index) for image in test.images for index in image.classes_K[~image.ignored_K]}
    if unknown := sorted(train.class_names[index] for index in tested - trained):
        raise DataError(
            f"{where}: no box of {', '.join(unknown[:MOST_SHOWN])} in the train split, but some in the test split. "
            "Give train images of these classes, or take them out of the test split."
        )
