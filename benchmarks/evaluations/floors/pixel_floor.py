"""Pixel floor: accuracy of ridge regression on tiny images. A trunk that is not above it has learned nothing useful.

Images as the linear probe sees them, averaged down to 24 x 24 RGB; ridge on one-hot answers with a free bias, closed
form, penalty chosen like the linear probe's, but by squared error: on a held-out fifth of the train split, with few
labels on all fifths in turn.
"""

from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from benchmarks.evaluations.base import Context, Evaluation, Int64s, Results, check_labelled
from benchmarks.evaluations.floors.ridge import Floats, floor_results
from pipelines.base.config import Config
from pipelines.run.canvases import evaluation_canvases
from pipelines.shards.format.manifest import load_manifest

__all__ = ["EVALUATION", "PixelFloorConfig", "run"]


class PixelFloorConfig(Config):
    """Options of the pixel floor."""

    canvas_px: int = Field(default=256, ge=16)
    """Side of the square cut from the image, before averaging. A suite takes the pretraining's if not given."""
    side_px: int = Field(default=24, ge=1)
    """Side of the tiny image; cost grows with its sixth power (features cubed)."""
    labels_per_class: list[int] = Field(default_factory=lambda: [20])
    """Also with only so many labels per class, each the mean of `num_draws` draws."""
    num_draws: int = Field(default=3, ge=1)
    """Cost of every entry of `labels_per_class` grows with it."""
    l2_grid: list[float] = Field(default_factory=lambda: [0.001, 0.01, 0.1, 1.0, 10.0, 100.0], min_length=1)
    """Values the ridge penalty, relative to the mean squared pixel, is chosen from."""


def run(context: Context, config: PixelFloorConfig) -> Results:
    """Return results named like the linear probe's. Raises UsageError or DataError."""
    images = context.the_images()
    train_ND, train_labels_N = _tiny_images(images, context.train_split, config)
    test_ND, test_labels_N = _tiny_images(images, context.test_split, config)
    return floor_results(train_ND, train_labels_N, test_ND, test_labels_N, config)


def _tiny_images(images: Path, split: str, config: PixelFloorConfig) -> tuple[Floats, Int64s]:
    """Return pixels in [0, 1], (N, side * side * 3), and labels (N,)."""
    table = load_manifest(images).select("image", split)
    rows, labels = [], []
    size = (config.side_px, config.side_px)
    for batch in evaluation_canvases(table, canvas_px=config.canvas_px, batch_size=64):
        for canvas in batch.pixels.numpy():
            rows.append(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).ravel() / 255.0)
        labels.append(np.asarray(batch.labels, dtype=np.int64))
    return np.stack(rows), np.concatenate(labels)


EVALUATION = Evaluation(config_class=PixelFloorConfig, run=run, check=check_labelled, needs_trunk=False)
