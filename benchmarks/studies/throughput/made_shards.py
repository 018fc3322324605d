"""Data to measure with: JPEGs of one size from photos, shards of made images and clips.

Made content is noise of all scales, so that it compresses like photos (about 60 kB an image of 500 x 375 at quality
90). It says how fast pixels are made, and nothing about learning. Everything is the same every time.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from pipelines.base.errors import UsageError
from pipelines.shards.build import BuildConfig, build_shards

__all__ = ["jpeg", "made_picture", "make_shards", "write_jpegs"]

Pixels = npt.NDArray[np.uint8]

IMAGE_SIZE = (375, 500)
FRAME_SIZE = (240, 320)
FRAMES_PER_VIDEO = 50
FRAMES_PER_CLIP = 10
JPEG_QUALITY = 90
NUM_DIFFERENT_IMAGES = 64
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
PACKAGED = ("astronaut", "chelsea", "coffee", "rocket")


def jpeg(rgb: Pixels) -> bytes:
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def write_jpegs(out: Path, photos: Path | None, count: int) -> None:
    """Write `count` files of 500 x 375 in `out` from a folder of photos, or from the few that pip packages bring.

    Where there are fewer photos, they come again with other crops. Raises UsageError if there are none.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index, rgb in enumerate(islice(cycle(_photos(photos)), count)):
        (out / f"{index:06d}.jpg").write_bytes(jpeg(_crop(rgb, rng)))


def _photos(folder: Path | None) -> Iterator[Pixels]:
    if folder is None:
        from skimage import data
        from sklearn.datasets import load_sample_images

        yield from (getattr(data, name)() for name in PACKAGED)
        yield from load_sample_images().images
        return
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UsageError(f"{folder}: holds no {', '.join(sorted(SUFFIXES))}. Give a folder of photos.")
    for path in paths:
        rgb: Any = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if rgb is not None:
            yield rgb


def _crop(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the largest part of IMAGE_SIZE's shape, in a random place, shrunk or grown to it."""
    (tall, wide), (height, width) = IMAGE_SIZE, rgb.shape[:2]
    # The largest part, so that a photo is enlarged only where it is smaller than the result.
    scale = min(width / wide, height / tall)
    size = round(wide * scale), round(tall * scale)
    x0, y0 = (int(rng.integers(0, whole - part + 1)) for whole, part in zip((width, height), size, strict=True))
    part = rgb[y0 : y0 + size[1], x0 : x0 + size[0]]
    # By areas when shrinking: aliasing would add fine noise, which makes JPEGs larger than those of photos.
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (wide, tall), interpolation=method), np.uint8)


def made_picture(seed: int, height: int, width: int) -> Pixels:
    """Return uint8 RGB (height, width, 3): noise at all scales, the coarse the strongest and most of it gray."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128, np.float32)
    for side in (4, 8, 16, 32, 64, 128, 256):
        coarse = (rng.normal(size=(side, side, 1)) + 0.3 * rng.normal(size=(side, side, 3))).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * (120 / side**0.5)
    return np.clip(total, 0, 255).astype(np.uint8)


def make_shards(folder: Path, *, num_images: int = 1024, num_clips: int = 64) -> Path:
    """Make shards of images and of clips of 10 frames in `folder`/shards; what is there already is kept."""
    images, videos = folder / "images", folder / "videos"
    for path in (images, videos):
        path.mkdir(parents=True, exist_ok=True)
    # A few pictures many times: making them takes longer than everything that is measured with them.
    encoded = [jpeg(made_picture(seed, *IMAGE_SIZE)) for seed in range(min(num_images, NUM_DIFFERENT_IMAGES))]
    for index in range(num_images):
        (images / f"{index:06d}.jpg").write_bytes(encoded[index % len(encoded)])
    for index in range(-(-num_clips * FRAMES_PER_CLIP // FRAMES_PER_VIDEO)):
        _write_video(videos / f"{index:04d}.avi", index)
    clips = {"fps": 10, "num_frames": FRAMES_PER_CLIP, "cut_threshold": None}
    build_shards(BuildConfig.model_validate({"sources": [images, videos], "out": folder / "shards", **clips}))
    return folder / "shards"


def _write_video(path: Path, index: int) -> None:
    """Write MJPEG in which the camera pans while a rectangle of another picture crosses the view."""
    height, width = FRAME_SIZE
    wide = made_picture(1000 + index, height, width + 2 * FRAMES_PER_VIDEO)
    patch = made_picture(2000 + index, height // 4, width // 4)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=10, options={"qmin": "2", "qmax": "2"})
        stream.height, stream.width = height, width
        stream.pix_fmt, stream.time_base = "yuvj420p", Fraction(1, 10)
        for t in range(FRAMES_PER_VIDEO):
            frame = wide[:, 2 * t : 2 * t + width].copy()
            frame[80 : 80 + height // 4, 4 * t : 4 * t + width // 4] = patch
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
