"""A canvas as the examples of most loaders make it: Pillow decodes, torchvision crops and resizes."""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["pillow_canvas"]


def pillow_canvas(encoded: bytes, box: npt.NDArray[np.int32], canvas_px: int) -> npt.NDArray[np.uint8]:
    """uint8 RGB (S, S, 3) from an image's bytes and x0, y0, x1, y1: linear, antialiased when shrinking."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as vision

    x0, y0, x1, y1 = box.tolist()
    image: Any = Image.open(BytesIO(encoded)).convert("RGB")
    size = [canvas_px, canvas_px]
    canvas = vision.resized_crop(image, y0, x0, y1 - y0, x1 - x0, size, InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(canvas, np.uint8)
