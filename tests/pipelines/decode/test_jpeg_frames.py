"""Frames of MJPEG clips as JPEG files, read with Pillow."""

import io
import struct
from pathlib import Path
from tempfile import NamedTemporaryFile

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.decode.jpeg_frames import _demuxed, _places, jpeg_frames
from tests.made.pictures import encode_clip

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


def muxed(**options):
    """An MP4 of JPEGs, written with other options than ours."""
    with NamedTemporaryFile(suffix=".mp4") as file:
        write_jpegs(file.name, options)
        return memoryview(Path(file.name).read_bytes())


def write_jpegs(path, options):
    with av.open(path, "w", "mp4", options=options) as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for level in LEVELS:
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")
            container.mux(stream.encode(picture.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("options", "is_plain"),
    [({}, True), ({"movflags": "faststart"}, True), ({"movflags": "frag_keyframe+empty_moov"}, False)],
)
def test_frames_are_those_that_pyav_demuxes(options, is_plain):
    encoded = muxed(**options)
    assert (_places(encoded) is not None) == is_plain
    assert jpeg_frames(encoded, range(5)) == _demuxed(encoded, range(5))
    assert len(jpeg_frames(encoded, range(5))) == 5


def test_whether_a_plain_file_holds_jpegs_is_known_without_opening_it(monkeypatch):
    vp9, mjpeg = clip("libvpx-vp9"), clip()
    monkeypatch.setattr(av, "open", None)
    assert jpeg_frames(vp9, (0, 1)) is None
    assert len(jpeg_frames(mjpeg, (0, 1))) == 2


def test_torn_and_damaged_files_raise_nothing():
    whole, rng = bytes(muxed()), np.random.default_rng(0)
    for end in range(0, len(whole), 7):
        assert _places(memoryview(whole[:end])) is None  # the tables are at the end
    tables = whole.index(b"moov") - 4
    for _ in range(2000):
        damaged = bytearray(whole)
        for place in rng.integers(tables, len(whole), 3):
            damaged[place] = rng.integers(256)
        for start, end in _places(memoryview(bytes(damaged))) or []:
            assert 0 <= start <= end <= len(damaged)


def test_a_file_that_is_shown_from_later_is_left_to_pyav():
    whole = bytearray(muxed())
    start = whole.index(b"elst") + 4 + 12
    assert whole[start : start + 4] == bytes(4)
    whole[start + 3] = 1
    assert _places(memoryview(bytes(whole))) is None


def box(kind, *parts):
    content = b"".join(parts)
    return struct.pack(">I4s", len(content) + 8, kind) + content


def by_hand(starts, runs, sizes, equal_size=0):
    """An MP4 with these tables, whose every third byte could begin a JPEG."""
    numbers = [number for run in runs for number in (*run, 1)]
    tables = box(
        b"stbl",
        box(b"stsz", struct.pack(f">III{len(sizes)}I", 0, equal_size, 7, *sizes)),
        box(b"stsc", struct.pack(f">II{len(numbers)}I", 0, len(runs), *numbers)),
        box(b"stco", struct.pack(f">II{len(starts)}I", 0, len(starts), *starts)),
    )
    moov = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", tables))))
    return memoryview(moov + box(b"mdat", b"\xff\xd8\xff" * 1000))


def test_chunks_of_different_lengths_are_taken_apart():
    # Chunks 1 and 2 hold two frames each, 3 to 5 one: runs say only where that changes.
    starts, sizes = (600, 900, 1200, 1500, 1800), (30, 33, 36, 39, 42, 45, 48)
    places = _places(by_hand(starts, [(1, 2), (3, 1)], sizes))
    assert places == [(600, 630), (630, 663), (900, 936), (936, 975), (1200, 1242), (1500, 1545), (1800, 1848)]
    assert _places(by_hand(starts, [(1, 2), (3, 1)], (), equal_size=60))[3:5] == [(960, 1020), (1200, 1260)]


def test_tables_that_do_not_agree_are_left_to_pyav():
    assert _places(by_hand((600, 900), [(1, 2)], (30,) * 7)) is None
    assert _places(by_hand((600, 5000), [(1, 4)], (30,) * 7)) is None  # beyond the end
