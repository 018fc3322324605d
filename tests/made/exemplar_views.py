"""Canvases and geometry for tests of exemplar's views."""

import cv2
import numpy as np
import torch

from pipelines.tasks.base import Geometry

__all__ = ["one_view", "photos"]


def photos(count: int, side_px: int = 96) -> torch.Tensor:
    """Smooth random colors."""
    small = np.random.default_rng(5).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return torch.from_numpy(np.stack([cv2.resize(one, (side_px, side_px)) for one in small]))


def one_view(**numbers: object) -> Geometry:
    """Geometry of one view that changes nothing but what is given; leading axis 1."""
    neutral: dict[str, object] = {
        "centre_xy": (48, 48),
        "scale": 1,
        "rotation_deg": 0,
        "pca_factor": (1, 1, 1),
        "power": (1, 1),
        "factor": (1, 1),
        "shift": (0, 0),
        "hue_shift": 0,
    }
    return {name: np.array([value], dtype=np.float64) for name, value in (neutral | numbers).items()}
