"""Facts of source videos: codecs, rates, and the distance of keyframes, which decides what decoding a clip costs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pipelines.shards.making.shard_plan import PlannedShard
from pipelines.shards.media.clip_times import clip_rate
from pipelines.shards.media.videos import VideoInfo, probe_video
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import SourceItem

__all__ = ["SourceVideos", "look_at_videos", "summarize"]

MAX_VIDEOS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVideos:
    """Facts from headers and first packets. A GOP reaches from one keyframe to the next.

    frames_per_random_clip: frames that must be decoded for one clip at a random place of a source, with half a GOP
    before it on average; frames_per_stored_clip: the same from a shard. None: no GOP was measured.
    """

    num_videos: int
    codecs: dict[str, int]
    median_fps: float
    num_variable_rate: int
    num_interlaced: int
    num_rotated: int
    median_gop_frames: float | None
    max_gop_frames: int | None
    frames_per_random_clip: float | None
    frames_per_stored_clip: int


def look_at_videos(parts: Sequence[PlannedShard], num_frames: int, fps: float) -> SourceVideos | None:
    """Return the facts of up to 12 videos in parts of shards; None if none can be read. num_frames, fps: of a clip."""
    # One entry for each video: a long one is divided among parts and would count several times.
    items = {(item.location, item.offset): item for part in parts for item in part.items()}
    reader = ItemReader()
    try:
        found = [info for item in list(items.values())[:MAX_VIDEOS] if (info := _probed(reader, item)) is not None]
    finally:
        reader.close()
    return summarize(found, num_frames, fps) if found else None


def summarize(found: Sequence[VideoInfo], num_frames: int, fps: float) -> SourceVideos:
    """Return the facts of videos that were probed already, one or more."""
    gops = [info.gop_frames for info in found if info.gop_frames is not None]
    rates = [info.fps for info in found if info.fps is not None]
    # Only rates that are known: some containers state none.
    source_fps = median(rates) if rates else fps
    span_frames = (num_frames - 1) / clip_rate(fps, source_fps) * source_fps + 1
    return SourceVideos(
        num_videos=len(found),
        codecs=dict(Counter(info.codec for info in found).most_common()),
        median_fps=source_fps,
        num_variable_rate=sum(info.is_variable_rate is True for info in found),
        num_interlaced=sum(info.is_interlaced is True for info in found),
        num_rotated=sum(bool(info.rotation_deg) for info in found),
        median_gop_frames=median(gops) if gops else None,
        max_gop_frames=max(gops, default=None),
        frames_per_random_clip=(median(gops) - 1) / 2 + span_frames if gops else None,
        frames_per_stored_clip=num_frames,
    )


def _probed(reader: ItemReader, item: SourceItem) -> VideoInfo | None:
    """Return what a video's header says; None if it cannot be read: the trial, or the build, will say why."""
    try:
        file = reader.open_video(item)
    except Exception:
        return None
    try:
        return probe_video(file, measure_gop=True)
    except Exception:
        return None
    finally:
        if not isinstance(file, str):
            file.close()
