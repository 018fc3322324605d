"""The DALI backend against the OpenCV backend and hand-made frames, on the CPU; its GPU graphs traced without a GPU.

Tolerances, per operation, in levels of 255 (docs/pipelines.md has the table). Decode and crop: PNG equal, JPEG and
WebP within 3. Mirror: equal to the mirrored image. Growing and shrinking: the same rule, linear and antialiased by a
triangle; rounding leaves 0.2 levels in the mean and 1 at the 99th percentile, and at the border, where DALI repeats the
last pixel and torch leaves out what is not there, up to 12. From 4 on the opencv backend decodes at reduced size first:
0.6 and 4 at a factor of 4, 0.9 and 6 at 8. Measured on 24 photos.
Clips also differ in how chroma is scaled up: 2 levels in the mean, 8 at the 99th percentile.
"""

import io
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.base.errors import UsageError
from pipelines.decode.clip_planes import planes_of
from pipelines.decode.dali import DaliBackend, canvas_graph, clip_graph, jpeg_graph, require_dali
from pipelines.decode.jpeg_frames import jpeg_frames
from pipelines.decode.opencv import OpenCVBackend
from tests.conftest import SHARED_DATA
from tests.made.dali import needs_dali
from tests.made.pictures import encode, encode_clip, smooth_picture


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


@pytest.fixture(scope="module")
def photos_280():
    """48 encoded photos that hold a box of 280 x 280."""
    path = SHARED_DATA / "photos1k.tar"
    if not path.is_file():
        pytest.skip("no real data beside the repository")
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.name.endswith(".jpg")][:48]
        encoded = [tar.extractfile(member).read() for member in members]
    fit = [one for one in encoded if min(Image.open(io.BytesIO(one)).size) >= 280]
    assert len(fit) >= 24
    return fit[:24]


@needs_dali
@pytest.mark.parametrize(
    ("canvas_px", "mean", "p99"),
    [
        (280, 0.05, 1),
        (245, 0.25, 1),
        (224, 0.25, 1),
        (187, 0.25, 1),
        (140, 0.25, 1),
        (97, 0.25, 1),
        (70, 0.8, 5),
        (35, 1.1, 8),
    ],
)
def test_shrunk_photos_agree(dali, opencv, photos_280, canvas_px, mean, p99):
    boxes = [(0, 0, 280, 280)] * len(photos_280)
    ours, theirs = (canvases(backend, photos_280, boxes, canvas_px).pixels for backend in (dali, opencv))
    differences = difference(ours, theirs)
    assert differences.mean() <= mean
    assert np.percentile(differences, 99) <= p99


@needs_dali
@pytest.mark.parametrize("canvas_px", [300, 420, 560])
def test_grown_photos_agree(dali, opencv, photos_280, canvas_px):
    boxes = [(20, 30, 220, 230)] * 8
    ours, theirs = (canvases(backend, photos_280[:8], boxes, canvas_px).pixels for backend in (dali, opencv))
    assert difference(ours, theirs).max() <= 3


@needs_dali
@pytest.mark.parametrize("canvas_px", [36, 48, 40, 20, 100])
def test_mirrored_is_the_mirror_image(dali, canvas_px):
    encoded = [encode(smooth_picture(5, 60, 60), "png")] * 2
    plain, mirrored = canvases(dali, encoded, [(3, 4, 51, 52)] * 2, canvas_px, [False, True]).pixels
    torch.testing.assert_close(mirrored, plain.flip(1), rtol=0, atol=0)


def drawn_picture(kind):
    """uint8 (120, 120, 3) whose resized form can be told without a computer."""
    y, x = np.mgrid[:120, :120]
    picture = {
        "flat": np.full((120, 120, 3), (200, 30, 99)),
        "ramp": np.stack([2 * x, 2 * y, x + y], axis=-1),
        "edge": np.repeat(200 * (x >= 60)[..., None], 3, axis=-1),
    }[kind]
    return picture.astype(np.uint8)


@needs_dali
@pytest.mark.parametrize("canvas_px", [240, 150, 120, 110, 80, 60, 47, 40, 30])
@pytest.mark.parametrize(("kind", "tolerance"), [("flat", 0), ("ramp", 1), ("edge", 1)])
def test_drawn_pictures_agree_at_every_scale(dali, opencv, kind, tolerance, canvas_px):
    encoded, boxes = [encode(drawn_picture(kind), "png")], [(0, 0, 120, 120)]
    ours, theirs = (canvases(backend, encoded, boxes, canvas_px).pixels for backend in (dali, opencv))
    assert difference(ours, theirs).max() <= tolerance


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
@pytest.mark.parametrize("size", [(96, 128), (72, 96), (48, 64), (120, 160)], ids=["same", "1.3", "2", "grown"])
@pytest.mark.parametrize("codec", ["mjpeg", "libvpx-vp9"])
def test_clips_agree(dali, opencv, codec, size):
    wide = smooth_picture(3, 200, 96)
    clip = encode_clip([wide[:, 3 * frame : 3 * frame + 128] for frame in range(7)], codec)
    results = [backend.clips([memoryview(clip)] * 2, np.array([False, True]), 6, *size) for backend in (dali, opencv)]
    assert [result.failures for result in results] == [[], []]
    differences = difference(results[0].pixels, results[1].pixels)
    assert results[0].pixels.shape == (2, 6, *size, 3)
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
def test_planes_are_those_of_whole_clips(dali):
    wide = smooth_picture(4, 200, 96)
    clips = [encode_clip([wide[:, step * frame : step * frame + 128] for frame in range(8)]) for step in (3, 5)]
    given = [memoryview(clip) for clip in (*clips, b"junk" * 30)], np.array([False, True, False]), 8, 48, 64
    planes = dali.clip_planes(*given)
    expected = planes_of(dali.clips(*given).pixels)
    assert [index for index, _ in planes.failures] == [2]
    torch.testing.assert_close(planes.pixels, expected, rtol=0, atol=0)
    part = dali.clip_planes(*given, first_only_B=np.array([True, False, False]))
    assert [index for index, _ in part.failures] == [2]
    torch.testing.assert_close(part.pixels[:, :3], expected[:, :3], rtol=0, atol=0)
    torch.testing.assert_close(part.pixels[1], expected[1], rtol=0, atol=0)
    assert dali.clip_planes(*given, first_only_B=np.ones(3, bool)).pixels.shape == expected.shape


@needs_dali
def test_a_batch_may_mix_codecs(dali, opencv):
    wide = smooth_picture(3, 200, 96)
    clips = [
        encode_clip([wide[:, step * frame : step * frame + 128] for frame in range(6)], codec)
        for step, codec in ((3, "libvpx-vp9"), (5, "mjpeg"), (1, "libvpx-vp9"), (2, "mjpeg"))
    ]
    given = [memoryview(clip) for clip in clips], np.array([True, True, False, False]), 6, 48, 64
    ours, theirs = dali.clips(*given), opencv.clips(*given)
    assert ours.failures == []
    assert difference(ours.pixels, theirs.pixels).mean(axis=(1, 2, 3, 4)).max() <= 2


@needs_dali
def test_one_bad_frame_fails_its_clip_alone(dali):
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (40, 80, 120, 160)]
    clip = encode_clip(frames)
    (third,) = jpeg_frames(memoryview(clip), (2,))
    damaged = clip.replace(third, bytes(len(third)))
    decoded = dali.clips([memoryview(damaged), memoryview(clip)], np.zeros(2, bool), 4, 24, 32)
    assert [index for index, _ in decoded.failures] == [0]
    assert decoded.pixels[1].float().mean(dim=(1, 2, 3)).tolist() == pytest.approx([40, 80, 120, 160], abs=1)


@needs_dali
@pytest.mark.parametrize("bad", [[], [1]])
def test_several_sizes_of_one_decode_are_those_of_several(dali, bad):
    encoded = [memoryview(encode(smooth_picture(seed, 60, 70))) for seed in range(3)]
    for row in bad:
        encoded[row] = memoryview(bytes(encoded[row])[:200])
    given = encoded, np.array([(11, 7, 59, 55)] * 3, np.int32), np.array([False, True, True])
    for size_px, decoded in zip((40, 96), dali.canvases_of_sizes(*given, (40, 96)), strict=True):
        alone = dali.canvases(*given, size_px)
        assert torch.equal(decoded.pixels, alone.pixels)
        assert [row for row, _ in decoded.failures] == [row for row, _ in alone.failures] == bad


@needs_dali
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_graphs_are_valid_for_both_devices(device):
    # DALI checks operators and argument names when a graph is defined, for which no GPU is needed.
    pipeline = require_dali().Pipeline(batch_size=1, num_threads=1, device_id=None, exec_dynamic=True)
    with pipeline:
        outputs = *canvas_graph(device, 64, 100), *clip_graph(device, (0, 1, 3), 48, 64), *jpeg_graph(device, 48, 64)
    assert [output.device for output in outputs] == [device] * 4


def test_missing_dali_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(UsageError, match=r"pip install 'fourfold\[cuda13\]'"):
        require_dali()


@pytest.fixture(scope="module")
def gpu():
    backend = DaliBackend(device=torch.device("cuda", 0), num_threads=2)
    yield backend
    backend.close()


@pytest.mark.cuda
@pytest.mark.gpu_only
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(("canvas_px", "mean", "p99"), [(48, 0.5, 3), (96, 0.5, 3), (40, 0.6, 3), (20, 0.8, 4)])
def test_gpu_canvases_agree_with_opencv(gpu, opencv, suffix, canvas_px, mean, p99):
    encoded = [encode(smooth_picture(seed, 90, 70), suffix) for seed in range(8)]
    boxes = [(11, 7, 59, 55)] * 8
    ours, theirs = (canvases(backend, encoded, boxes, canvas_px) for backend in (gpu, opencv))
    assert ours.pixels.is_cuda
    differences = difference(ours.pixels, theirs.pixels)
    assert differences.mean() <= mean
    assert np.percentile(differences, 99) <= p99


@pytest.mark.cuda
@pytest.mark.gpu_only
def test_gpu_canvases_are_the_same_every_time(gpu):
    encoded = [encode(smooth_picture(seed, 90, 70)) for seed in range(8)]
    first = canvases(gpu, encoded, [(11, 7, 59, 55)] * 8, 40).pixels
    for _ in range(3):
        assert torch.equal(canvases(gpu, encoded, [(11, 7, 59, 55)] * 8, 40).pixels, first)


@pytest.mark.cuda
@pytest.mark.gpu_only
def test_gpu_pixels_do_not_depend_on_the_place_in_the_batch(gpu):
    encoded = [encode(smooth_picture(seed, 90, 70)) for seed in range(16)]
    together = canvases(gpu, encoded, [(11, 7, 59, 55)] * 16, 40, [False] * 16).pixels
    for row in (0, 7, 15):
        assert torch.equal(canvases(gpu, [encoded[row]], [(11, 7, 59, 55)], 40, [False]).pixels[0], together[row])


@pytest.mark.cuda
@pytest.mark.gpu_only
def test_a_bad_image_does_not_kill_its_batch_on_the_gpu(gpu):
    encoded = [encode(smooth_picture(seed, 90, 70)) for seed in range(3)]
    damaged = [encoded[0], b"junk", encoded[2][:400]]
    assert [index for index, _ in canvases(gpu, damaged, [(11, 7, 59, 55)] * 3, 48).failures] == [1, 2]
    assert canvases(gpu, encoded, [(11, 7, 59, 55)] * 3, 48).failures == []


@pytest.mark.cuda
@pytest.mark.gpu_only
@pytest.mark.parametrize("codec", ["mjpeg", "libvpx-vp9"])
@pytest.mark.parametrize("size", [(240, 320), (120, 160)])
def test_gpu_clips_agree_with_opencv(gpu, opencv, codec, size):
    wide = smooth_picture(3, 400, 240)
    clip = memoryview(encode_clip([wide[:, 3 * frame : 3 * frame + 320] for frame in range(6)], codec))
    results = [backend.clips([clip] * 2, np.array([False, True]), 6, *size) for backend in (gpu, opencv)]
    assert results[0].failures == []
    assert results[0].pixels.is_cuda
    assert difference(results[0].pixels, results[1].pixels).mean() <= 3
