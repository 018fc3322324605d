"""What all canvases are compared with, made by the plainest code there is: Pillow alone, one image after the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["write_reference"]


def write_reference(images: Sequence[Path], boxes_N4: npt.NDArray[np.int32], canvas_px: int, out: Path) -> None:
    """uint8 RGB (N, S, S, 3) as .npy: each box cut out, then resized, linear and antialiased."""
    shape = (len(images), canvas_px, canvas_px, 3)
    open_memmap: Any = np.lib.format.open_memmap  # not typed in every release of NumPy
    canvases = open_memmap(out, "w+", np.uint8, shape)
    for path, box, canvas in zip(images, boxes_N4.tolist(), canvases, strict=True):
        with Image.open(path) as image:
            part = image.convert("RGB").crop(tuple(box))
        canvas[:] = np.asarray(part.resize((canvas_px, canvas_px), Image.Resampling.BILINEAR))
    canvases.flush()
