"""PASCAL VOC layout: Annotations/NAME.xml, JPEGImages/NAME.jpg, ImageSets/Main/SPLIT.txt in, a boxed split out.

VOC counts pixels from 1 and its xmax and ymax are inside the box; one is taken from xmin and ymin.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from benchmarks.evaluations.detection.boxed_images import BoxedImage, BoxedSplit, checked_split
from pipelines.base.errors import DataError, UsageError

__all__ = ["VOC_NEEDS", "is_voc", "open_voc"]

FOLDERS = ("Annotations", "ImageSets/Main", "JPEGImages")
SOURCE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"
VOC_NEEDS = (
    f"VOC: {', '.join(FOLDERS)}. Unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar of {SOURCE} in one "
    "place and give VOCdevkit/VOC2007 (VOC2012 has no boxes of its test images: train_split: train, test_split: val)"
)
MOST_BYTES = 4 * 2**20
"""Largest annotation that is parsed. VOC's are a few kilobytes."""


class _Object(NamedTuple):
    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool


def is_voc(data: Path) -> bool:
    """Return whether a folder has any of VOC's folders."""
    return any((data / name).is_dir() for name in FOLDERS)


def open_voc(data: Path, splits: Sequence[str]) -> list[BoxedSplit]:
    """Return splits with the same class names: all that occur in any of them, sorted. Raises UsageError or DataError.

    Annotations are read at once (a few hundred bytes an image), images later.
    """
    for folder in FOLDERS:
        if not (data / folder).is_dir():
            raise UsageError(f"{data}: has no folder {folder}. {VOC_NEEDS}.")
    read = {split: {name: _objects(data, name) for name in _names(data, split)} for split in splits}
    objects = (one for images in read.values() for found in images.values() for one in found)
    class_names = sorted({one.name for one in objects})
    return [
        checked_split(
            [_boxed(data, name, found, class_names) for name, found in read[split].items()],
            class_names,
            where=f"{data}, split {split}",
        )
        for split in splits
    ]


def _names(data: Path, split: str) -> list[str]:
    path = data / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.txt"))[:20]
        raise UsageError(f"{data}: has no split {split} ({path}). There are: {', '.join(there) or 'none'}.")
    # Files of single classes have a second column.
    names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path}: names no image. Give a name per line, without .jpg.")
    return names


def _objects(data: Path, name: str) -> list[_Object]:
    path = data / "Annotations" / f"{name}.xml"
    if not path.is_file():
        raise DataError(f"{path}: missing, but {name} is in the split. Add it or take {name} out.")
    try:
        text = path.read_bytes()
        # A few lines of entity definitions can grow to gigabytes when parsed; VOC's files define none.
        if len(text) > MOST_BYTES or b"<!ENTITY" in text:
            raise ValueError("larger than 4 MiB or with entity definitions")
        return [_object(element) for element in ElementTree.fromstring(text).iter("object")]
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: no VOC annotation ({error}). Correct it or take {name} out of the split.") from error


def _object(element: ElementTree.Element) -> _Object:
    name = (element.findtext("name") or "").strip()
    corners = [element.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    if not name or None in corners:
        raise ValueError("an object lacks its name or one of xmin, ymin, xmax, ymax")
    x0, y0, x1, y1 = (float(corner or "nan") for corner in corners)
    return _Object(name, (x0 - 1, y0 - 1, x1, y1), (element.findtext("difficult") or "0").strip() == "1")


def _boxed(data: Path, name: str, objects: Sequence[_Object], class_names: Sequence[str]) -> BoxedImage:
    return BoxedImage(
        name=name,
        path=data / "JPEGImages" / f"{name}.jpg",
        boxes_K4=np.array([one.box for one in objects], dtype=np.float32).reshape(-1, 4),
        classes_K=np.array([class_names.index(one.name) for one in objects], dtype=np.int64),
        ignored_K=np.array([one.is_difficult for one in objects], dtype=np.bool_),
    )
