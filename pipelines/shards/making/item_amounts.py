"""Amounts that a plan expects of one item: samples, bytes of each in its tar, and for a video the rate of its clips."""

import math
from typing import NamedTuple, Protocol

from pipelines.shards.format.tar_writer import tar_bytes
from pipelines.shards.media.clip_times import clip_rate, stride_ticks

__all__ = ["Amount", "VideoFacts", "amount_of_image", "amount_of_video"]

UNKNOWN_IMAGE_BYTES = 100_000
"""Estimated bytes of an image behind a URL whose size is not known."""
SIDECAR_BYTES = 2 * tar_bytes(200)
# Measured on 13 real videos (clip_bytes.py): 108 and 55 kB for 10 frames of at most 256 px on the short side.
CLIP_BYTES_PER_PX = {"mjpeg": 0.11, "vp9": 0.055}


class Amount(NamedTuple):
    """num_samples: 1, or the clips of a video, estimated. sample_bytes: of each, with what a tar adds to it.

    is_whole: a video that must not be divided among shards. fps: of its clips; an image: 0.
    """

    num_samples: int
    sample_bytes: int
    is_whole: bool
    fps: float


class VideoFacts(Protocol):
    """Duration, size, seekability and rate of a video, from its header."""

    @property
    def duration_s(self) -> float | None: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def is_seekable(self) -> bool: ...
    @property
    def fps(self) -> float | None: ...


def amount_of_image(size: int) -> Amount:
    """Return the amount of an image of `size` bytes, -1 if that is unknown."""
    return Amount(1, SIDECAR_BYTES + tar_bytes(size if size >= 0 else UNKNOWN_IMAGE_BYTES), False, 0.0)


def amount_of_video(
    facts: VideoFacts | None, *, num_frames: int, fps: float, stride_s: float | None, short_side_px: int, codec: str
) -> Amount:
    """Return the amount of a video by its header, None if that cannot be read. The rest: as in `ClipForm`."""
    if facts is None or facts.duration_s is None or min(facts.width, facts.height) < 1:
        # A guess: the worker that decodes the video will know better, or reject it.
        return Amount(1, SIDECAR_BYTES, True, fps)
    fps = clip_rate(fps, facts.fps)
    stride = stride_ticks(num_frames, stride_s, fps)
    num_clips = max(1, math.floor((facts.duration_s * fps - num_frames) / stride + 1e-6) + 1)
    scale = min(1.0, short_side_px / min(facts.width, facts.height))
    num_px = facts.width * facts.height * scale**2 * num_frames
    clip_bytes = SIDECAR_BYTES + tar_bytes(int(num_px * CLIP_BYTES_PER_PX[codec]))
    return Amount(min(num_clips, 2**31 - 1), clip_bytes, not facts.is_seekable, fps)
