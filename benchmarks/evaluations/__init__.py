"""Evaluations of a trunk, by name: a trained trunk and labelled images come in, percentages go out.

A new evaluation is one file here and one line below.
"""

from benchmarks.evaluations import linear_probe, pixel_floor
from benchmarks.evaluations.base import Evaluation

__all__ = ["EVALUATIONS", "Evaluation"]

EVALUATIONS: dict[str, Evaluation] = {
    "linear_probe": linear_probe.EVALUATION,
    "pixel_floor": pixel_floor.EVALUATION,
}
