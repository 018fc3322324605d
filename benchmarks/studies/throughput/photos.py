"""JPEGs of one size and quality from real photos: those of a folder, or the few that come with pip packages."""

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.base.errors import UsageError

__all__ = ["write_jpegs"]

WIDTH_PX, HEIGHT_PX = 500, 375
JPEG_QUALITY = 90
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
PACKAGED = ("astronaut", "chelsea", "coffee", "rocket")

Pixels = npt.NDArray[np.uint8]


def write_jpegs(out: Path, photos: Path | None, count: int) -> None:
    """`count` files of 500 x 375 in `out`; where there are fewer photos, they come again with other crops.

    Raises UsageError if there are none.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index, rgb in enumerate(islice(cycle(_photos(photos)), count)):
        _, encoded = cv2.imencode(".jpg", _crop(rgb, rng)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        (out / f"{index:06d}.jpg").write_bytes(encoded.tobytes())


def _photos(folder: Path | None) -> Iterator[Pixels]:
    if folder is None:
        yield from _packaged()
        return
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UsageError(f"--photos {folder}: holds no {', '.join(sorted(SUFFIXES))}. Give a folder of photos.")
    for path in paths:
        rgb: Any = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if rgb is not None:
            yield rgb


def _packaged() -> Iterator[Pixels]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    yield from (getattr(data, name)() for name in PACKAGED)
    yield from load_sample_images().images


def _crop(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """The largest part of that shape, in a random place, shrunk or grown to it."""
    height, width = rgb.shape[:2]
    scale = min(width / WIDTH_PX, height / HEIGHT_PX)
    size = round(WIDTH_PX * scale), round(HEIGHT_PX * scale)
    x0, y0 = (int(rng.integers(0, whole - part + 1)) for whole, part in zip((width, height), size, strict=True))
    part = rgb[y0 : y0 + size[1], x0 : x0 + size[0]]
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (WIDTH_PX, HEIGHT_PX), interpolation=method), np.uint8)
