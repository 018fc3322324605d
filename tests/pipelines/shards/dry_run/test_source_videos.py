"""What a dry run says of the source videos, against films whose keyframes are known."""

from pathlib import Path

import pytest

from pipelines.shards.dry_run.source_videos import look_at_videos, summarize
from pipelines.shards.dry_run.trial import spread
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.making.planning import plan_build
from pipelines.shards.media.videos import VideoInfo
from tests.made.films import numbered, write_film


def info(gop_frames: int | None, fps: float | None = 30.0, **changes: object) -> VideoInfo:
    facts = {"duration_s": 10.0, "width": 64, "height": 48, "codec": "h264", "is_interlaced": False}
    return VideoInfo(**(facts | {"is_seekable": True, "fps": fps, "gop_frames": gop_frames} | changes))


def test_cost_of_a_random_clip_follows_from_the_gop() -> None:
    found = summarize([info(30), info(250), info(40)], num_frames=10, fps=10.0)
    assert (found.median_gop_frames, found.max_gop_frames) == (40, 250)
    # 0.9 s at 30 frames/s are 28 frames; the keyframe is up to 39 frames before, 19.5 on average
    assert found.frames_per_random_clip == pytest.approx(28 + 19.5)
    assert found.frames_per_stored_clip == 10


def test_only_keyframes_cost_nothing_more() -> None:
    assert summarize([info(1, 10.0)], num_frames=10, fps=10.0).frames_per_random_clip == 10


def test_unmeasured_videos_count_but_have_no_gop() -> None:
    found = summarize([info(None, None), info(None, codec="vp9", is_variable_rate=True, rotation_deg=90)], 10, 10.0)
    assert (found.num_videos, found.codecs) == (2, {"h264": 1, "vp9": 1})
    assert (found.median_gop_frames, found.frames_per_random_clip) == (None, None)
    assert (found.num_variable_rate, found.num_rotated, found.num_interlaced) == (1, 1, 0)


def test_real_films_are_measured_and_broken_ones_passed_over(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_film(films / "a.mp4", [numbered(index) for index in range(50)], gop=12)
    (films / "b.mp4").write_bytes(b"no video at all")
    found = look(films, tmp_path)
    assert found is not None
    assert (found.num_videos, found.codecs, found.median_fps) == (1, {"h264": 1}, 25)
    assert found.median_gop_frames == 12


def test_nothing_readable_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    assert look(tmp_path / "b.mp4", tmp_path) is None


def look(source: Path, folder: Path) -> object:
    plan = plan_build(BuildConfig(sources=[source], out=folder / "out"), folder).plan
    return look_at_videos(spread(plan, "clip"), num_frames=10, fps=10.0)
