import itertools

import numpy as np
import pytest

from pipelines.shards.media.clip_times import (
    MAX_HOLD_S,
    DroppedClip,
    Tick,
    nearest_frames,
    split_clips,
    tick_after,
    tick_before,
)


def chosen(times_s: list[float], fps: float, first_tick: int = 0) -> list[tuple[int, int]]:
    """(tick, frame) pairs."""
    ticks = nearest_frames(((time_s, 0, None) for time_s in times_s), fps, first_tick)
    return [(tick.tick, tick.frame_index) for tick in ticks]


def nearest_by_search(times_s: list[float], fps: float) -> list[tuple[int, int]]:
    """Reference: for each tick look at all frames."""
    first = int(np.ceil((times_s[0] - 0.5 / fps) * fps - 1e-8))
    last = int(np.floor((times_s[-1] + 0.5 / fps) * fps + 1e-8))
    nearest = (min(range(len(times_s)), key=lambda i: (round(abs(times_s[i] - t / fps), 8), i)) for t in range(9999))
    return [(tick, index) for tick, index in zip(range(last + 1), nearest, strict=False) if tick >= max(0, first)]


@pytest.mark.parametrize("source_fps", [8, 10, 12.5, 25, 30, 60])
@pytest.mark.parametrize("fps", [5.0, 10.0, 10.1])
@pytest.mark.parametrize("start_s", [0.0, 3.25])
def test_nearest_frame_at_even_rates(source_fps: float, start_s: float, fps: float) -> None:
    times_s = [start_s + index / source_fps for index in range(50)]
    assert chosen(times_s, fps) == nearest_by_search(times_s, fps)


def test_nearest_frame_at_uneven_times() -> None:
    times_s = np.cumsum(np.random.default_rng(0).uniform(0.005, 0.2, 200)).tolist()
    assert chosen(times_s, 10) == nearest_by_search(times_s, 10)


def test_rate_of_the_source_takes_every_frame_once() -> None:
    assert chosen([index / 10 for index in range(30)], 10) == [(index, index) for index in range(30)]


@pytest.mark.parametrize("first_tick", range(0, 40, 3))
def test_ticks_from_the_middle_are_those_of_the_whole(first_tick: int) -> None:
    times_s = np.cumsum(np.random.default_rng(1).uniform(0.02, 0.3, 40)).tolist()
    whole = chosen(times_s, 10)
    assert chosen(times_s, 10, first_tick) == [pair for pair in whole if pair[0] >= first_tick]


def test_no_frame_no_tick_and_one_frame_one_tick() -> None:
    assert chosen([], 10) == []
    assert chosen([0.0], 10) == [(0, 0)]


def test_frame_that_lasts_too_long_leaves_a_hole_and_costs_nothing() -> None:
    far_s = 3600.0 * 50
    assert chosen([0.0, 0.1, far_s, far_s + 0.1], 10) == [(0, 0), (1, 1), (1800000, 2), (1800001, 3)]
    assert len(chosen([0.0, MAX_HOLD_S, 2 * MAX_HOLD_S], 10)) == 201


def test_rounding_does_not_lose_a_tick() -> None:
    for tick, fps in itertools.product(range(2000), (10.0, 29.97, 30.0)):
        assert tick_after(tick / fps, fps) == tick_before(tick / fps, fps) == tick


def split(frames: list[int], shots: list[int] | None = None, **options: int | float) -> list[object]:
    """Runs as lists of frames, dropped ones as (start, reason); the frame's number stands for its pixels."""
    ticks = [Tick(k, f, shots[k] if shots else 0, f) for k, f in enumerate(frames) if f >= 0]
    runs = split_clips(ticks, lambda frame: frame, **({"num_frames": 3, "stride": 3} | options))  # type: ignore[arg-type]
    return [(run.start_tick, run.reason) if isinstance(run, DroppedClip) else [t.item for t in run] for run in runs]


def test_runs_are_back_to_back_and_the_short_rest_is_dropped() -> None:
    assert split(list(range(8))) == [[0, 1, 2], [3, 4, 5]]


def test_stride_thins_or_overlaps() -> None:
    assert split(list(range(10)), stride=5) == [[0, 1, 2], [5, 6, 7]]
    assert split(list(range(6)), stride=1) == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]


def test_run_ends_at_a_cut_and_the_grid_starts_again_there() -> None:
    assert split(list(range(9)), [0, 0, 0, 0, 1, 1, 1, 1, 1]) == [[0, 1, 2], (3, "cut"), [4, 5, 6]]


def test_cut_between_runs_drops_nothing() -> None:
    assert split(list(range(6)), [0, 0, 0, 1, 1, 1]) == [[0, 1, 2], [3, 4, 5]]


def test_cut_where_no_run_is_leaves_the_stride() -> None:
    assert split(list(range(10)), [0, 0, 0, 0, 1, 1, 1, 1, 1, 1], stride=6) == [[0, 1, 2], [6, 7, 8]]


def test_cut_drops_every_run_it_breaks() -> None:
    assert split(list(range(7)), [0, 0, 0, 1, 1, 1, 1], stride=1) == [
        [0, 1, 2],
        (1, "cut"),
        (2, "cut"),
        [3, 4, 5],
        [4, 5, 6],
    ]


def test_no_run_spans_two_shots_whatever_the_cuts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        shots = np.cumsum(rng.random(60) < 0.15).tolist()
        num_frames, stride = int(rng.integers(1, 8)), int(rng.integers(1, 12))
        runs = [run for run in split(list(range(60)), shots, num_frames=num_frames, stride=stride) if type(run) is list]
        assert all(len({shots[frame] for frame in run}) == 1 and len(run) == num_frames for run in runs)
        starts = [run[0] for run in runs]
        assert all(b - a >= stride or shots[a] != shots[b] for a, b in itertools.pairwise(starts))


def test_hole_in_the_ticks_ends_a_run() -> None:
    assert split([0, 1, 2, 3, -1, -1, -1, 7, 8, 9]) == [[0, 1, 2], (3, "repeats"), [7, 8, 9]]
    assert split([0, 1, 2, -1, -1, -1, -1, 7, 8, 9]) == [[0, 1, 2], [7, 8, 9]]


def test_run_with_too_many_repeats_is_dropped_but_keeps_its_place() -> None:
    frames = [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8]
    assert split(frames, num_frames=4, stride=4, max_repeat_ratio=0.25) == [
        [0, 1, 2, 3],
        (4, "repeats"),
        [6, 7, 8, 8],
    ]


@pytest.mark.parametrize("stride", [2, 3, 5])
def test_ranges_tile_the_whole(stride: int) -> None:
    """Ranges start at multiples of the stride and end with their last clip."""
    whole = split(list(range(40)), stride=stride)
    parts = [
        run
        for first in range(0, 40, 2 * stride)
        for run in split(
            [-1] * first + list(range(first, 40)), stride=stride, first_tick=first, end_tick=first + stride + 3
        )
    ]
    assert parts == whole


def test_reading_stops_at_the_end_of_the_range() -> None:
    def ticks() -> object:
        for tick in range(100):
            assert tick < 8
            yield Tick(tick, tick, 0, tick)

    runs = split_clips(ticks(), lambda item: item, num_frames=3, stride=3, end_tick=7)  # type: ignore[arg-type]
    assert len(list(runs)) == 2
