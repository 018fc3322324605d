"""Evaluations of a trunk, by name: a trained trunk and labelled images come in, percentages go out.

A new evaluation is one file here and one line below.
"""

from benchmarks.evaluations.base import Evaluation
from benchmarks.evaluations.dense import evaluation as dense
from benchmarks.evaluations.depth import evaluation as depth
from benchmarks.evaluations.detection import evaluation as detection
from benchmarks.evaluations.floors import hog_floor, pixel_floor
from benchmarks.evaluations.probes import few_shot, fine_tune, knn, linear_probe, unit_probe
from benchmarks.evaluations.unlabelled import unlabelled

__all__ = ["EVALUATIONS", "Evaluation"]

EVALUATIONS: dict[str, Evaluation] = {
    "linear_probe": linear_probe.EVALUATION,
    "knn": knn.EVALUATION,
    "few_shot": few_shot.EVALUATION,
    "unit_probe": unit_probe.EVALUATION,
    "fine_tune": fine_tune.EVALUATION,
    "unlabelled": unlabelled.EVALUATION,
    "dense": dense.EVALUATION,
    "depth": depth.EVALUATION,
    "detection": detection.EVALUATION,
    "pixel_floor": pixel_floor.EVALUATION,
    "hog_floor": hog_floor.EVALUATION,
}
