"""The OpenCV backend against Pillow, scikit-image and hand-made frames."""

import io
import time
from threading import Event

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import resize as skimage_resize

from pipelines.base.thread_pool import ThreadPool
from pipelines.decode import opencv
from pipelines.decode.opencv import OpenCVBackend
from tests.made.pictures import encode, encode_clip, smooth_picture


@pytest.fixture
def backend():
    backend = OpenCVBackend(num_threads=2)
    yield backend
    backend.close()


def canvases(backend, encoded, boxes, canvas_px, flips=None):
    flips = [False] * len(boxes) if flips is None else flips
    views = [memoryview(one) for one in encoded]
    return backend.canvases(views, np.array(boxes, np.int32), np.array(flips, bool), canvas_px)


def clips(backend, encoded, flips, num_frames, height_px, width_px):
    views = [memoryview(one) for one in encoded]
    return backend.clips(views, np.array(flips, bool), num_frames, height_px, width_px)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_crop_without_resize_is_pillows(backend, suffix):
    encoded = encode(smooth_picture(0, 90, 70), suffix)
    decoded = canvases(backend, [encoded], [(11, 7, 59, 55)], 48)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))[7:55, 11:59].astype(int)
    # Two libjpeg and libwebp builds may round the conversion from YCbCr differently; PNG has none.
    assert np.abs(decoded.pixels[0].numpy() - expected).max() <= (0 if suffix == "png" else 3)
    assert decoded.pixels.dtype == torch.uint8
    assert decoded.failures == []


@pytest.mark.parametrize("canvas_px", [48, 24, 100])
def test_flip_mirrors_left_and_right(backend, canvas_px):
    encoded = encode(smooth_picture(1, 60, 60), "png")
    pixels = canvases(backend, [encoded] * 2, [(2, 3, 50, 51)] * 2, canvas_px, [False, True]).pixels
    torch.testing.assert_close(pixels[1], pixels[0].flip(1), rtol=0, atol=0)


@pytest.mark.parametrize("side_px", [21, 29, 40, 77])
def test_shrinking_is_pillows_antialiased_linear(backend, side_px):
    image = np.random.default_rng(2).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    decoded = canvases(backend, [encode(image, "png")], [(3, 2, 3 + side_px, 2 + side_px)], 20)
    crop = Image.fromarray(image).crop((3, 2, 3 + side_px, 2 + side_px))
    expected = np.asarray(crop.resize((20, 20), Image.Resampling.BILINEAR)).astype(int)
    # Both sum bytes with weights rounded to fractions of 2^n, and not the same n.
    assert np.abs(decoded.pixels[0].numpy() - expected).max() <= 2


def test_shrinking_does_not_alias(backend):
    stripes = np.zeros((120, 120, 3), np.uint8)
    stripes[:, ::2] = 255
    decoded = canvases(backend, [encode(stripes, "png")], [(0, 0, 120, 120)], 40)
    assert decoded.pixels.float().std() < 16  # 127 where every third column is taken


REDUCED_BOX = (16, 24, 16 + 128, 24 + 128)


def test_several_sizes_of_one_decode_are_those_of_several(monkeypatch):
    encoded, num_decoded = encode(smooth_picture(3, 160, 176), quality=95), []
    views, boxes, flips = [memoryview(encoded), memoryview(b"junk")], np.array([REDUCED_BOX] * 2), np.array([True] * 2)
    backend = OpenCVBackend()
    alone = [backend.canvases(views, boxes, flips, size_px) for size_px in (96, 64, 16)]
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda array, flags: num_decoded.append(flags) or decode(array, flags))
    together = backend.canvases_of_sizes(views, boxes, flips, (96, 64, 16))
    backend.close()
    # Two decodes: 96 and 64 px come from the whole image, 16 px from a quarter of it.
    assert len(num_decoded) == 2
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert one.failures == other.failures


@pytest.mark.parametrize(("canvas_px", "reduced_by"), [(64, 1), (32, 2), (16, 4), (8, 8)])
def test_large_jpegs_are_decoded_at_reduced_size(canvas_px, reduced_by, monkeypatch):
    encoded, used = encode(smooth_picture(3, 160, 176), quality=95), []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda array, flags: used.append(flags) or decode(array, flags))
    pixels = np.empty((canvas_px, canvas_px, 3), np.uint8)
    opencv._decode_canvases(memoryview(encoded), list(REDUCED_BOX), False, [pixels])
    assert used == [opencv.READ_FLAGS[reduced_by]]
    whole = Image.open(io.BytesIO(encoded)).convert("RGB").crop(REDUCED_BOX)
    expected = np.asarray(whole.resize((canvas_px, canvas_px), Image.Resampling.BILINEAR)).astype(int)
    difference = np.abs(pixels - expected)
    assert difference.mean() < 1.2
    assert difference.max() <= 8


@pytest.mark.parametrize(
    ("box", "orientation", "kind"),
    [((16, 24, 144, 151), 1, "JPEG"), ((15, 24, 144, 152), 1, "JPEG"), ((16, 24, 144, 152), 3, "JPEG"),
     ((16, 24, 144, 152), 1, "PNG")],
)  # fmt: skip
def test_what_would_be_off_by_part_of_a_pixel_is_decoded_whole(box, orientation, kind, monkeypatch):
    buffer, tags, used = io.BytesIO(), Image.Exif(), []
    tags[0x0112] = orientation
    Image.fromarray(smooth_picture(3, 160, 176)).save(buffer, kind, exif=tags)
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda array, flags: used.append(flags) or decode(array, flags))
    opencv._decode_canvases(memoryview(buffer.getvalue()), list(box), False, [np.empty((16, 16, 3), np.uint8)])
    assert used == [cv2.IMREAD_COLOR_RGB]


def test_growing_is_linear(backend):
    image = smooth_picture(3, 40, 40)
    decoded = canvases(backend, [encode(image, "png")], [(4, 4, 36, 36)], 80)
    expected = skimage_resize(image[4:36, 4:36], (80, 80), order=1, mode="edge", preserve_range=True)
    assert np.abs(decoded.pixels[0].numpy() - expected).max() <= 1.01


def test_exif_orientation_is_applied(backend):
    image, buffer = smooth_picture(4, 60, 40), io.BytesIO()
    tags = Image.Exif()
    tags[0x0112] = 6  # turned a quarter clockwise to be shown
    Image.fromarray(image).save(buffer, "PNG", exif=tags)
    decoded = canvases(backend, [buffer.getvalue()], [(0, 10, 40, 50)], 40)
    np.testing.assert_array_equal(decoded.pixels[0].numpy(), np.rot90(image, -1)[10:50])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "I;16"])
def test_other_pixel_formats_become_rgb(backend, mode):
    image = Image.fromarray(smooth_picture(5, 40, 40))
    image = image.convert("L").convert("I").point(lambda v: v * 257).convert("I;16") if mode == "I;16" else image
    buffer = io.BytesIO()
    (image if mode == "I;16" else image.convert(mode)).save(buffer, "PNG")
    decoded = canvases(backend, [buffer.getvalue()], [(0, 0, 40, 40)], 40)
    assert decoded.failures == []
    assert decoded.pixels.shape == (1, 40, 40, 3)
    assert int(decoded.pixels.max()) > 100


def test_a_bad_image_is_named_and_filled_with_the_next_good_one(backend):
    good, other = encode(smooth_picture(6, 40, 40), "png"), encode(smooth_picture(7, 40, 40), "png")
    decoded = canvases(backend, [good, b"junk", good[:200], other, b""], [(0, 0, 40, 40)] * 5, 40)
    assert [index for index, _ in decoded.failures] == [1, 2, 4]
    reasons = dict(decoded.failures)
    assert "not a JPEG, PNG or WebP" in reasons[1]
    assert "cut off after 200 bytes" in reasons[2]
    for row, donor in ((1, 3), (2, 3), (4, 0)):
        torch.testing.assert_close(decoded.pixels[row], decoded.pixels[donor], rtol=0, atol=0)


def test_a_batch_without_a_good_image_is_black(backend):
    decoded = canvases(backend, [b"junk", b""], [(0, 0, 4, 4)] * 2, 4)
    assert len(decoded.failures) == 2
    assert not decoded.pixels.any()


def test_a_damaged_body_is_a_failure_or_an_image_but_never_an_exception(backend):
    whole = bytearray(encode(smooth_picture(8, 64, 64), "png"))
    whole[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    decoded = canvases(backend, [bytes(whole)], [(0, 0, 64, 64)], 32)
    assert decoded.pixels.shape == (1, 32, 32, 3)


def test_an_image_smaller_than_its_box_fails(backend):
    decoded = canvases(backend, [encode(smooth_picture(9, 30, 30))], [(0, 0, 31, 31)], 16)
    assert decoded.failures == [(0, "is 30 x 30; the manifest promises at least 31 x 31")]


@pytest.mark.parametrize("num_threads", [1, 3, 16])
def test_threads_do_not_change_pixels(num_threads):
    encoded = [encode(smooth_picture(seed, 50, 50)) for seed in range(9)]
    one, many = OpenCVBackend(num_threads=1), OpenCVBackend(num_threads=num_threads)
    results = [canvases(backend, encoded, [(1, 2, 41, 42)] * 9, 24).pixels for backend in (one, many)]
    torch.testing.assert_close(*results, rtol=0, atol=0)
    one.close(), many.close()


def test_a_batch_is_done_though_one_of_the_workers_stays_at_other_work():
    encoded, leave = [encode(smooth_picture(seed, 50, 50)) for seed in range(9)], Event()
    with ThreadPool(2) as threads:
        try:
            threads.submit(leave.wait, 30)
            decoded = canvases(OpenCVBackend(threads=threads), encoded, [(1, 2, 41, 42)] * 9, 24)
        finally:
            leave.set()
    alone = OpenCVBackend()
    torch.testing.assert_close(decoded.pixels, canvases(alone, encoded, [(1, 2, 41, 42)] * 9, 24).pixels)
    alone.close()


def test_waiting_for_a_worker_is_told():
    with ThreadPool(1) as threads:
        threads.submit(time.sleep, 0.1)
        decoded = canvases(OpenCVBackend(threads=threads), [encode(smooth_picture(0, 50, 50))], [(0, 0, 40, 40)], 24)
    assert 0.05 < decoded.waited_s < 1


def flat_frames(levels):
    return [np.full((48, 64, 3), level, np.uint8) for level in levels]


@pytest.mark.parametrize("codec", ["mjpeg", "libvpx-vp9"])
def test_a_clip_is_its_first_frames_in_order(backend, codec):
    encoded = encode_clip(flat_frames([20, 60, 100, 140, 180]), codec)
    decoded = clips(backend, [encoded], [False], 4, 24, 32)
    assert decoded.pixels.shape == (1, 4, 24, 32, 3)
    levels = decoded.pixels[0].float().mean((1, 2, 3))
    torch.testing.assert_close(levels, torch.tensor([20.0, 60, 100, 140]), rtol=0, atol=3)


def test_clips_are_resized_and_mirrored(backend):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32] = 200
    decoded = clips(backend, [encode_clip([frame] * 2)] * 2, [False, True], 2, 40, 60)
    left, right = (
        decoded.pixels[..., :26, :].float().mean((1, 2, 3, 4)),
        decoded.pixels[..., 34:, :].float().mean((1, 2, 3, 4)),
    )
    torch.testing.assert_close(left, torch.tensor([200.0, 0]), rtol=0, atol=4)
    torch.testing.assert_close(right, torch.tensor([0, 200.0]), rtol=0, atol=4)


def test_bad_clips_are_named(backend):
    good = encode_clip(flat_frames([50, 90, 130]))
    decoded = clips(backend, [good, b"junk" * 20, good[:300], good], [False] * 4, 3, 24, 32)
    assert [index for index, _ in decoded.failures] == [1, 2]
    short = clips(backend, [good], [False], 5, 24, 32)
    assert short.failures == [(0, "holds 3 frames, need 5")]


def test_frames_of_a_clip_lie_as_they_are_stored():
    """An orientation in their EXIF is none of the clip's, which has one for all of it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = io.BytesIO()
    Image.fromarray(smooth_picture(0, 60, 40)).save(encoded, "JPEG", exif=exif)
    jpeg = memoryview(encoded.getvalue())
    assert (opencv._luma(jpeg).shape, opencv._rgb(jpeg).shape) == ((40, 60), (40, 60, 3))


def test_close_twice(backend):
    backend.close()
    backend.close()
