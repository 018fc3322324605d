"""Evaluations by name: one file here and one line below is all a new one needs."""

from benchmarks.evaluations import linear_probe, pixel_floor
from benchmarks.evaluations.base import Evaluation

__all__ = ["EVALUATIONS", "Evaluation"]

EVALUATIONS: dict[str, Evaluation] = {
    "linear_probe": linear_probe.EVALUATION,
    "pixel_floor": pixel_floor.EVALUATION,
}
