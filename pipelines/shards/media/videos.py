"""One video file in: what its header says, or its frames from a given time on, each with its time in seconds.

Times count from the first frame. Reading from the middle seeks to a keyframe and gives exactly the frames, with the
same times, that decoding from the start gives; where a format cannot promise that, it decodes from the start.

A file is a local path or a seekable binary file object. FFmpeg may open nothing else than that file, and only the
formats below: a playlist under a video's name would make it open others.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import BinaryIO, Final, NamedTuple

import av
import av.error

from pipelines.shards.media.frame_turn import turn_of
from pipelines.shards.media.packet_facts import RATE_PACKETS, Packet, gop_frames, is_variable_rate, packet_fps
from pipelines.shards.sources.items import UnusableError

__all__ = [
    "MAX_FRAME_PIXELS",
    "MAX_VIDEO_S",
    "MIN_SIDE_PX",
    "OpenVideo",
    "TimedFrame",
    "VideoInfo",
    "frames_from",
    "open_video",
    "probe_video",
]

FORMATS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,m4v,mxf,nut,dv,ivf,rm,gif,"
    "apng,yuv4mpegpipe,wtv,obu,av1,vc1,gxf,roq,swf,mjpeg"
)
# These store each frame's time, or its number, beside an index. The rest guess times while reading from the start.
INDEXED_FORMATS: Final = frozenset({"mov", "matroska", "avi"})
MAX_FRAME_PIXELS: Final = 8192 * 4608
MIN_SIDE_PX: Final = 16
MAX_ASPECT: Final = 16
MAX_VIDEO_S: Final = 100 * 3600.0
# A header that promises more seconds for its bytes than a still picture would take is damaged.
MIN_BYTES_PER_S: Final = 50
SEEK_MARGINS_S: Final = (0.0, 2.0, 10.0)
# What a header may say beyond the last frame: it counts the sound's end, or rounds.
EARLY_END_S: Final = 1.0
EARLY_END_RATIO: Final = 0.02
GOP_PACKETS: Final = 600
# A header with more frames per second, as browsers' recorders write it, states the unit of its times and no rate.
MAX_HEADER_FPS: Final = 240
# FFmpeg's AVFieldOrder; the values above PROGRESSIVE are kinds of interlacing.
FIELD_ORDER_UNKNOWN: Final = 0
PROGRESSIVE: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Facts of a header; None: it does not say, or it was not measured. Sides in pixels before rotation."""

    duration_s: float | None
    width: int
    height: int
    codec: str
    fps: float | None
    is_interlaced: bool | None
    is_seekable: bool
    """False: every read decodes from the start, so that dividing the video into ranges costs more than it gives."""
    rotation_deg: int | None = None
    """Clockwise turn that makes the frames upright."""
    is_variable_rate: bool | None = None
    gop_frames: int | None = None
    """Mean distance of keyframes in the first packets; with a single one there, the number of packets looked at."""


class TimedFrame(NamedTuple):
    """A decoded frame and its time in s from the video's first frame."""

    time_s: float
    frame: av.VideoFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVideo:
    """A file opened for decoding, its size checked."""

    container: av.container.InputContainer
    stream: av.VideoStream
    max_pixels: int
    measured_fps: float | None = None

    @property
    def fps(self) -> float | None:
        """Mean frames per second by the header; where it says nothing possible, by its first packets, or None."""
        fps = self.measured_fps or float(self.stream.average_rate or self.stream.guessed_rate or 0)
        return fps if 0 < fps <= 1000 else None

    @property
    def is_seekable(self) -> bool:
        """Whether a read from the middle can seek and still give the frames and times of a read from the start."""
        return self.format_name in INDEXED_FORMATS and not self.is_untimed

    @property
    def is_untimed(self) -> bool:
        """AVI stores frame numbers in decoding order: with B-frames they are not the order of showing."""
        context = self.stream.codec_context
        return self.format_name == "avi" and (bool(context.has_b_frames) or context.name in ("h264", "hevc"))

    @property
    def format_name(self) -> str:
        """FFmpeg's first name of the container: mov, matroska, avi, ..."""
        return self.container.format.name.split(",")[0]


@contextmanager
def open_video(
    file: str | BinaryIO, *, num_threads: int = 1, max_pixels: int = MAX_FRAME_PIXELS
) -> Iterator[OpenVideo]:
    """Open the first video stream of a file for decoding. Raises UnusableError, also for errors while it is open."""
    with _opened(file, num_threads, max_pixels) as video:
        if video.fps is not None and video.fps <= MAX_HEADER_FPS:
            yield video
            return
        measured_fps = packet_fps(_first_packets(video, RATE_PACKETS))
    # Opened again, since the packets of the start have been taken.
    with _opened(file, num_threads, max_pixels) as video:
        yield replace(video, measured_fps=measured_fps)


@contextmanager
def _opened(file: str | BinaryIO, num_threads: int, max_pixels: int) -> Iterator[OpenVideo]:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    # With the prefix, a name such as "http:x.mp4" is a file and nothing else.
    source = f"file:{file}" if isinstance(file, str) else file
    with _as_unusable():
        # A file object may have been read from before.
        if not isinstance(file, str):
            file.seek(0)
        with av.open(source, "r", metadata_errors="replace", options=options) as container:
            stream = _video_stream(container)
            context = stream.codec_context
            check_size(context.width, context.height, max_pixels)
            stream.thread_type = "AUTO" if num_threads > 1 else "NONE"
            # The header's size is checked above; a stream can also change its size on the way.
            context.thread_count, context.options = num_threads, {"max_pixels": str(max_pixels)}
            yield OpenVideo(container=container, stream=stream, max_pixels=max_pixels)


@contextmanager
def _as_unusable() -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnusableError(f"cannot decode it ({reason})") from error


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    for stream in container.streams.video:
        # The cover picture of an audio file is a video stream, too.
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise UnusableError("no decoder for its video stream")
            return stream
    raise UnusableError("no video stream in it")


def check_size(width: int, height: int, max_pixels: int = MAX_FRAME_PIXELS) -> None:
    """Raise UnusableError if frames of this size are too large to decode, or too small or narrow to learn from."""
    size = f"{width} x {height} px"
    if width * height > max_pixels:
        raise UnusableError(f"{size} is more than max_pixels = {max_pixels}")
    if min(width, height) < MIN_SIDE_PX:
        raise UnusableError(f"{size}; each side must be at least {MIN_SIDE_PX} px")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnusableError(f"{size}; the long side may be at most {MAX_ASPECT} times the short one")


def probe_video(file: str | BinaryIO, measure_gop: bool = False, *, max_pixels: int = MAX_FRAME_PIXELS) -> VideoInfo:
    """Read the header, in some ms. With `measure_gop` also the times of the first packets, and one frame.

    Raises UnusableError if the file cannot be opened as a video, or its size is out of bounds.
    """
    with open_video(file, max_pixels=max_pixels) as video:
        context = video.stream.codec_context
        info = VideoInfo(
            duration_s=_duration_s(video),
            width=context.width,
            height=context.height,
            codec=context.codec.name,
            fps=video.fps,
            is_interlaced=None if context.field_order == FIELD_ORDER_UNKNOWN else context.field_order > PROGRESSIVE,
            is_seekable=video.is_seekable,
        )
        if not measure_gop:
            return info
        packets = _first_packets(video, GOP_PACKETS)
    # Opened again, since the packets of the start have been taken from the first container.
    with open_video(file, max_pixels=max_pixels) as video:
        first = next(_decoded(video)).frame
        return replace(
            info,
            is_interlaced=first.interlaced_frame,
            rotation_deg=turn_of(first).rotation_deg,
            is_variable_rate=is_variable_rate(packets),
            gop_frames=gop_frames(packets),
        )


def _first_packets(video: OpenVideo, count: int) -> list[Packet]:
    return [packet for packet in islice(video.container.demux(video.stream), count) if packet.size]


def _duration_s(video: OpenVideo) -> float | None:
    stream, container = video.stream, video.container
    if stream.duration and stream.time_base:
        duration_s = float(stream.duration * stream.time_base)
    else:
        duration_s = (container.duration or 0) / av.time_base
    is_possible = 0 < duration_s <= MAX_VIDEO_S and container.size >= duration_s * MIN_BYTES_PER_S
    return duration_s if is_possible else None


@contextmanager
def frames_from(
    file: str | BinaryIO, from_s: float, *, num_threads: int = 1, max_pixels: int = MAX_FRAME_PIXELS
) -> Iterator[tuple[OpenVideo, Iterator[TimedFrame]]]:
    """Open a video; give it and its frames from the one shown at `from_s` on, times strictly rising.

    The frames are those of decoding from the start. Iterating raises UnusableError where the stream breaks, ends
    before its header says, or its times leave all bounds; the frames before that come first.
    """
    with open_video(file, num_threads=num_threads, max_pixels=max_pixels) as video:
        frames = _sought(video, from_s) if from_s > 0 and video.is_seekable else None
        if frames is not None:
            yield video, _from(frames, from_s)
            return
    # Opened again, since the search for a keyframe may have moved the first container.
    with open_video(file, num_threads=num_threads, max_pixels=max_pixels) as video:
        yield video, _from(_decoded(video), from_s)


def _from(frames: Iterator[TimedFrame], from_s: float) -> Iterator[TimedFrame]:
    held: TimedFrame | None = None
    for timed in frames:
        if timed.time_s > from_s:
            yield from chain([held] if held is not None else [], [timed], frames)
            return
        held = timed
    if held is not None:
        yield held


def _sought(video: OpenVideo, from_s: float) -> Iterator[TimedFrame] | None:
    """Seek: frames from a keyframe at or before `from_s` on; None if none is found."""
    # Times count from the first frame that is shown, so one has to be decoded before the seek.
    first = next(iter(_shown(video, video.container.demux(video.stream))), None)
    if first is None or first.time is None:
        return None
    # Where a keyframe is shown after the frames that follow it, a seek lands too late; try from further back.
    for margin_s in SEEK_MARGINS_S:
        packets = _packets_from(video, first.time + max(0.0, from_s - margin_s))
        keyframe = next((packet for packet in packets if packet.is_keyframe), None)
        if keyframe is None or keyframe.pts is None or keyframe.time_base is None:
            continue
        key_s = float(keyframe.pts * keyframe.time_base)
        if key_s - first.time <= from_s:
            shown = _shown(video, chain([keyframe], packets), from_pts=keyframe.pts)
            frames = _timed(video, shown, origin_s=first.time)
            start = next(frames, None)
            if start is not None and start.time_s <= from_s:
                return chain([start], frames)
    return None


def _packets_from(video: OpenVideo, time_s: float) -> Iterator[Packet]:
    assert video.stream.time_base is not None
    try:
        video.container.seek(int(time_s / video.stream.time_base), stream=video.stream)
    except av.error.FFmpegError:
        # No damage: the caller decodes from the start.
        return iter(())
    return video.container.demux(video.stream)


def _decoded(video: OpenVideo) -> Iterator[TimedFrame]:
    frames = _timed(video, _shown(video, video.container.demux(video.stream)))
    first = next(frames, None)
    if first is None:
        raise UnusableError("no frame in its video stream")
    return chain([first], frames)


def _shown(video: OpenVideo, packets: Iterable[Packet], from_pts: int | None = None) -> Iterator[av.VideoFrame]:
    """Yield decoded frames that are whole and not before `from_pts`: after a seek, those may lack what they need."""
    with _as_unusable():
        for packet in packets:
            for frame in video.stream.decode(packet):
                is_early = from_pts is not None and (frame.pts is None or frame.pts < from_pts)
                if not (frame.is_corrupt or is_early):
                    yield frame


def _timed(video: OpenVideo, frames: Iterable[av.VideoFrame], origin_s: float | None = None) -> Iterator[TimedFrame]:
    """Yield frames with strictly rising times; a missing or falling timestamp becomes "one period later"."""
    period_s = 1 / (video.fps or 25)
    last_s: float | None = None
    last_lasts_s = 0.0
    for index, frame in enumerate(frames):
        check_size(frame.width, frame.height, video.max_pixels)
        time_s = index * period_s if video.is_untimed else frame.time
        if last_s is not None and (time_s is None or time_s <= last_s):
            time_s = last_s + period_s
        last_s, last_lasts_s = time_s or 0.0, float((frame.duration or 0) * (frame.time_base or 0))
        origin_s = last_s if origin_s is None else origin_s
        if last_s - origin_s > MAX_VIDEO_S:
            raise UnusableError(f"a frame at {last_s - origin_s:.3g} s; at most {MAX_VIDEO_S:g} s are read")
        yield TimedFrame(last_s - origin_s, frame)
    if last_s is not None and origin_s is not None:
        _check_end(video, last_s - origin_s + last_lasts_s)


def _check_end(video: OpenVideo, end_s: float) -> None:
    """Raise UnusableError if the last frame ends (`end_s`) long before the stream does.

    FFmpeg ends silently where an MP4 was cut off, but its header says how long the stream was. Those of other formats
    do not: AVI's is corrected, Matroska's is that of the longest stream. The last frame may be held for many seconds:
    screen recorders write no frame while nothing moves.
    """
    stream = video.stream
    if not (stream.duration and stream.time_base and video.format_name == "mov"):
        return
    duration_s = float(stream.duration * stream.time_base)
    if end_s + EARLY_END_S + EARLY_END_RATIO * duration_s < duration_s:
        raise UnusableError(f"its frames end at {end_s:.3g} s of {duration_s:.3g} s: cut off or damaged")
