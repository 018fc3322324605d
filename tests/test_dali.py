"""The DALI backend against the OpenCV backend and hand-made frames, on the CPU; its GPU graphs traced without a GPU.

Tolerances. Crop without resize: both decode with libjpeg-turbo, so PNG is equal and JPEG within 3 levels. Growing: the
same linear rule, within 2. Shrinking differs by design: OpenCV averages areas (a box), DALI filters with a triangle of
twice the width. Measured on 171 photos: shrunk by 1.14, 0.3 levels in the mean and 3 at the 99th percentile; by 1.5,
0.9 and 7; by 2.1, 1.3 and 10; by 2.9, 1.6 and 11; grown by 1.16, 0.1 and 1.
Clips also differ in how chroma is scaled up: 2 levels in the mean, 8 at the 99th percentile.
"""

import importlib
import io
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.backends.dali import DaliBackend, canvas_graph, clip_graph, require_dali
from pipelines.backends.opencv import OpenCVBackend
from pipelines.errors import UsageError
from tests.pictures import encode, encode_clip, smooth_picture


def dali_works():
    """Loaded, and able to decode: its image codecs come in packages of their own."""
    try:
        require_dali()
        importlib.import_module("nvidia.nvimgcodec")
    except (UsageError, ImportError):
        return False
    return True


needs_dali = pytest.mark.skipif(not dali_works(), reason="NVIDIA DALI is not installed")


@pytest.fixture(scope="module")
def dali():
    backend = DaliBackend(device=torch.device("cpu"), num_threads=2)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def opencv():
    backend = OpenCVBackend(num_threads=2)
    yield backend
    backend.close()


def canvases(backend, encoded, boxes, canvas_px, flips=None):
    flips = [index % 2 == 1 for index in range(len(boxes))] if flips is None else flips
    views = [memoryview(one) for one in encoded]
    return backend.canvases(views, np.array(boxes, np.int32), np.array(flips, bool), canvas_px)


def difference(first, second):
    return (first.cpu().numpy().astype(int) - second.cpu().numpy()).__abs__()


@needs_dali
@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("jpg", 3), ("webp", 3)])
def test_crops_without_resize_agree(dali, opencv, suffix, tolerance):
    encoded = [encode(smooth_picture(seed, 90, 70), suffix) for seed in range(4)]
    boxes = [(11, 7, 59, 55), (0, 0, 48, 48), (42, 22, 90, 70), (5, 9, 53, 57)]
    ours, theirs = (canvases(backend, encoded, boxes, 48) for backend in (dali, opencv))
    assert ours.failures == []
    assert difference(ours.pixels, theirs.pixels).max() <= tolerance


@needs_dali
def test_grown_canvases_agree(dali, opencv):
    encoded = [encode(smooth_picture(seed, 60, 50), "png") for seed in range(4)]
    boxes = [(10, 5, 42, 37)] * 4
    ours, theirs = (canvases(backend, encoded, boxes, 96).pixels for backend in (dali, opencv))
    assert difference(ours, theirs).max() <= 2


@needs_dali
@pytest.mark.parametrize(("canvas_px", "mean", "p99"), [(245, 0.6, 6), (148, 1.5, 11)])
def test_shrunk_photos_agree_within_the_filters_difference(dali, opencv, shared_data, canvas_px, mean, p99):
    with tarfile.open(shared_data / "photos1k.tar") as tar:
        members = [member for member in tar if member.name.endswith(".jpg")][:48]
        encoded = [tar.extractfile(member).read() for member in members]
    encoded = [one for one in encoded if min(Image.open(io.BytesIO(one)).size) >= 280]
    assert len(encoded) >= 24
    boxes = [(0, 0, 280, 280)] * len(encoded)
    ours, theirs = (canvases(backend, encoded, boxes, canvas_px).pixels for backend in (dali, opencv))
    differences = difference(ours, theirs)
    assert differences.mean() <= mean
    assert np.percentile(differences, 99) <= p99


@needs_dali
def test_exif_orientation_is_applied_before_the_crop(dali, opencv):
    tags, buffer = Image.Exif(), io.BytesIO()
    tags[0x0112] = 6
    Image.fromarray(smooth_picture(4, 60, 40)).save(buffer, "JPEG", quality=95, exif=tags)
    ours, theirs = (canvases(backend, [buffer.getvalue()], [(2, 10, 38, 46)], 36).pixels for backend in (dali, opencv))
    assert difference(ours, theirs).max() <= 3


@needs_dali
def test_a_bad_image_does_not_kill_its_batch(dali, opencv):
    pictures = [encode(smooth_picture(seed, 40, 40), "png") for seed in range(4)]
    damaged = bytearray(pictures[1])
    damaged[41:60] = bytes(19)  # a whole file by its header and its end, but no valid zlib stream
    encoded = [pictures[0], bytes(damaged), pictures[2], pictures[3][:100], b"junk"]
    boxes = [(0, 0, 40, 40)] * 5
    decoded = canvases(dali, encoded, boxes, 40, [False] * 5)
    assert [index for index, _ in decoded.failures] == [1, 3, 4]
    assert all(reason for _, reason in decoded.failures)
    expected = canvases(opencv, [pictures[index] for index in (0, 2, 2, 0, 0)], boxes, 40, [False] * 5)
    torch.testing.assert_close(decoded.pixels, expected.pixels, rtol=0, atol=0)
    again = canvases(dali, pictures, boxes[:4], 40, [False] * 4)
    assert again.failures == []


@needs_dali
def test_a_batch_without_a_good_image_is_black(dali):
    decoded = canvases(dali, [b"junk", b""], [(0, 0, 4, 4)] * 2, 40)
    assert len(decoded.failures) == 2
    assert decoded.pixels.shape == (2, 40, 40, 3)
    assert not decoded.pixels.any()


@needs_dali
def test_batches_of_any_size_and_earlier_batches_stay_as_they_were(dali, opencv):
    encoded = [encode(smooth_picture(seed, 40, 40), "png") for seed in range(9)]
    results = [canvases(dali, encoded[:count], [(0, 0, 40, 40)] * count, 20).pixels for count in (2, 9, 1, 5)]
    copies = [pixels.clone() for pixels in results]
    for _ in range(3):
        canvases(dali, encoded[::-1], [(0, 0, 30, 30)] * 9, 20)
    for kept, copy in zip(results, copies, strict=True):
        torch.testing.assert_close(kept, copy, rtol=0, atol=0)


@needs_dali
@pytest.mark.parametrize("codec", ["mjpeg", "libvpx-vp9"])
def test_clips_agree(dali, opencv, codec):
    wide = smooth_picture(3, 200, 96)
    clip = encode_clip([wide[:, 3 * frame : 3 * frame + 128] for frame in range(7)], codec)
    results = [backend.clips([memoryview(clip)] * 2, np.array([False, True]), 6, 72, 96) for backend in (dali, opencv)]
    assert [result.failures for result in results] == [[], []]
    differences = difference(results[0].pixels, results[1].pixels)
    assert results[0].pixels.shape == (2, 6, 72, 96, 3)
    assert differences.mean() <= 2
    assert np.percentile(differences, 99) <= 8


@needs_dali
def test_bad_and_short_clips_are_named(dali):
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (40, 80, 120, 160)]
    good, short = encode_clip(frames), encode_clip(frames[:2])
    views = [memoryview(clip) for clip in (good, short, b"junk" * 30, good)]
    decoded = dali.clips(views, np.zeros(4, bool), 4, 24, 32)
    assert [index for index, _ in decoded.failures] == [1, 2]
    torch.testing.assert_close(decoded.pixels[1], decoded.pixels[3], rtol=0, atol=0)


@needs_dali
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_graphs_are_valid_for_both_devices(device):
    # DALI checks operators and argument names when a graph is defined, for which no GPU is needed.
    pipeline = require_dali().Pipeline(batch_size=1, num_threads=1, device_id=None, exec_dynamic=True)
    with pipeline:
        pixels, frames = canvas_graph(device, 64), clip_graph(device, 4, 48, 64)
    assert (pixels.device, frames.device) == (device, device)


def test_missing_dali_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(UsageError, match=r"pip install 'fourfold\[cuda13\]'"):
        require_dali()


@pytest.mark.cuda
def test_gpu_canvases_agree_with_opencv(opencv):
    gpu = DaliBackend(device=torch.device("cuda", 0), num_threads=2)
    encoded = [encode(smooth_picture(seed, 90, 70)) for seed in range(8)]
    boxes = [(11, 7, 59, 55)] * 8
    ours, theirs = (canvases(backend, encoded, boxes, 48) for backend in (gpu, opencv))
    assert ours.pixels.is_cuda
    # nvJPEG scales chroma up in another way than libjpeg-turbo.
    assert difference(ours.pixels, theirs.pixels).mean() <= 2
    damaged = [encoded[0], b"junk", encoded[2][:400]]
    assert [index for index, _ in canvases(gpu, damaged, boxes[:3], 48).failures] == [1, 2]


@pytest.mark.cuda
def test_gpu_clips_agree_with_opencv(opencv):
    gpu = DaliBackend(device=torch.device("cuda", 0), num_threads=2)
    wide = smooth_picture(3, 400, 240)
    clip = memoryview(encode_clip([wide[:, 3 * frame : 3 * frame + 320] for frame in range(6)], "libvpx-vp9"))
    results = [backend.clips([clip] * 2, np.array([False, True]), 6, 120, 160) for backend in (gpu, opencv)]
    assert results[0].failures == []
    assert difference(results[0].pixels, results[1].pixels).mean() <= 3
