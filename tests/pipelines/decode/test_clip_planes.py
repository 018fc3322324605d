"""Planes against OpenCV's gray and against the backend's own clips in color."""

import cv2
import numpy as np
import pytest
import torch

from pipelines.decode import opencv
from pipelines.decode.clip_planes import chosen_frames, planes_of
from pipelines.decode.opencv import OpenCVBackend
from tests.made.pictures import encode_clip, smooth_picture

SIZE = (48, 64)


@pytest.fixture
def backend():
    opened = OpenCVBackend(num_threads=2)
    yield opened
    opened.close()


def frames(num_frames: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """A picture that gets darker."""
    picture = smooth_picture(0, width, height)
    return [np.uint8(picture * (1 - index / (2 * num_frames))) for index in range(num_frames)]


def decode(backend, clips, *, flips=None, num_frames=10, size=SIZE, first_only=None):
    flips = np.zeros(len(clips), bool) if flips is None else np.array(flips)
    first_only = None if first_only is None else np.array(first_only)
    return backend.clip_planes([memoryview(clip) for clip in clips], flips, num_frames, *size, first_only_B=first_only)


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(10, (0, 1, 2)), (3, (0, 1, 2)), (2, (0, 1)), (1, (0,))],
)
def test_chosen_frames(num_frames, expected):
    assert chosen_frames(num_frames) == expected


def test_planes_are_the_first_frame_and_gray_as_opencv_has_it():
    clips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 10, 24, 32, 3), dtype=np.uint8))
    planes = planes_of(clips).numpy()
    assert planes.shape == (2, 6, 24, 32)
    np.testing.assert_array_equal(planes[:, :3], clips[:, 0].numpy().transpose(0, 3, 1, 2))
    for plane, index in zip(planes[1, 3:], chosen_frames(10), strict=True):
        np.testing.assert_array_equal(plane, cv2.cvtColor(clips[1, index].numpy(), cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize("codec", ["mjpeg", "libvpx-vp9"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_backend_decodes_what_its_clips_show(backend, codec, flip):
    encoded = encode_clip(frames(10), codec)
    planes = decode(backend, [encoded], flips=[flip]).pixels
    clips = backend.clips([memoryview(encoded)], np.array([flip]), 10, *SIZE).pixels
    expected = planes_of(clips)
    assert torch.equal(planes[:, :3], expected[:, :3])
    # Luma skips the way through colors, which rounds and clips.
    assert (planes[:, 3:].int() - expected[:, 3:].int()).abs().float().mean() < 1.5


def test_frames_that_nobody_looks_at_may_be_damaged(backend):
    """In MJPEG they are not even decoded."""
    pictures = frames(10)
    encoded = bytearray(encode_clip(pictures, "mjpeg"))
    whole = decode(backend, [bytes(encoded)])
    starts = [place for place in range(len(encoded) - 1) if encoded[place : place + 3] == b"\xff\xd8\xff"]
    encoded[starts[4] + 300 : starts[5] - 10] = bytes(starts[5] - starts[4] - 310)
    damaged = decode(backend, [bytes(encoded)])
    assert damaged.failures == []
    assert torch.equal(whole.pixels, damaged.pixels)


def test_a_frame_that_is_cut_off_is_named(backend):
    """OpenCV would fill the rest with gray, and FFmpeg conceal it."""
    encoded = bytearray(encode_clip(frames(10), "mjpeg"))
    starts = [place for place in range(len(encoded) - 1) if encoded[place : place + 3] == b"\xff\xd8\xff"]
    middle = (starts[2] + starts[3]) // 2
    encoded[middle : starts[3]] = bytes(starts[3] - middle)
    assert "cut off" in dict(decode(backend, [bytes(encoded)]).failures)[0]


@pytest.mark.parametrize("codec", ["mjpeg", "libvpx-vp9"])
def test_only_three_frames_are_decoded_and_all_are_counted(backend, codec, monkeypatch):
    """Of VP9, by the decoder; of MJPEG, by the pictures that OpenCV is given."""
    encoded, decoded = encode_clip(frames(10), codec), []
    spied = opencv._luma
    monkeypatch.setattr(opencv, "_luma", lambda frame: decoded.append(1) or spied(frame))
    _, num_found = opencv._video_frames(memoryview(encoded), 3)
    assert num_found == 10
    assert len(opencv._video_frames(memoryview(encoded), 3)[0]) == 3
    assert decode(backend, [encoded]).failures == []
    assert len(decoded) == 2  # the first frame is decoded in color
    too_few = decode(backend, [encode_clip(frames(9), codec)]).failures
    assert "holds 9 frames, need 10" in too_few[0][1]


def test_bad_clips_are_named_and_filled(backend):
    good = encode_clip(frames(10), "mjpeg")
    decoded = decode(backend, [good, b"junk" * 20, encode_clip(frames(9), "mjpeg")])
    assert [index for index, _ in decoded.failures] == [1, 2]
    assert "holds 9 frames, need 10" in decoded.failures[1][1]
    assert torch.equal(decoded.pixels[1], decoded.pixels[0])


@pytest.mark.parametrize("codec", ["mjpeg", "libvpx-vp9"])
@pytest.mark.parametrize("flip", [False, True])
def test_of_some_clips_only_the_first_frame_is_decoded(backend, codec, flip):
    clips = [encode_clip(frames(10), codec), encode_clip(frames(10)[::-1], codec)]
    whole = decode(backend, clips, flips=[flip, flip])
    part = decode(backend, clips, flips=[flip, flip], first_only=[True, False])
    assert part.failures == []
    assert torch.equal(part.pixels[:, :3], whole.pixels[:, :3])
    assert torch.equal(part.pixels[1], whole.pixels[1])


def test_a_clip_whose_first_frame_is_wanted_may_end_after_it(backend):
    torn = encode_clip(frames(1), "mjpeg")
    decoded = decode(backend, [torn, torn, b"junk" * 20], first_only=[True, False, True])
    assert [index for index, _ in decoded.failures] == [1, 2]
