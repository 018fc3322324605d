"""Frames of MJPEG clips as JPEG files, read with Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.backends.jpeg_frames import jpeg_frames
from tests.pictures import encode_clip

LEVELS = (40, 80, 120, 160, 200)


def clip(codec="mjpeg"):
    return memoryview(encode_clip([np.full((48, 64, 3), level, np.uint8) for level in LEVELS], codec))


def test_chosen_frames_are_pictures_by_themselves():
    pictures = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in jpeg_frames(clip(), (0, 2, 3))]
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 3
    assert [picture.mean() for picture in pictures] == pytest.approx([40, 120, 160], abs=1)


def test_of_a_short_clip_there_are_fewer():
    assert len(jpeg_frames(clip(), (0, 4, 5, 9))) == 2


@pytest.mark.parametrize(
    "encoded", [clip("libvpx-vp9"), memoryview(b"junk" * 30), memoryview(b"")], ids=["vp9", "junk", "empty"]
)
def test_what_is_no_mjpeg_is_left_to_others(encoded):
    assert jpeg_frames(encoded, (0, 1)) is None
