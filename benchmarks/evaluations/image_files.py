"""Image files of labelled data sets, decoded by OpenCV: path in, uint8 RGB out."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.base.errors import DataError

__all__ = ["read_image"]


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return an image as uint8 RGB (H, W, 3), turned by no EXIF tag: boxes and masks belong to the stored pixels.

    Raises DataError.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DataError(f"{path}: cannot be decoded as an image. Replace the file or take its name out.")
    return np.asarray(image[..., ::-1], dtype=np.uint8)
