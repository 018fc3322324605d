"""Composites as images with masks: object against background."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluations.composites import CompositeSplit, open_composites
from benchmarks.evaluations.dense.masked_images import MaskedImage, MaskedSplit

__all__ = ["open_composite_masks"]


def open_composite_masks(data: Path, splits: Sequence[str], *, per_cutout: int) -> list[MaskedSplit]:
    """Return the splits; composites of one cut-out are a group. Raises UsageError or DataError."""
    return [_masked(split) for split in open_composites(data, splits, per_cutout=per_cutout)]


def _masked(split: CompositeSplit) -> MaskedSplit:
    def read(index: int) -> MaskedImage:
        made = split.make(index)
        return MaskedImage(rgb_HW3=made.rgb_HW3, mask_HW=made.mask_HW)

    rows = range(len(split))
    return MaskedSplit(
        names=tuple(split.name(row) for row in rows),
        groups=tuple(split.cutout(row).stem for row in rows),
        class_names=("background", "object"),
        read=read,
    )
