import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.shards.making.shard_packer import ClipCutter, ImageCutter, Limits, shard_ends


def one_by_one(sizes: list[int], limits: Limits) -> list[int]:
    ends, samples, total = [], 0, 0
    for at, size in enumerate(sizes):
        samples, total = samples + 1, total + size
        if samples >= limits.max_samples or total >= limits.max_bytes:
            ends.append(at + 1)
            samples = total = 0
    return ends


@given(st.lists(st.integers(1, 50)), st.integers(1, 10), st.integers(1, 200))
def test_shards_end_where_counting_one_by_one_ends_them(sizes: list[int], max_samples: int, max_bytes: int) -> None:
    limits = Limits(max_samples=max_samples, max_bytes=max_bytes)
    assert shard_ends(np.array(sizes, np.int64), limits) == one_by_one(sizes, limits)


def images(sizes: list[int]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(len(sizes))), pa.array(sizes, pa.int64())], ["row", "sample_bytes"])


@pytest.mark.parametrize("step", [1, 2, 5, 100])
def test_batches_in_make_no_difference(step: int) -> None:
    sizes = [1 + at % 7 for at in range(60)]
    limits = Limits(max_samples=9, max_bytes=25)
    cutter = ImageCutter(limits=limits)
    whole = images(sizes)
    shards = [shard for start in range(0, 60, step) for shard in cutter.cut(whole.slice(start, step))]
    shards += cutter.rest()
    ends = np.cumsum([shard.num_rows for shard in shards]).tolist()
    assert ends == [*one_by_one(sizes, limits), 60] or ends == one_by_one(sizes, limits)
    assert [row for shard in shards for row in shard.column("row").to_pylist()] == list(range(60))


def videos(num_clips: list[int], clip_bytes: int = 1, is_whole: bool = False, fps: float = 10.0) -> pa.RecordBatch:
    count = len(num_clips)
    columns = {
        "row": pa.array(range(count)),
        "num_samples": pa.array(num_clips, pa.int32()),
        "sample_bytes": pa.array([clip_bytes] * count, pa.int64()),
        "is_whole": pa.array([is_whole] * count).cast(pa.int8()),
        "start_s": pa.array([0.0] * count),
        "end_s": pa.array([-1.0] * count),
        "fps": pa.array([fps] * count),
    }
    return pa.record_batch(list(columns.values()), list(columns))


def pieces(cutter: ClipCutter, *given: pa.RecordBatch) -> list[list[tuple[int, float, float, int]]]:
    """(video, from s, to s, clips) of each shard."""
    shards = [shard for rows in given for shard in cutter.cut(rows)] + cutter.rest()
    names = ("row", "start_s", "end_s", "num_samples")
    return [list(zip(*(shard.column(name).to_pylist() for name in names), strict=True)) for shard in shards]


def test_a_long_video_goes_on_in_the_next_shards() -> None:
    cutter = ClipCutter(limits=Limits(max_samples=4, max_bytes=1000), num_frames=5, stride_s=0.5)
    assert pieces(cutter, videos([2, 9, 1])) == [
        [(0, 0.0, -1.0, 2), (1, 0.0, 1.0, 2)],
        [(1, 1.0, 3.0, 4)],
        [(1, 3.0, -1.0, 3), (2, 0.0, -1.0, 1)],
    ]


@pytest.mark.parametrize(("num_frames", "end_s"), [(5, 2.5), (10, 3.0), (40, 6.0)])
def test_a_range_ends_with_its_last_clip(num_frames: int, end_s: float) -> None:
    cutter = ClipCutter(limits=Limits(max_samples=3, max_bytes=1000), num_frames=num_frames, stride_s=1.0)
    assert [shard[0][1:3] for shard in pieces(cutter, videos([5]))] == [(0.0, end_s), (3.0, -1.0)]


def test_bytes_limit_clips_too() -> None:
    cutter = ClipCutter(limits=Limits(max_samples=100, max_bytes=25), num_frames=10, stride_s=1.0)
    assert [sum(piece[3] for piece in shard) for shard in pieces(cutter, videos([7], clip_bytes=10))] == [3, 3, 1]


def test_a_video_that_cannot_be_divided_overfills_its_shard() -> None:
    cutter = ClipCutter(limits=Limits(max_samples=4, max_bytes=1000), num_frames=10, stride_s=1.0)
    assert pieces(cutter, videos([3, 6, 1], is_whole=True)) == [
        [(0, 0.0, -1.0, 3), (1, 0.0, -1.0, 6)],
        [(2, 0.0, -1.0, 1)],
    ]


@settings(deadline=None)  # a busy machine takes longer
@given(st.lists(st.integers(1, 12), min_size=1), st.integers(1, 5))
def test_no_clip_is_lost_and_no_shard_too_full(num_clips: list[int], max_samples: int) -> None:
    cutter = ClipCutter(limits=Limits(max_samples=max_samples, max_bytes=10**9), num_frames=10, stride_s=1.0)
    half = len(num_clips) // 2
    parts = [part for part in (videos(num_clips).slice(0, half), videos(num_clips).slice(half)) if part.num_rows]
    found = pieces(cutter, *parts)
    assert [sum(piece[3] for piece in shard) for shard in found[:-1]] == [max_samples] * (len(found) - 1)
    assert sum(piece[3] for shard in found for piece in shard) == sum(num_clips)
