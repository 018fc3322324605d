"""Packets are made by hand: only their time, its unit and whether they are keyframes count."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from pipelines.shards.media.packet_facts import gop_frames, is_variable_rate, packet_fps


@dataclass
class Packet:
    pts: int | None
    is_keyframe: bool = False
    time_base: Fraction = Fraction(1, 1000)


def packets(times_ms: list[Any]) -> Any:
    return [Packet(ms) for ms in times_ms]


@pytest.mark.parametrize(
    ("times_ms", "fps"),
    [
        (range(0, 4000, 100), 10),
        ([0, 33, 67, 100, 133, 166, 200], 1000 / 33),
        # Stored in decoding order, as B-frames are.
        ([0, 120, 40, 80, 240, 160, 200, 360, 280, 320], 25),
        # One frame is held.
        ([0, 40, 80, 2080, 2120, 2160, 2200], 25),
        ([0, 0, 0], None),
        ([None, None], None),
        ([], None),
    ],
)
def test_rate_is_that_of_the_median_frame(times_ms: Any, fps: float | None) -> None:
    assert packet_fps(packets(list(times_ms))) == (None if fps is None else pytest.approx(fps))


def test_unequal_frames_are_a_variable_rate() -> None:
    assert is_variable_rate(packets([0, 33, 67, 100, 133])) is False
    assert is_variable_rate(packets([0, 33, 90, 100, 133])) is True
    assert is_variable_rate(packets([0, 33])) is None


def test_distance_of_keyframes() -> None:
    assert gop_frames(packets([])) is None
    assert gop_frames([Packet(ms, is_keyframe=ms == 0) for ms in range(7)]) == 7  # type: ignore[misc]
    assert gop_frames([Packet(ms, is_keyframe=ms % 5 == 0) for ms in range(17)]) == 5  # type: ignore[misc]
