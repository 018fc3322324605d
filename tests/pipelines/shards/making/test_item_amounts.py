from dataclasses import dataclass, replace

import pytest

from pipelines.shards.making.item_amounts import Amount, amount_of_image, amount_of_video


@dataclass
class Video:
    duration_s: float | None = 10.0
    width: int = 640
    height: int = 480
    is_seekable: bool = True
    fps: float | None = 30.0


def amount(video: Video | None, fps: float = 24.0, stride_s: float | None = None, num_frames: int = 10) -> Amount:
    return amount_of_video(video, num_frames=num_frames, fps=fps, stride_s=stride_s, short_side_px=240, codec="mjpeg")


@pytest.mark.parametrize(
    ("video", "stride_s", "num_clips", "fps"),
    [
        (Video(), None, 24, 24.0),
        (Video(), 1.0, 10, 24.0),
        # At its own rate a clip lasts longer: 1 s at 10 fps, 5 s at 2.
        (Video(fps=10.0), None, 10, 10.0),
        (Video(fps=2.0), None, 2, 2.0),
        (Video(fps=None), None, 24, 24.0),
        (Video(fps=0.0), None, 1, 0.01),
        (Video(duration_s=0.1), None, 1, 24.0),
    ],
)
def test_clips_are_counted_at_the_rate_that_they_will_have(
    video: Video, stride_s: float | None, num_clips: int, fps: float
) -> None:
    found = amount(video, stride_s=stride_s)
    assert (found.num_samples, found.fps, found.is_whole) == (num_clips, fps, False)


@pytest.mark.parametrize("video", [None, Video(duration_s=None), Video(height=0)])
def test_a_video_of_unknown_length_is_one_piece(video: Video | None) -> None:
    found = amount(video)
    assert (found.num_samples, found.is_whole, found.fps) == (1, True, 24.0)


def test_bytes_follow_the_stored_size() -> None:
    large, same = amount(Video(width=1280, height=960)), amount(Video(width=320, height=240))
    assert large.sample_bytes == same.sample_bytes == pytest.approx(10 * 320 * 240 * 0.11, rel=0.05)
    assert amount(replace(Video(), is_seekable=False)).is_whole


def test_an_image_is_one_sample_and_an_unknown_size_is_guessed() -> None:
    assert amount_of_image(1000)[0::2] == (1, False)
    # Two members of a tar, each with a header and a padded content, and the image's own.
    assert amount_of_image(1000).sample_bytes - amount_of_image(0).sample_bytes == 1024
    assert amount_of_image(-1) == amount_of_image(100_000)
