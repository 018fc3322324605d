"""Video in, clips of a few frames at a steady rate out, each encoded as a short .mp4 that DALI decodes on a CPU.

Frames are chosen by timestamp (clip_times.py). No clip spans a shot cut (shot_boundaries.py): clips start every
`stride_s` from the beginning of the range that is read, a cut inside a clip ends it, and the next one starts with the
new shot.

Every clip is one group of pictures, scaled down to a given short side (never up), even sizes, square pixels, upright,
BT.601, yuv420p (yuvj420p in MJPEG). Interlaced video is noted, not deinterlaced: scaling down blends most of it.

MJPEG is the default codec. 84 clips from 13 real videos (10 frames, short side at most 256 px), 2 cores of a
server CPU, clips per second of CPU time, at equal PSNR against the frames given to the encoder:

    codec    bytes/clip   PSNR      encode   decode DALI   decode PyAV
    MJPEG      108 kB     40.4 dB    200        143            167
    VP9         55 kB     40.4 dB      6         87             79

Training waits for decoding, not for the disk: 1.6 times the speed is worth twice the bytes.
"""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, BinaryIO, Final, Literal, NamedTuple, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from pipelines.shards.media.clip_times import (
    DroppedClip,
    Tick,
    clip_rate,
    nearest_frames,
    split_clips,
    stride_ticks,
    tick_after,
    tick_before,
)
from pipelines.shards.media.frame_turn import Turn, turn_of, turned
from pipelines.shards.media.shot_boundaries import DEFAULT_CUT_THRESHOLD, SmallFrame, mark_cuts, motion_of, small_frame
from pipelines.shards.media.videos import MAX_FRAME_PIXELS, OpenVideo, TimedFrame, frames_from
from pipelines.shards.sources.items import UnusableError

__all__ = [
    "DEFAULT_QUALITY",
    "ClipForm",
    "Codec",
    "DroppedClip",
    "RawClip",
    "encode_clip",
    "even_size",
    "read_clips",
]

Codec = Literal["mjpeg", "vp9"]
# Read before a range, so that a cut near its start is judged by the same pairs as in the whole video.
LEAD_S: Final = 1.5
# Pixels further from square than that are a damaged header: taken as square.
MAX_PIXEL_ASPECT: Final = 4.0
GIF_HINT: Final = "; .gif counts as video, so save a still picture as PNG"
DEFAULT_QUALITY: Final[dict[str, int]] = {"mjpeg": 4, "vp9": 24}
QUALITY_RANGE: Final[dict[str, tuple[int, int]]] = {"mjpeg": (1, 31), "vp9": (0, 63)}
QUALITY: Final = "quality"
# No hidden reference frames (lag, alt-ref): every packet is one frame, so a decoder counts num_frames of them.
ENCODERS: Final[dict[str, tuple[str, str, dict[str, str]]]] = {
    "mjpeg": ("mjpeg", "yuvj420p", {"qmin": QUALITY, "qmax": QUALITY, "huffman": "optimal"}),
    "vp9": (
        "libvpx-vp9",
        "yuv420p",
        {"crf": QUALITY, "b": "0", "cpu-used": "5", "lag-in-frames": "0", "auto-alt-ref": "0", "row-mt": "0"},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipForm:
    """Form of stored clips, and rules for which frames become clips. Raises ValueError for impossible values."""

    num_frames: int = 10
    """Frames of a clip; memory and time grow with it."""
    fps: float = 24.0
    """Frames per second of a clip, 0.01 to 240; a video slower than that keeps its own rate."""
    stride_s: float | None = None
    """From the start of a clip to the start of the next; None: the length of a clip. Less makes clips overlap."""
    short_side_px: int = 256
    """Short side of stored frames, at most; bytes and decode time grow with its square."""
    codec: Codec = "mjpeg"
    """MJPEG decodes 1.6 times as fast as VP9 and takes twice the bytes."""
    quality: int | None = None
    """Quantizer: 1 to 31 for MJPEG (None: 4), 0 to 63 for VP9 (None: 24). Larger is fewer bytes and more artefacts."""
    max_repeat_ratio: float = 0.1
    """Share of a clip's frames that may repeat the one before (video of varying rate); more, and it is dropped."""
    min_motion: float = 0.0
    """Clips in which less moves are dropped, in gray levels as in `cuts.motion_of`; 0 keeps all, 0.3 drops stills."""
    cut_threshold: float | None = DEFAULT_CUT_THRESHOLD
    """Smaller finds more shot cuts, and takes more fast motion for one; None looks for none."""
    max_pixels: int = MAX_FRAME_PIXELS
    """Videos with larger frames are refused by their header; a frame takes 1.5 to 4 bytes a pixel."""

    def __post_init__(self) -> None:
        low, high = QUALITY_RANGE[self.codec]
        if self.num_frames < 1 or self.short_side_px < 2 or self.max_pixels < 1:
            raise ValueError(f"{self}: num_frames and max_pixels must be at least 1, short_side_px at least 2")
        if not 0.01 <= self.fps <= 240:
            raise ValueError(f"fps = {self.fps}; need 0.01 to 240")
        if self.stride_s is not None and not 0 < self.stride_s < math.inf:
            raise ValueError(f"stride_s = {self.stride_s}; need a number above 0, or None for the length of a clip")
        if self.quality is not None and not low <= self.quality <= high:
            raise ValueError(f"quality = {self.quality}; {self.codec} needs {low} to {high}, or None")

    @property
    def stride_ticks(self) -> int:
        """Ticks of 1 / fps from the start of a clip to the next one's."""
        return stride_ticks(self.num_frames, self.stride_s, self.fps)

    def at(self, source_fps: float | None) -> "ClipForm":
        """Return the form of clips of a video with this rate; None: its header states none."""
        return replace(self, fps=clip_rate(self.fps, source_fps))


@dataclass(frozen=True, slots=True, kw_only=True)
class RawClip:
    """Frames of one clip, already scaled. Tick and time of its start count from the video's first frame."""

    start_tick: int
    start_s: float
    frames: tuple[av.VideoFrame, ...]
    facts: dict[str, Any] = field(repr=False)
    """For the sidecar: num_frames, fps, width, height, codec, start_s, source_fps, motion, is_interlaced, rotation_deg
    (the clockwise turn that was applied), and is_mirrored where the turned frames were also mirrored."""


class _Frame(NamedTuple):
    time_s: float
    frame: av.VideoFrame
    small: SmallFrame | None


class _Prepared(NamedTuple):
    """A frame of a clip: scaled, and small for the motion measure."""

    scaled: av.VideoFrame
    small: SmallFrame
    is_interlaced: bool
    turn: Turn


def even_size(width: float, height: float, short_side_px: int) -> tuple[int, int]:
    """Return (width, height) with the short side at most `short_side_px`, both even and at least 2, never larger."""
    scale = min(1.0, short_side_px / min(width, height))
    return max(2, int(width * scale / 2 + 1e-6) * 2), max(2, int(height * scale / 2 + 1e-6) * 2)


def read_clips(
    file: str | BinaryIO,
    form: ClipForm,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    num_threads: int = 1,
) -> Iterator[RawClip | DroppedClip]:
    """Yield the clips of a video in [start_s, end_s), end None: to its end; of those left out, the reason.

    Their rate is `form.fps`, or that of the video if it is lower. Ranges that start at multiples of `stride_ticks` /
    fps (of that rate) and end with a clip give together the clips of the whole video, except that in the whole a cut
    also moves the starts after it. Raises UnusableError if the file cannot be
    decoded; a video that breaks in the middle gives the clips before the break, then raises. So does a whole video
    without a clip, dropped or not. Damaged video decodes the same way each time only with `num_threads` = 1.
    """
    # 1. Read from a little before the range, so that cuts at its start are found as in the whole video.
    is_empty, hint, from_s = True, "", max(0.0, start_s - LEAD_S)
    with frames_from(file, from_s, num_threads=num_threads, max_pixels=form.max_pixels) as (video, frames):
        # 2. Whole ticks: parts of a video, read by different workers, must agree on where clips start.
        form = form.at(video.fps)
        first_tick = tick_after(start_s, form.fps)
        end_tick = None if end_s is None else tick_before(end_s, form.fps)
        maker = _ClipMaker(form, video)
        hint = GIF_HINT if video.format_name == "gif" else ""
        for run in split_clips(
            nearest_frames(maker.shots(frames), form.fps, first_tick),
            maker.prepare,
            num_frames=form.num_frames,
            stride=form.stride_ticks,
            max_repeat_ratio=form.max_repeat_ratio,
            first_tick=first_tick,
            end_tick=end_tick,
        ):
            is_empty = False
            yield run if isinstance(run, DroppedClip) else maker.clip(run)
        # 3. What broke the video comes last: the clips before the break are good.
        if maker.error is not None:
            raise maker.error
    # Of a whole video only: a part of one may well be too short for a clip.
    if is_empty and first_tick == 0 and end_tick is None:
        need_s = (form.num_frames - 1) / form.fps
        raise UnusableError(
            f"no clip of {form.num_frames} frames at {form.fps:g} fps in it (needs {need_s:.2g} s){hint}"
        )


class _ClipMaker:
    """Frames of one video to clips of one form. `error`: what broke the video, once its frames have run out."""

    def __init__(self, form: ClipForm, video: OpenVideo) -> None:
        self.error: UnusableError | None = None
        self._form = form
        self._source_fps = video.fps
        aspect = float(video.stream.sample_aspect_ratio or 1)
        self._aspect = aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0
        # One of each: it keeps the tables of its last sizes, which cost more than scaling a frame.
        self._scaler, self._shrinker = VideoReformatter(), VideoReformatter()
        self._last: tuple[_Frame, _Prepared] | None = None

    def shots(self, frames: Iterable[TimedFrame]) -> Iterator[tuple[float, int, _Frame]]:
        """Yield (time in s, number of the shot, frame). Another size or turn is another shot in any case."""
        threshold, shot, size = self._form.cut_threshold, 0, None
        small = (_Frame(*timed, self._small(timed.frame) if threshold is not None else None) for timed in frames)
        source = self._until_break(small)
        marked = ((frame, False) for frame in source) if threshold is None else mark_cuts(source, _small_of, threshold)
        for frame, is_cut in marked:
            now = (frame.frame.width, frame.frame.height, turn_of(frame.frame))
            shot += is_cut or (size is not None and now != size)
            size = now
            yield frame.time_s, shot, frame

    def _until_break(self, frames: Iterator[_Frame]) -> Iterator[_Frame]:
        # Cuts are looked for some frames ahead: an error that went through would take the frames before it along.
        try:
            yield from frames
        except UnusableError as error:
            self.error = error

    def _small(self, frame: av.VideoFrame) -> SmallFrame:
        return small_frame(frame, self._shrinker)

    def prepare(self, frame: _Frame) -> _Prepared:
        """Return what a clip keeps of a frame; for one that repeats, the same object."""
        if self._last is None or self._last[0] is not frame:
            prepared = _Prepared(
                scaled=_scaled(frame.frame, self._form, self._scaler, self._aspect),
                small=self._small(frame.frame) if frame.small is None else frame.small,
                is_interlaced=frame.frame.interlaced_frame,
                turn=turn_of(frame.frame),
            )
            self._last = (frame, prepared)
        return self._last[1]

    def clip(self, run: Sequence[Tick[_Prepared]]) -> RawClip | DroppedClip:
        """Return the clip of a run, or why it is dropped: too little moves in it."""
        form, first, frames = self._form, run[0], [tick.item for tick in run]
        # Before the frames are encoded: a clip that is dropped costs no encoding.
        motion = motion_of([frame.small for frame in frames])
        if motion < form.min_motion:
            return DroppedClip(start_tick=first.tick, reason="static")
        start_s = round(first.tick / form.fps, 6)
        facts = {
            "num_frames": form.num_frames,
            "fps": form.fps,
            "width": frames[0].scaled.width,
            "height": frames[0].scaled.height,
            "codec": form.codec,
            "start_s": start_s,
            "source_fps": None if self._source_fps is None else round(self._source_fps, 6),
            "motion": round(motion, 3),
            "is_interlaced": any(frame.is_interlaced for frame in frames),
            "rotation_deg": frames[0].turn.rotation_deg,
        }
        if frames[0].turn.is_mirrored:
            facts["is_mirrored"] = True
        scaled = tuple(frame.scaled for frame in frames)
        return RawClip(start_tick=first.tick, start_s=start_s, frames=scaled, facts=facts)


def _small_of(frame: _Frame) -> SmallFrame:
    assert frame.small is not None
    return frame.small


def _scaled(frame: av.VideoFrame, form: ClipForm, scaler: VideoReformatter, aspect: float = 1.0) -> av.VideoFrame:
    """Return the frame upright, with square pixels, in the stored format; `aspect`: width / height of a pixel now."""
    turn = turn_of(frame)
    width, height = even_size(frame.width * min(aspect, 1.0), frame.height / max(aspect, 1.0), form.short_side_px)
    scaled = scaler.reformat(
        frame,
        width,
        height,
        ENCODERS[form.codec][1] if turn.is_none else "rgb24",
        interpolation=Interpolation.AREA,
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG if form.codec == "mjpeg" else ColorRange.MPEG,
    )
    if turn.is_none:
        return scaled
    upright = np.ascontiguousarray(turned(scaled.to_ndarray(), turn), dtype=np.uint8)
    return _scaled(av.VideoFrame.from_ndarray(upright, "rgb24"), form, VideoReformatter())


def encode_clip(frames: Sequence[av.VideoFrame], form: ClipForm) -> bytes:
    """Encode frames of equal size as .mp4; the same frames give the same bytes. Releases the GIL while encoding."""
    name, pixel_format, options = ENCODERS[form.codec]
    quality = str(DEFAULT_QUALITY[form.codec] if form.quality is None else form.quality)
    options = {key: quality if value == QUALITY else value for key, value in options.items()}
    buffer = io.BytesIO()
    # 29.97 becomes 30000/1001, so that all frames have exact times.
    rate = Fraction(form.fps).limit_denominator(1001)
    with av.open(buffer, "w", "mp4", options={"fflags": "+bitexact"}) as container:
        stream = cast(av.VideoStream, container.add_stream(name, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixel_format
        context = stream.codec_context
        # One thread and one group of pictures: the bytes must not depend on the machine.
        context.gop_size, context.thread_count = len(frames), 1
        context.flags |= av.codec.context.Flags.bitexact
        context.color_range = ColorRange.JPEG if form.codec == "mjpeg" else ColorRange.MPEG
        context.colorspace = Colorspace.ITU601
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()
