"""Hand-made source files for tests of shard building: photos and videos whose content is known."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Pixels:
    """(H, W, 3) uint8: a smooth gradient and some noise, so that it compresses like a photo."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width)[None, :, None] * np.ones((height, 1, 3))
    return (ramp + rng.integers(0, 50, (height, width, 3))).astype(np.uint8)


def encoded_image(pixels: Pixels, kind: str = "JPEG", orientation: int | None = None, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).convert(mode).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def write_image(path: Path, seed: int = 0, *, width: int = 64, height: int = 48, kind: str = "JPEG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded_image(picture(width, height, seed), kind))
    return path


def gray_frames(levels: list[int], width: int = 64, height: int = 48) -> list[Pixels]:
    """Even gray frames, one per level 0 to 255: the level survives any codec, so a frame can be recognised."""
    return [np.full((height, width, 3), level, dtype=np.uint8) for level in levels]


def write_video(
    path: Path,
    frames: list[Pixels],
    *,
    fps: int = 10,
    codec: str = "mpeg4",
    times_ms: list[int] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """A video file; `times_ms` gives every frame its own timestamp (variable frame rate)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options={"qmin": "1", "qmax": "1"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.max_b_frames = 0
        stream.time_base = Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = times_ms[index] if times_ms else round(1000 * index / fps)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(clip: bytes) -> list[Pixels]:
    """Frames (H, W, 3) of an encoded clip, by PyAV."""
    with av.open(io.BytesIO(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
