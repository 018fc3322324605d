"""Times of frames in, runs of frames for clips out, or why a run was left out. Integers and times only, no pixels.

Tick k is the time k / fps after the video's first frame. A clip is a run of ticks in one shot, whose frames are those
nearest in time.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, Generic, Literal, NamedTuple, TypeVar

__all__ = [
    "DropReason",
    "DroppedClip",
    "Tick",
    "clip_rate",
    "nearest_frames",
    "split_clips",
    "stride_ticks",
    "tick_after",
    "tick_before",
]

DropReason = Literal["cut", "static", "repeats"]
Item = TypeVar("Item")
Made = TypeVar("Made")

# 10 of 25 frames per second hits halfway at every other tick: rounding errors must not decide there.
ROUNDING_S: Final = 1e-9
# The lowest rate of a clip: headers may claim anything.
MIN_FPS: Final = 0.01
# A frame shown for longer is a hole in the video, which no clip spans: damaged times may claim hours.
MAX_HOLD_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedClip:
    """A clip left out: a cut in it, nothing moving in it, or too many frames that repeat the one before."""

    start_tick: int
    reason: DropReason


class Tick(NamedTuple, Generic[Item]):
    """Content of a tick: an item, its number among the source frames, and the number of its shot."""

    tick: int
    frame_index: int
    shot: int
    item: Item


def clip_rate(fps: float, source_fps: float | None) -> float:
    """Return the frames per second of clips of one video: `fps`, or its own rate if that is lower (None: unknown).

    At a higher rate than its own, a video would have to repeat frames, which shows as stops between jumps.
    """
    return fps if source_fps is None else min(fps, max(source_fps, MIN_FPS))


def stride_ticks(num_frames: int, stride_s: float | None, fps: float) -> int:
    """Return the ticks of 1 / fps from the start of a clip to the next one's; `stride_s` None: the length of a clip."""
    return num_frames if stride_s is None else max(1, round(stride_s * fps))


def tick_after(time_s: float, fps: float) -> int:
    """Return the first tick that is not before a time."""
    return math.ceil((time_s - ROUNDING_S) * fps)


def tick_before(time_s: float, fps: float) -> int:
    """Return the last tick that is not after a time."""
    return math.floor((time_s + ROUNDING_S) * fps)


def nearest_frames(timed: Iterable[tuple[float, int, Item]], fps: float, first_tick: int = 0) -> Iterator[Tick[Item]]:
    """Yield what is shown at each tick from `first_tick` on, 1 / fps apart; `timed`: (time in s, shot, item).

    Times rise. Halfway between two items, the earlier wins. No tick is more than half a period before the first item
    or after the last one, nor after an item that lasts longer than MAX_HOLD_S.
    """
    source = enumerate(timed)
    first = next(source, None)
    if first is None:
        return
    index, (time_s, shot, item) = first
    tick = max(first_tick, tick_after(time_s - 0.5 / fps, fps))
    # The sentinel stands for an end that never comes, so that the last frame is handled like the others.
    for next_index, (next_s, next_shot, next_item) in chain(source, [(-1, (math.inf, -1, item))]):
        is_held = next_s - time_s <= MAX_HOLD_S
        until_s = (time_s + next_s) / 2 if is_held else time_s + 0.5 / fps
        while tick / fps <= until_s + ROUNDING_S:
            yield Tick(tick, index, shot, item)
            tick += 1
        if not is_held and next_s < math.inf:
            tick = max(tick, tick_after(next_s - 0.5 / fps, fps))
        index, time_s, shot, item = next_index, next_s, next_shot, next_item


def split_clips(
    ticks: Iterable[Tick[Item]],
    prepare: Callable[[Item], Made],
    *,
    num_frames: int,
    stride: int,
    max_repeat_ratio: float = 0.0,
    first_tick: int = 0,
    end_tick: int | None = None,
) -> Iterator[list[Tick[Made]] | DroppedClip]:
    """Yield runs of num_frames ticks of one shot, and what is dropped. A short rest at the end is left out.

    Starts lie `stride` ticks apart from `first_tick` on, and start again at a cut, or a hole in the ticks, inside a
    run. Each run ends before `end_tick`. Items are prepared as they come, and only those of a run.
    """
    running: list[list[Tick[Made]]] = []
    start, last_tick, last_shot = first_tick, first_tick - 1, -1
    for tick, index, shot, item in ticks:
        # A cut or a hole ends all runs; the next one starts behind it, not at the next multiple of the stride.
        if running and (tick != last_tick + 1 or shot != last_shot):
            reason: DropReason = "cut" if shot != last_shot else "repeats"
            yield from (DroppedClip(start_tick=run[0].tick, reason=reason) for run in running)
            running, start = [], tick
        start = max(start, tick)
        # A run that would leave the range belongs to whoever reads the next one.
        is_past_end = end_tick is not None and start + num_frames > end_tick
        if is_past_end and not running:
            return
        if tick == start and not is_past_end:
            running.append([])
            start += stride
        if running:
            made = Tick(tick, index, shot, prepare(item))
            for run in running:
                run.append(made)
            if len(running[0]) == num_frames:
                yield _unless_repeated(running.pop(0), max_repeat_ratio)
        last_tick, last_shot = tick, shot


def _unless_repeated(run: list[Tick[Made]], max_repeat_ratio: float) -> list[Tick[Made]] | DroppedClip:
    num_repeats = len(run) - len({tick.frame_index for tick in run})
    return run if num_repeats <= max_repeat_ratio * len(run) else DroppedClip(start_tick=run[0].tick, reason="repeats")
