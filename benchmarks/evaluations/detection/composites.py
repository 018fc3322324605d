"""Composites as images with boxes: one class, object, and the exact box of every object's mask."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.evaluations.composites import CompositeSplit, open_composites
from benchmarks.evaluations.detection.boxed_images import BoxedImage, BoxedSplit
from pipelines.base.errors import DataError

__all__ = ["open_composite_boxes"]


def open_composite_boxes(data: Path, splits: Sequence[str], *, per_cutout: int) -> list[BoxedSplit]:
    """Return the splits; every composite is made once for its box, and again when it is read (5 ms each).

    Raises UsageError or DataError.
    """
    return [
        BoxedSplit(images=tuple(_boxed(split, row) for row in range(len(split))), class_names=("object",))
        for split in open_composites(data, splits, per_cutout=per_cutout)
    ]


def _boxed(split: CompositeSplit, row: int) -> BoxedImage:
    path = split.cutout(row)
    try:
        box_4 = split.make(row).box_4()
    except DataError as error:
        raise DataError(f"{path}: {error}. Take the file out.") from error
    return BoxedImage(
        name=split.name(row),
        path=path,
        boxes_K4=box_4[None],
        classes_K=np.zeros(1, dtype=np.int64),
        ignored_K=np.zeros(1, dtype=np.bool_),
        make=partial(_pixels, split, row),
    )


def _pixels(split: CompositeSplit, row: int) -> npt.NDArray[np.uint8]:
    return split.make(row).rgb_HW3
