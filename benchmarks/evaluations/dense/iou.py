"""Intersection over union of label images, by class, pooled over all pixels of all images."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["IGNORED", "ConfusionMatrix"]

IGNORED = 255
"""Label of pixels that count nowhere, as VOC's borders."""


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column)."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def add(self, predicted: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> None:
        """Count the pixels of one image; arrays of equal shape, labels below the number of classes or IGNORED."""
        num_classes, is_known = len(self.counts), truth != IGNORED
        pairs = truth[is_known].astype(np.int64) * num_classes + predicted[is_known]
        self.counts += np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)

    def iou_pct(self) -> list[float | None]:
        """Return 100 * intersection / union of every class; None for a class that is neither true nor predicted."""
        shared = np.diag(self.counts)
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - shared
        return [100 * float(one / all_) if all_ else None for one, all_ in zip(shared, union, strict=True)]

    def results(self, class_names: Sequence[str]) -> dict[str, object]:
        """Return mean_iou_pct over the classes that are true or predicted, iou_by_class_pct and pixel_accuracy_pct."""
        by_class = {name: one for name, one in zip(class_names, self.iou_pct(), strict=True) if one is not None}
        return {
            "mean_iou_pct": sum(by_class.values()) / max(len(by_class), 1),
            "iou_by_class_pct": by_class,
            "pixel_accuracy_pct": 100 * float(np.trace(self.counts)) / max(int(self.counts.sum()), 1),
        }
