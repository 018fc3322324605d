"""Images: what is kept is kept byte for byte, the rest as its policy says, and both backends see the same picture."""

import contextlib
import io
import random

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from pipelines.shards.media.image_bytes import MAX_SIDE_PX, ImageForm, PreparedImage, UnusableError, prepare_image
from tests.made.media import encoded_image, picture
from tests.made.odd_images import OddImage, odd_images, oriented, saved

Pixels = npt.NDArray[np.uint8]
DECODE, HEADER = ImageForm(check="decode"), ImageForm(check="header")
FORMS = {"decode": DECODE, "header": HEADER}


def having(outcome: str) -> dict[str, OddImage]:
    return {name: odd for name, odd in odd_images().items() if odd.outcome == outcome}


def by_opencv(encoded: bytes) -> Pixels:
    """(H, W, 3) uint8 RGB as the opencv backend decodes it."""
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def by_pillow(encoded: bytes) -> Pixels:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def mean_difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("check", FORMS)
@pytest.mark.parametrize("name", having("kept"))
def test_kept_images_keep_their_bytes(name: str, check: str) -> None:
    odd = odd_images()[name]
    made = prepare_image(odd.encoded, FORMS[check])
    assert made.facts == dict(odd.facts)
    if "exif" not in made.facts:
        assert made.encoded is odd.encoded
    assert by_opencv(made.encoded).shape == (made.height, made.width, 3)


@pytest.mark.parametrize("check", FORMS)
@pytest.mark.parametrize("name", having("rejected"))
def test_rejected_images_say_why(name: str, check: str, capfd: pytest.CaptureFixture[str]) -> None:
    odd = odd_images()[name]
    if odd.only_decoding_finds_it and check == "header":
        assert prepare_image(odd.encoded, HEADER).encoded is odd.encoded
    else:
        with pytest.raises(UnusableError, match=odd.says):
            prepare_image(odd.encoded, FORMS[check])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", having("converted"))
def test_converted_images_look_as_before(name: str) -> None:
    odd = odd_images()[name]
    made = prepare_image(odd.encoded, DECODE)
    assert made.facts == {"original_format": odd.says, "original_width": 61, "original_height": 37}
    assert (made.width, made.height) == (61, 37)
    assert made.extension == ("jpg" if odd.says == "CMYK JPEG" else "png")
    tolerance = 4 if made.extension == "jpg" else 0.01  # JPEG at quality 95 moves noise by a few levels
    assert mean_difference(by_pillow(made.encoded), by_pillow(odd.encoded)) < tolerance


def test_an_ordinary_photo_has_no_facts() -> None:
    encoded = encoded_image(picture(64, 48))
    assert prepare_image(encoded, DECODE) == PreparedImage(encoded, "jpg", 64, 48, {})


def test_sixteen_bits_are_seen_as_their_upper_eight() -> None:
    encoded = odd_images()["gray_16_bits.png"].encoded
    with Image.open(io.BytesIO(encoded)) as image:
        upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    np.testing.assert_array_equal(by_opencv(prepare_image(encoded, DECODE).encoded)[..., 0], upper)


def test_colors_below_transparent_pixels_are_seen() -> None:
    made = prepare_image(odd_images()["alpha.png"].encoded, DECODE)
    np.testing.assert_array_equal(by_opencv(made.encoded), picture(61, 37))


@pytest.mark.parametrize("name", ["animated.png", "animated_gif_inside.png", "tiff_two_pages.tif"])
def test_the_first_picture_is_seen(name: str) -> None:
    made = prepare_image(odd_images()[name].encoded, DECODE)
    assert mean_difference(by_opencv(made.encoded), by_pillow(odd_images()[name].encoded)) < 0.01


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_recorded_or_applied(kind: str, orientation: int) -> None:
    encoded = oriented(kind, orientation)
    recorded = prepare_image(encoded, DECODE)
    applied = prepare_image(encoded, ImageForm(orientation="apply"))
    assert recorded.encoded is encoded
    assert recorded.facts == ({"orientation": orientation} if orientation > 1 else {})
    assert (recorded.width, recorded.height) == ((37, 61) if orientation >= 5 else (61, 37))
    assert (applied.width, applied.height) == (recorded.width, recorded.height)
    if orientation == 1:
        assert applied.encoded is encoded
    else:
        with Image.open(io.BytesIO(applied.encoded)) as image:
            assert not image.getexif()
        assert mean_difference(by_pillow(applied.encoded), by_pillow(encoded)) < 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_animated_pictures_are_turned_as_pillow_turns_them(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    other = [Image.new("RGB", (61, 37), "red")]
    encoded = saved(kind, save_all=True, append_images=other, exif=exif.tobytes())
    made = prepare_image(encoded, DECODE)
    assert (made.encoded is encoded) == (orientation == 1)
    assert made.extension == ("png" if orientation > 1 else kind.lower())
    np.testing.assert_array_equal(by_opencv(made.encoded), by_pillow(encoded))


def webps() -> dict[str, bytes]:
    """Every kind of chunk that Pillow writes before the EXIF block, most of them of odd length in some."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = {}
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for mode in ("RGB", "RGBA", "L"):
            for options in ({"lossless": True}, {"quality": 40}, {"lossless": True, "icc_profile": profile + b"\0"}):
                name = f"{mode}, {orientation}, {', '.join(options)}"
                made[name] = saved("WEBP", mode, exif=exif.tobytes(), xmp=b"<x/>", **options)
    with_flag = bytearray(saved("WEBP", "RGB", lossless=True, xmp=b"<x>"))
    with_flag[20] |= 8
    return made | {"promised, not there": bytes(with_flag)}


@pytest.mark.parametrize("name", webps())
def test_webps_with_exif_are_read_by_both_backends(name: str) -> None:
    decode, encoded = dali_decoder(), webps()[name]
    made = prepare_image(encoded, HEADER)
    assert len(made.encoded) == len(encoded)
    expected = by_pillow(encoded)
    assert np.abs(decode(made.encoded).astype(int) - expected).max() <= 1
    assert np.abs(by_opencv(made.encoded).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(by_pillow(made.encoded), expected)


def test_dali_refuses_a_webp_whose_exif_it_does_not_find() -> None:
    """Why they are changed; if this fails, DALI was mended and `webp_chunks` can go."""
    decode, encoded = dali_decoder(), webps()["promised, not there"]
    with pytest.raises(RuntimeError):
        decode(encoded)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_short_side_reduces_and_never_enlarges(kind: str) -> None:
    large, small = encoded_image(picture(400, 300), kind), encoded_image(picture(61, 37), kind)
    made = prepare_image(large, ImageForm(short_side_px=37))
    assert (made.extension, made.width, made.height) == ("jpg", 49, 37)
    assert made.facts["original_width"] == 400
    kept = prepare_image(small, ImageForm(short_side_px=37))
    assert (kept.width, kept.height) == (61, 37)
    assert (kept.encoded == small) == (kind != "BMP")


@pytest.mark.parametrize("short_side_px", [150, 60, 20])
def test_reduced_pixels_are_area_averages(short_side_px: int) -> None:
    """20 px are decoded at a quarter first: as smooth as the area average of all pixels, with small differences."""
    soft = cv2.GaussianBlur(picture(400, 300, seed=3), (0, 0), 3)
    encoded = encoded_image(np.asarray(soft, np.uint8))
    made = prepare_image(encoded, ImageForm(short_side_px=short_side_px, quality=100))
    reference = Image.fromarray(by_pillow(encoded)).resize((made.width, made.height), Image.Resampling.BOX)
    assert mean_difference(by_pillow(made.encoded), np.asarray(reference)) < 2


def test_fine_stripes_do_not_alias() -> None:
    stripes = np.zeros((300, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    made = prepare_image(encoded_image(stripes, "PNG"), ImageForm(short_side_px=90))
    # An average over 3.3 pixels holds one or two of the white ones; taking every third pixel would give 127.
    assert by_pillow(made.encoded).std() < 30


def test_turned_images_are_reduced_upright() -> None:
    made = prepare_image(encoded_image(picture(400, 300), "JPEG", 6), ImageForm(short_side_px=30))
    assert (made.width, made.height) == (30, 40)
    assert "orientation" not in made.facts


def test_gray_stays_gray_when_reduced() -> None:
    made = prepare_image(encoded_image(picture(400, 300), mode="L"), ImageForm(short_side_px=30))
    with Image.open(io.BytesIO(made.encoded)) as image:
        assert image.mode == "L"


def test_encoding_is_repeatable() -> None:
    encoded, form = encoded_image(picture(400, 300)), ImageForm(short_side_px=64, quality=80)
    assert prepare_image(encoded, form) == prepare_image(encoded, form)


@pytest.mark.parametrize(("form", "sampling"), [(ImageForm(short_side_px=16), (2, 2)), (ImageForm(), (1, 1))])
def test_reduced_images_have_half_the_color_converted_ones_all(form: ImageForm, sampling: tuple[int, int]) -> None:
    made = prepare_image(odd_images()["cmyk.jpg"].encoded, form)
    with Image.open(io.BytesIO(made.encoded)) as image:
        assert [component[1:3] for component in image.layer] == [sampling, (1, 1), (1, 1)]


def test_a_higher_quality_costs_more_bytes() -> None:
    sizes = [
        len(prepare_image(encoded_image(picture(400, 300)), ImageForm(short_side_px=90, quality=quality)).encoded)
        for quality in (50, 80, 95)
    ]
    assert sizes == sorted(sizes)


def test_damaged_exif_is_replaced_before_anything_is_decoded() -> None:
    made = prepare_image(odd_images()["exif_cut_off.jpg"].encoded, ImageForm(short_side_px=20))
    assert (made.width, made.height) == (20, 33)


@pytest.mark.parametrize("size", [(MAX_SIDE_PX + 1, 1), (1, MAX_SIDE_PX + 1)])
def test_sides_no_decoder_takes_are_refused(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, "PNG")
    with pytest.raises(UnusableError, match="no side may be longer than 65500"):
        prepare_image(buffer.getvalue(), HEADER)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    with pytest.raises(UnusableError, match="64 x 48 px is more than max_pixels = 3000"):
        prepare_image(encoded_image(picture(64, 48)), ImageForm(max_pixels=3000))


@pytest.mark.parametrize("wrong", [{"max_pixels": 0}, {"short_side_px": 0}, {"quality": 0}, {"quality": 101}])
def test_impossible_forms_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need"):
        ImageForm(**wrong)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Truncated File Read")  # Pillow, the reference
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_truncation_that_pillow_refuses_is_refused(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    whole, rng = saved(kind), random.Random(0)
    for length in [len(whole) - 1, len(whole) - 2, *(rng.randrange(len(whole)) for _ in range(60))]:
        try:
            with Image.open(io.BytesIO(whole[:length])) as image:
                image.load()
        except Exception:  # Pillow raises many kinds for damaged files
            with pytest.raises(UnusableError):
                prepare_image(whole[:length], DECODE)
    assert "libpng" not in capfd.readouterr().err


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), max_size=6),
    st.sampled_from([DECODE, HEADER, ImageForm(short_side_px=16)]),
)
def test_changed_bytes_raise_nothing_but_unusable(kind: str, changes: list[tuple[int, int]], form: ImageForm) -> None:
    encoded = bytearray(saved(kind))
    for place, value in changes:
        encoded[place % min(len(encoded), 200 if value % 2 else len(encoded))] = value
    never_anything_else(bytes(encoded), form)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P6 9 9 "]), st.binary())
def test_random_bytes_raise_nothing_but_unusable(start: bytes, rest: bytes) -> None:
    never_anything_else(start + rest, DECODE)


def never_anything_else(encoded: bytes, form: ImageForm) -> None:
    with contextlib.suppress(UnusableError):
        made = prepare_image(encoded, form)
        assert min(made.width, made.height) > 0


@pytest.mark.parametrize("name", [*having("kept"), *having("converted")])
def test_dali_sees_what_opencv_sees(name: str) -> None:
    decode = dali_decoder()
    made = prepare_image(odd_images()[name].encoded, DECODE)
    one, other = decode(made.encoded), by_opencv(made.encoded)
    assert one.shape == other.shape
    # OpenCV cuts 16 bits to 8, DALI rounds: one level. All else is equal on the CPU.
    assert np.abs(one.astype(int) - other.astype(int)).max() <= (1 if "bit_depth" in made.facts else 0)


def dali_decoder():  # type: ignore[no-untyped-def]
    dali = pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, types

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1, exec_dynamic=True)
    def reading():  # type: ignore[no-untyped-def]
        return fn.decoders.image(fn.external_source(name="encoded", ndim=1, dtype=types.UINT8), output_type=types.RGB)

    pipeline = reading()
    pipeline.build()

    def decode(encoded: bytes) -> Pixels:
        pipeline.feed_input("encoded", [np.frombuffer(encoded, np.uint8)])
        return np.array(pipeline.run()[0].at(0))

    return decode
