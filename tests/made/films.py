"""Hand-made videos whose every frame carries a number in its pixels, in any codec and with any timestamps."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

BITS = 12
BLOCK_PX = 16


def numbered(number: int) -> Pixels:
    """(48, 64, 3) uint8: 4 x 3 blocks, dark or bright, that spell a number below 4096 in binary."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8).reshape(3, 4)
    gray = np.kron(np.where(bits, np.uint8(210), np.uint8(40)), np.ones((BLOCK_PX, BLOCK_PX), np.uint8))
    return np.repeat(gray[:, :, None], 3, axis=2)


def number_in(frame: av.VideoFrame) -> int:
    """The number that `numbered` put into a frame, whatever size it was scaled to."""
    gray = frame.reformat(64, 48, "gray").to_ndarray()
    centres = gray[BLOCK_PX // 2 :: BLOCK_PX, BLOCK_PX // 2 :: BLOCK_PX].reshape(-1)
    return int(sum(int(level > 125) << bit for bit, level in enumerate(centres)))


def write_film(
    path: Path,
    frames: Sequence[Pixels],
    *,
    codec: str = "libx264",
    times_ms: Sequence[int] | None = None,
    fps: int = 25,
    gop: int = 12,
    max_b_frames: int = 2,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Frames of equal size as a video; without `times_ms` they follow each other at `fps`."""
    time_base = Fraction(1, 1000) if times_ms is not None else Fraction(1, fps)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.time_base = pixel_format, time_base
        context = stream.codec_context
        context.time_base, context.gop_size, context.max_b_frames = time_base, gop, max_b_frames
        context.thread_count = 1
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = (index if times_ms is None else times_ms[index]), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
