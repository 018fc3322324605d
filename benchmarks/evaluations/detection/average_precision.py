"""Average precision of detections: by the rule of the VOC devkit, and by COCO's (torchmetrics, faster-coco-eval).

Boxes x0 y0 x1 y1 in pixels, x1 and y1 just outside, so that an area is a plain product; the devkit adds 1 to the sides
of boxes whose corners are inside, which is the same. N detections of a class, over all images. K boxes of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Detections", "Truth", "area_ap", "coco_results", "eleven_point_ap", "precision_recall", "voc_results"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Detections in one image: boxes float32 (K, 4), scores float32 (K,), classes int64 (K,)."""

    boxes_K4: npt.NDArray[np.float32]
    scores_K: npt.NDArray[np.float32]
    classes_K: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """True boxes of one image: float32 (K, 4), classes int64 (K,), and which are ignored, bool (K,)."""

    boxes_K4: npt.NDArray[np.float32]
    classes_K: npt.NDArray[np.int64]
    ignored_K: npt.NDArray[np.bool_]


def overlaps(box_4: npt.NDArray[np.float32], boxes_K4: npt.NDArray[np.float32]) -> Floats:
    """Return intersection over union of one box with each of K, float64 (K,)."""
    one, many = box_4.astype(np.float64), boxes_K4.astype(np.float64)
    sides_K2 = np.clip(np.minimum(one[2:], many[:, 2:]) - np.maximum(one[:2], many[:, :2]), 0, None)
    shared_K = sides_K2.prod(axis=1)
    union_K = (one[2:] - one[:2]).prod() + (many[:, 2:] - many[:, :2]).prod(axis=1) - shared_K
    return np.asarray(shared_K / np.maximum(union_K, 1e-12))


def precision_recall(
    detections: Sequence[Detections], truths: Sequence[Truth], class_index: int, *, least_overlap: float
) -> tuple[Floats, Floats]:
    """Return precision and recall (N,) of one class after each detection, by falling score. Empty without true boxes.

    The devkit's rule: a detection belongs to the true box it overlaps most. It counts as right if they overlap enough
    and no better-scored one had that box, as wrong otherwise, and not at all if the box is an ignored one.
    """
    rows = [
        (float(found.scores_K[k]), image, k)
        for image, found in enumerate(detections)
        for k in np.flatnonzero(found.classes_K == class_index)
    ]
    # sorted() is stable: of equal scores the earlier image comes first, as in the devkit.
    rows.sort(key=lambda row: -row[0])
    of_class = [np.flatnonzero(truth.classes_K == class_index) for truth in truths]
    num_true = sum(int((~truth.ignored_K[own]).sum()) for truth, own in zip(truths, of_class, strict=True))
    if num_true == 0:
        return np.empty(0), np.empty(0)
    is_taken = [np.zeros(len(own), dtype=bool) for own in of_class]
    right, wrong = np.zeros(len(rows)), np.zeros(len(rows))
    for number, (_, image, k) in enumerate(rows):
        truth, own = truths[image], of_class[image]
        overlap_K = overlaps(detections[image].boxes_K4[k], truth.boxes_K4[own])
        best = int(overlap_K.argmax()) if len(own) else -1
        if best < 0 or overlap_K[best] < least_overlap:
            wrong[number] = 1
        elif not truth.ignored_K[own[best]]:
            (wrong if is_taken[image][best] else right)[number] = 1
            is_taken[image][best] = True
    found_N, false_N = np.cumsum(right), np.cumsum(wrong)
    # Detections of ignored boxes before any other: neither right nor wrong, and no precision yet.
    precision_N = np.divide(found_N, found_N + false_N, out=np.zeros(len(rows)), where=found_N + false_N > 0)
    return precision_N, found_N / num_true


def eleven_point_ap(precision_N: Floats, recall_N: Floats) -> float:
    """Return AP of VOC 2007: mean over recalls 0, 0.1, ... 1 of the best precision at that recall or more."""
    best = [precision_N[recall_N >= level].max(initial=0.0) for level in np.linspace(0, 1, 11)]
    return float(np.mean(best))


def area_ap(precision_N: Floats, recall_N: Floats) -> float:
    """Return AP of VOC from 2010 on: the area under precision, made falling from the right, over recall."""
    envelope_N = np.maximum.accumulate(precision_N[::-1])[::-1]
    return float((np.diff(recall_N, prepend=0.0) * envelope_N).sum())


def voc_results(
    detections: Sequence[Detections], truths: Sequence[Truth], class_names: Sequence[str]
) -> dict[str, float | dict[str, float]]:
    """Return ap50_11_point_pct, ap50_area_pct: means over the classes that have true boxes; and the second by class."""
    eleven, area = {}, {}
    for index, name in enumerate(class_names):
        if any((truth.classes_K[~truth.ignored_K] == index).any() for truth in truths):
            curve = precision_recall(detections, truths, index, least_overlap=0.5)
            eleven[name], area[name] = 100 * eleven_point_ap(*curve), 100 * area_ap(*curve)
    return {
        "ap50_11_point_pct": sum(eleven.values()) / len(eleven),
        "ap50_area_pct": sum(area.values()) / len(area),
        "ap50_area_by_class_pct": area,
    }


def coco_results(detections: Sequence[Detections], truths: Sequence[Truth]) -> dict[str, float]:
    """Return ap50_95_pct, ap50_pct and ap75_pct by COCO's rule, at most 100 detections an image.

    Ignored boxes are COCO's crowds. All detections are held in memory: 2.4 KB an image.
    """
    # Imported here: it takes seconds, which every command that knows the evaluation would wait for.
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox", backend="faster_coco_eval")
    for found, truth in zip(detections, truths, strict=True):
        predicted = {
            "boxes": torch.from_numpy(found.boxes_K4),
            "scores": torch.from_numpy(found.scores_K),
            "labels": torch.from_numpy(found.classes_K),
        }
        target = {
            "boxes": torch.from_numpy(truth.boxes_K4),
            "labels": torch.from_numpy(truth.classes_K),
            "iscrowd": torch.from_numpy(truth.ignored_K.astype(np.int64)),
        }
        metric.update([predicted], [target])
    values = metric.compute()
    names = {"ap50_95_pct": "map", "ap50_pct": "map_50", "ap75_pct": "map_75"}
    return {name: 100 * float(values[theirs]) for name, theirs in names.items()}
