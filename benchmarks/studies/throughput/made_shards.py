"""Shards of made images and clips, for machines without data at hand: the same ones every time, the size of real ones.

Images are JPEGs of 500 x 375 at quality 90, clips 10 frames of 320 x 240; content is noise of all scales, so that they
compress like photos (about 60 kB an image). They say how fast pixels are made, and nothing about learning.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["made_picture", "make_shards"]

Pixels = npt.NDArray[np.uint8]

IMAGE_SIZE = (375, 500)
FRAME_SIZE = (240, 320)
FRAMES_PER_VIDEO = 50
FRAMES_PER_CLIP = 10
JPEG_QUALITY = 90
NUM_DIFFERENT_IMAGES = 64


def make_shards(folder: Path, *, num_images: int = 1024, num_clips: int = 64) -> Path:
    """Shards of both kinds in `folder`/shards; what is there already is kept."""
    from pipelines.shards.build import BuildConfig, build_shards

    write_images(folder / "images", num_images)
    write_videos(folder / "videos", -(-num_clips * FRAMES_PER_CLIP // FRAMES_PER_VIDEO))
    config = BuildConfig(
        sources=[folder / "images", folder / "videos"],
        out=folder / "shards",
        fps=10,
        num_frames=FRAMES_PER_CLIP,
        cut_threshold=None,
    )
    build_shards(config)
    return folder / "shards"


def made_picture(seed: int, height: int, width: int) -> Pixels:
    """uint8 RGB (height, width, 3): noise at all scales, the coarse the strongest and most of it gray, as in photos."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128, np.float32)
    for side in (4, 8, 16, 32, 64, 128, 256):
        coarse = (rng.normal(size=(side, side, 1)) + 0.3 * rng.normal(size=(side, side, 3))).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * (120 / side**0.5)
    return np.clip(total, 0, 255).astype(np.uint8)


def write_images(folder: Path, count: int) -> None:
    """JPEGs, NUM_DIFFERENT_IMAGES of them different."""
    folder.mkdir(parents=True, exist_ok=True)
    different = range(min(count, NUM_DIFFERENT_IMAGES))
    encoded = [_jpeg(made_picture(seed, *IMAGE_SIZE)) for seed in different]
    for index in range(count):
        (folder / f"{index:06d}.jpg").write_bytes(encoded[index % len(encoded)])


def _jpeg(rgb: Pixels) -> bytes:
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def write_videos(folder: Path, count: int) -> None:
    """Videos whose camera pans while a square of another picture crosses the view."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = FRAME_SIZE
    for index in range(count):
        wide = made_picture(1000 + index, height, width + 2 * FRAMES_PER_VIDEO)
        patch = made_picture(2000 + index, height // 4, width // 4)
        frames = []
        for t in range(FRAMES_PER_VIDEO):
            frame = wide[:, 2 * t : 2 * t + width].copy()
            frame[80 : 80 + height // 4, 4 * t : 4 * t + width // 4] = patch
            frames.append(frame)
        _write_video(folder / f"{index:04d}.avi", frames)


def _write_video(path: Path, frames: list[Pixels]) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=10, options={"qmin": "2", "qmax": "2"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.time_base = "yuvj420p", Fraction(1, 10)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
