"""Canvases as the examples of most loaders make them: Pillow decodes, torchvision crops and resizes.

torchvision is imported here and not where it is used: worker processes are forks, and one that has to import it for
itself starts some seconds later.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from benchmarks.loaders.contenders.torch_workers import Collate, stacked
from benchmarks.loaders.setting import Batch, Setting

__all__ = ["CollateEncoded", "pillow_canvas"]


def pillow_canvas(encoded: bytes, box: npt.NDArray[np.int32], canvas_px: int) -> npt.NDArray[np.uint8]:
    """uint8 RGB (S, S, 3) from an image's bytes and x0, y0, x1, y1: linear, antialiased when shrinking."""
    x0, y0, x1, y1 = box.tolist()
    image: Any = Image.open(BytesIO(encoded)).convert("RGB")
    size = [canvas_px, canvas_px]
    canvas = vision.resized_crop(image, y0, x0, y1 - y0, x1 - x0, size, InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(canvas, np.uint8)


class CollateEncoded(Collate):
    """Of samples {"row": number, "jpg": bytes}, as the readers with a format of their own give them."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._boxes_N4 = setting.boxes()

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Batch:
        rows = [int(sample["row"]) for sample in samples]
        pairs = zip(rows, samples, strict=True)
        side = self._setting.canvas_px
        return self.finish(rows, stacked([pillow_canvas(one["jpg"], self._boxes_N4[row], side) for row, one in pairs]))
