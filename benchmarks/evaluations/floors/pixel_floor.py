"""Pixel floor: accuracy of ridge regression on tiny images. A trunk that is not above it has learned nothing useful.

Images as the linear probe sees them, averaged down to 24 x 24 RGB; ridge on one-hot answers with a free bias, closed
form, penalty chosen like the linear probe's, but by squared error: on a held-out fifth of the train split, with few
labels on all fifths in turn.
"""

import cv2
import numpy as np
from pydantic import Field

from benchmarks.evaluations.base import Context, Evaluation, Results, check_labelled
from benchmarks.evaluations.floors.ridge import Canvas, Floats, FloorConfig, run_floor

__all__ = ["EVALUATION", "PixelFloorConfig", "run"]


class PixelFloorConfig(FloorConfig):
    """Options of the pixel floor."""

    side_px: int = Field(default=24, ge=1)
    """Side of the tiny image; cost grows with its sixth power (features cubed)."""
    l2_grid: list[float] = Field(default_factory=lambda: [0.001, 0.01, 0.1, 1.0, 10.0, 100.0], min_length=1)
    """Values the ridge penalty, relative to the mean squared pixel, is chosen from."""


def run(context: Context, config: PixelFloorConfig) -> Results:
    """Return results named like the linear probe's. Raises UsageError or DataError."""
    return run_floor(context, config, lambda canvas: _tiny_image(canvas, config.side_px))


def _tiny_image(canvas_SS3: Canvas, side_px: int) -> Floats:
    """Return pixels in [0, 1], (side * side * 3,)."""
    tiny = cv2.resize(canvas_SS3, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(tiny.ravel() / 255.0, dtype=np.float64)


EVALUATION = Evaluation(config_class=PixelFloorConfig, run=run, check=check_labelled, needs_trunk=False)
