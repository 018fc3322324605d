"""Facts of a video by its first packets, none of them decoded: distance of keyframes, rate, and whether it varies."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import av

__all__ = ["RATE_PACKETS", "Packet", "gop_frames", "is_variable_rate", "packet_fps"]

Packet: TypeAlias = "av.Packet[av.VideoStream]"

RATE_PACKETS: Final = 80
"""So many packets are enough for a rate."""
# Frames shown earlier may be in packets that were not read, so the end of what was read is left out.
REORDERED_PACKETS: Final = 16


def gop_frames(packets: Sequence[Packet]) -> int | None:
    """Return the mean distance of keyframes; with a single one, the number of packets; None without a packet."""
    keyframes = [index for index, packet in enumerate(packets) if packet.is_keyframe]
    if len(keyframes) < 2:
        return len(packets) or None
    return round((keyframes[-1] - keyframes[0]) / (len(keyframes) - 1))


def is_variable_rate(packets: Sequence[Packet]) -> bool | None:
    """Return whether frames last unequally, by more than a container's rounding to whole ms; None if too few tell."""
    times_s = _times_s(packets)
    lasts_s = _steps(times_s[: max(3, len(times_s) - REORDERED_PACKETS)])
    if len(lasts_s) < 2:
        return None
    return max(lasts_s) - min(lasts_s) > max(0.0025, 0.1 * median(lasts_s))


def packet_fps(packets: Sequence[Packet]) -> float | None:
    """Return frames per second by the median time from one frame to the next; None if the packets have no times."""
    # A median: gaps of frames in packets that were not read do not change it.
    lasts_s = [seconds for seconds in _steps(_times_s(packets)) if seconds > 0]
    return 1 / median(lasts_s) if lasts_s else None


def _times_s(packets: Sequence[Packet]) -> list[float]:
    return sorted(float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None)


def _steps(times_s: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(times_s)]
