"""Evaluations of a trunk, by name: a trained trunk and labelled images come in, percentages go out.

A new evaluation is one file here and one line below.
"""

from benchmarks.evaluations.base import Evaluation
from benchmarks.evaluations.floors import pixel_floor
from benchmarks.evaluations.probes import knn, linear_probe

__all__ = ["EVALUATIONS", "Evaluation"]

EVALUATIONS: dict[str, Evaluation] = {
    "linear_probe": linear_probe.EVALUATION,
    "knn": knn.EVALUATION,
    "pixel_floor": pixel_floor.EVALUATION,
}
