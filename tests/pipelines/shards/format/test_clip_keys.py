"""What a clip was cut from, read from its key."""

import pytest

from pipelines.shards.format.clip_keys import clip_key, source_of


@pytest.mark.parametrize("video", ["a", "beach/run_2", "x_t00000010"])
@pytest.mark.parametrize("tick", [0, 40, 123_456_789])
def test_the_video_is_found_again(video: str, tick: int) -> None:
    assert source_of(clip_key(video, tick), "clip") == video


def test_a_numbered_key_is_of_a_video_too() -> None:
    assert source_of("a_t00000040_2", "clip") == "a"


@pytest.mark.parametrize(("key", "kind"), [("a_t00000040", "image"), ("adopted/0001", "clip"), ("a_t40", "clip")])
def test_other_keys_stay(key: str, kind: str) -> None:
    assert source_of(key, kind) == key  # type: ignore[arg-type]
