import contextlib
import io
from typing import Any

import numpy as np
import pytest

from benchmarks.evaluations.detection.average_precision import (
    Detections,
    Truth,
    area_ap,
    coco_results,
    eleven_point_ap,
    precision_recall,
    voc_results,
)


def made_up(seed: int, num_images: int = 12) -> tuple[list[Detections], list[Truth]]:
    """Two classes; detections near true boxes, twice the same ones, and elsewhere; some true boxes are ignored."""
    rng = np.random.default_rng(seed)
    detections, truths = [], []
    for _ in range(num_images):
        count = int(rng.integers(0, 5))
        corner = rng.uniform(0, 80, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 60, (count, 2))], axis=1)
        near = np.concatenate([boxes, boxes]) + rng.normal(0, 4, (2 * count, 4))
        far = rng.uniform(0, 80, (3, 2))
        found = np.concatenate([near, np.concatenate([far, far + 20], axis=1)]).astype(np.float32)
        classes = rng.integers(0, 2, count)
        ignored = rng.random(count) < 0.2
        truths.append(Truth(boxes_K4=boxes.astype(np.float32), classes_K=classes, ignored_K=ignored))
        found_classes = np.concatenate([classes, classes, rng.integers(0, 2, 3)])
        scores = rng.permutation(1000)[: len(found)].astype(np.float32) / 1000
        detections.append(Detections(boxes_K4=found, scores_K=scores, classes_K=found_classes))
    return detections, truths


def devkit(detections: list[Detections], truths: list[Truth], cls: int, year: int) -> float:
    """VOCevaldet.m and VOCap.m line by line, on corners that count from 1 and lie inside the boxes."""
    rows = [
        (-float(d.scores_K[k]), i, d.boxes_K4[k] + np.array([1.0, 1, 0, 0]))
        for i, d in enumerate(detections)
        for k in range(len(d.scores_K))
        if d.classes_K[k] == cls
    ]
    rows.sort(key=lambda row: row[0])
    gt = [
        [
            [b + np.array([1.0, 1, 0, 0]), bool(g), False]
            for b, c, g in zip(t.boxes_K4, t.classes_K, t.ignored_K, strict=True)
            if c == cls
        ]
        for t in truths
    ]
    npos = sum(not g[1] for image in gt for g in image)
    tp, fp = [], []
    for _, i, bb in rows:
        ovmax, jmax = -np.inf, None
        for entry in gt[i]:
            bbgt = entry[0]
            bi = [max(bb[0], bbgt[0]), max(bb[1], bbgt[1]), min(bb[2], bbgt[2]), min(bb[3], bbgt[3])]
            iw, ih = bi[2] - bi[0] + 1, bi[3] - bi[1] + 1
            if iw > 0 and ih > 0:
                ua = (
                    (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                    + (bbgt[2] - bbgt[0] + 1) * (bbgt[3] - bbgt[1] + 1)
                    - iw * ih
                )
                if iw * ih / ua > ovmax:
                    ovmax, jmax = iw * ih / ua, entry
        tp.append(0.0), fp.append(0.0)
        if ovmax >= 0.5:
            if not jmax[1]:
                if not jmax[2]:
                    tp[-1], jmax[2] = 1.0, True
                else:
                    fp[-1] = 1.0
        else:
            fp[-1] = 1.0
    found, false = np.cumsum(tp), np.cumsum(fp)
    rec, prec = found / npos, found / np.maximum(found + false, 1e-12)
    if year == 2007:
        return sum((max(prec[rec >= t], default=0.0)) / 11 for t in np.arange(0, 1.01, 0.1))
    mrec, mpre = np.concatenate([[0], rec, [1]]), np.concatenate([[0], prec, [0]])
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    steps = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return float(((mrec[steps] - mrec[steps - 1]) * mpre[steps]).sum())


@pytest.mark.parametrize("seed", range(6))
def test_voc_rules_equal_the_devkit(seed: int) -> None:
    detections, truths = made_up(seed)
    results: Any = voc_results(detections, truths, ["cat", "dog"])
    for year, name in ((2007, "ap50_11_point_pct"), (2010, "ap50_area_pct")):
        wanted = 100 * np.mean([devkit(detections, truths, cls, year) for cls in (0, 1)])
        assert results[name] == pytest.approx(wanted, abs=1e-9)
        assert 20 < wanted < 95


def pycocotools_results(detections: list[Detections], truths: list[Truth]) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def sized(box: np.ndarray) -> list[float]:
        x0, y0, x1, y1 = (float(value) for value in box)
        return [x0, y0, x1 - x0, y1 - y0]

    annotations, found = [], []
    for image, (detected, truth) in enumerate(zip(detections, truths, strict=True)):
        for box, cls, ignored in zip(truth.boxes_K4, truth.classes_K, truth.ignored_K, strict=True):
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            row = {"image_id": image, "category_id": int(cls), "bbox": sized(box), "iscrowd": int(ignored)}
            annotations.append(row | {"id": len(annotations) + 1, "area": area})
        for box, cls, score in zip(detected.boxes_K4, detected.classes_K, detected.scores_K, strict=True):
            found.append({"image_id": image, "category_id": int(cls), "bbox": sized(box), "score": float(score)})
    truth_set = COCO()
    images = [{"id": image} for image in range(len(truths))]
    truth_set.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 0}, {"id": 1}]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set.createIndex()
        evaluation = COCOeval(truth_set, truth_set.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * evaluation.stats[i] for i, name in enumerate(("ap50_95_pct", "ap50_pct", "ap75_pct"))}


@pytest.mark.parametrize("seed", [0, 1])
def test_coco_rule_equals_pycocotools(seed: int) -> None:
    detections, truths = made_up(seed)
    results = coco_results(detections, truths)
    assert results == pytest.approx(pycocotools_results(detections, truths), abs=1e-3)
    assert 5 < results["ap75_pct"] < results["ap50_pct"]


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def test_hand_made_case() -> None:
    """Scores fall: right, the same box once more (wrong), an ignored box (not counted), right; one box is missed."""
    truth = Truth(
        boxes_K4=boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)),
        classes_K=np.zeros(4, dtype=np.int64),
        ignored_K=np.array([False, False, False, True]),
    )
    found = Detections(
        boxes_K4=boxes((0, 0, 10, 10), (0, 0, 10, 9), (60, 0, 70, 10), (20, 0, 30, 5)),
        scores_K=np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32),
        classes_K=np.zeros(4, dtype=np.int64),
    )
    precision, recall = precision_recall([found], [truth], 0, least_overlap=0.5)
    assert precision.tolist() == pytest.approx([1, 1 / 2, 1 / 2, 2 / 3])  # an overlap of exactly 0.5 is enough
    assert recall.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3])
    assert area_ap(precision, recall) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert eleven_point_ap(precision, recall) == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_no_detections_give_zero() -> None:
    truth = Truth(boxes_K4=boxes((0, 0, 9, 9)), classes_K=np.array([1]), ignored_K=np.array([False]))
    none = Detections(boxes_K4=boxes(), scores_K=np.empty(0, np.float32), classes_K=np.empty(0, np.int64))
    results = voc_results([none], [truth], ["cat", "dog"])
    assert results == {"ap50_11_point_pct": 0, "ap50_area_pct": 0, "ap50_area_by_class_pct": {"dog": 0}}
