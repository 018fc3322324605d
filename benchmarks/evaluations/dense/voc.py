"""PASCAL VOC's segmentation masks: SegmentationClass/NAME.png beside JPEGImages/NAME.jpg in, masked images out."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluations.dense.masked_images import MaskedSplit, split_of_files
from pipelines.base.errors import UsageError

__all__ = ["VOC_CLASSES", "VOC_MASKS_NEED", "is_voc_masks", "open_voc_masks"]

VOC_MASKS_NEED = (
    "VOC: JPEGImages, SegmentationClass, ImageSets/Segmentation. Unpack VOCtrainval_11-May-2012.tar of "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and give VOCdevkit/VOC2012, with test_split: val"
)
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def is_voc_masks(data: Path) -> bool:
    """Return whether a folder has VOC's folder of masks."""
    return (data / "SegmentationClass").is_dir()


def open_voc_masks(data: Path, splits: Sequence[str]) -> list[MaskedSplit]:
    """Return splits of VOC's SegmentationClass masks: 21 classes, 255 at borders. Raises UsageError or DataError."""
    opened = []
    for split in splits:
        listed = data / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listed.is_file():
            there = ", ".join(sorted(other.stem for other in listed.parent.glob("*.txt"))[:20])
            raise UsageError(
                f"{data}: has no split {split} ({listed}). There are: {there or 'none'}. {VOC_MASKS_NEED}."
            )
        names = listed.read_text(encoding="utf-8").split()
        pairs = [(data / f"JPEGImages/{name}.jpg", data / f"SegmentationClass/{name}.png") for name in names]
        opened.append(split_of_files(names, names, pairs, VOC_CLASSES, where=str(listed), convert=lambda mask: mask))
    return opened
