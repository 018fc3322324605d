"""Clips with exact motion masks for the tests: made pictures and those of the shared data, put together by
benchmarks/studies/throughput/composites.py, whose names are to be had here, too.
"""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.studies.throughput.composites import (
    Composite,
    MadeCameraPath,
    camera_homographies,
    cell_means,
    compose,
    iou,
    random_composite,
)

__all__ = [
    "MadeCameraPath",
    "Composite",
    "camera_homographies",
    "cell_means",
    "compose",
    "cutout",
    "iou",
    "photo",
    "random_composite",
    "shared_images",
]

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def photo(seed: int, height: int = 288, width: int = 384) -> np.ndarray:
    """A made picture, uint8 RGB: noise at many scales and some blocks, textured everywhere and nowhere repeating."""
    rng = np.random.default_rng([seed, 0])
    image = np.zeros((height, width, 3), np.float32)
    for spread in (1.5, 4.0, 12.0):
        noise = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), spread)
        image += noise / noise.std()
    for _ in range(12):
        y, x = rng.integers(0, (height - 40, width - 40))
        image[y : y + rng.integers(10, 40), x : x + rng.integers(10, 40)] += rng.normal(0, 2, 3)
    return np.clip(128 + 25 * image, 0, 255).astype(np.uint8)


def cutout(seed: int, side: int = 96) -> np.ndarray:
    """A textured square, uint8 RGBA."""
    opaque = np.full((side, side, 1), 255, np.uint8)
    return np.concatenate([photo(seed, side, side), opaque], axis=2)


def shared_images(archive: str, start: int, stop: int) -> list[np.ndarray]:
    """RGB(A) images start to stop of a tar of the shared data, in name order; [] where the data is absent."""
    path = SHARED_DATA / archive
    if not path.is_file():
        return []
    with tarfile.open(path) as tar:
        members = sorted((m for m in tar if m.name.endswith((".jpg", ".png"))), key=lambda m: m.name)
        return [_decode(tar.extractfile(member).read()) for member in members[start:stop]]


def _decode(encoded: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(io.BytesIO(encoded).getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
    code = cv2.COLOR_BGRA2RGBA if image.shape[-1] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(image, code)
