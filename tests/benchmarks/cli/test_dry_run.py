"""What `shards build --dry-run` prints, and how its --ranks is read."""

import pytest

from benchmarks.cli import dry_run
from benchmarks.cli.dry_run import num_readers_of
from pipelines.base.errors import UsageError
from pipelines.shards.dry_run.source_videos import SourceVideos


@pytest.mark.parametrize(("text", "number"), [("8x4", 32), ("8", 8), ("1x1", 1), ("1024x16", 16384)])
def test_ranks_times_workers(text: str, number: int) -> None:
    assert num_readers_of(text) == number


@pytest.mark.parametrize("text", ["", "x", "8x", "0x4", "8x0", "-1x2", "8x4x2", "many"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--ranks.*8x4"):
        num_readers_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert dry_run._duration(seconds) == text


def test_long_lists_end_with_their_number() -> None:
    assert dry_run._listed([]) is None
    assert dry_run._listed(["a", "b"]) == "a, b"
    assert dry_run._listed(list("abcdefgh"), "; ") == "a; b; c; d; e; 3 more"


def test_videos_say_what_a_random_clip_costs() -> None:
    videos = SourceVideos(
        num_videos=3,
        codecs={"h264": 2, "mpeg4": 1},
        median_fps=29.97,
        num_variable_rate=1,
        num_interlaced=0,
        num_rotated=0,
        median_gop_frames=250,
        max_gop_frames=300,
        frames_per_random_clip=152.4,
        frames_per_stored_clip=10,
    )
    text = dry_run._videos_text(videos)
    assert text is not None
    assert text.startswith("2 h264, 1 mpeg4, 1 of variable rate; 29.97 frames/s; a keyframe every 250 frames")
    assert "about 152 decoded frames; from a shard 10" in text
    assert "interlaced" not in text
