"""Hand-made cut-outs, magenta rectangles with alpha, and gray photos to paste them on."""

from pathlib import Path

import cv2
import numpy as np


def write_cutouts(folder: Path) -> Path:
    """Write six of each; two of six are test."""
    for part in ("cutouts", "photos"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(6):
        cutout = np.zeros((40, 30, 4), np.uint8)
        cutout[5:35, 5:25] = (255, 0, 255, 255)
        cv2.imwrite(str(folder / f"cutouts/c{index}.png"), cutout)
        cv2.imwrite(str(folder / f"photos/p{index}.jpg"), rng.integers(60, 120, (80, 100, 3)).astype(np.uint8))
    return folder
