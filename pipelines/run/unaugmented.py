"""Samples without augmentation, for measuring: the centre square of every image, not mirrored, alike in every pass."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.read.sample_plan import PickedSamples
from pipelines.run.sample_source import SampleSource
from pipelines.tasks.base import Geometry

__all__ = ["UnaugmentedSource", "centre_boxes"]

Int64s = npt.NDArray[np.int64]


def centre_boxes(width_B: Int64s, height_B: Int64s) -> npt.NDArray[np.int32]:
    """Return the largest centred square of each image as x0, y0, x1, y1 in pixels, ends excluded: int32 (B, 4)."""
    side = np.minimum(width_B, height_B)
    x0, y0 = (width_B - side) // 2, (height_B - side) // 2
    return np.stack([x0, y0, x0 + side, y0 + side], axis=1).astype(np.int32)


class UnaugmentedSource(SampleSource):
    """Sample source without augmentation. A task's own draws, such as which patches to compare, stay."""

    def _common_geometry(self, picks: PickedSamples, *_: Any) -> Geometry:
        table, rows = self.table, picks.rows
        # No epoch in it, so that every pass gives the same pixels, and an evaluation the same number.
        geometry: Geometry = {"label": table.label[rows], "flip": np.zeros(len(rows), bool)}
        if table.kind == "image":
            geometry["box"] = centre_boxes(table.width[rows], table.height[rows])
        return geometry
