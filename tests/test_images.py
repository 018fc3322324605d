import io

import numpy as np
import pytest
from PIL import Image

from pipelines.shards.images import UnusableError, check_image
from tests.media import encoded_image, picture


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_format_and_size_are_read_from_the_bytes(kind: str, extension: str) -> None:
    info = check_image(encoded_image(picture(61, 37), kind))
    assert (info.extension, info.width, info.height) == (extension, 61, 37)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_upright_picture(kind: str, orientation: int) -> None:
    info = check_image(encoded_image(picture(61, 37), kind, orientation))
    assert (info.width, info.height) == ((37, 61) if orientation >= 5 else (61, 37))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_gray_alpha_palette_and_cmyk_are_allowed(mode: str) -> None:
    assert check_image(encoded_image(picture(), "JPEG" if mode == "CMYK" else "PNG", mode=mode)).width == 64


def test_sixteen_bits_are_allowed() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)).save(buffer, "PNG")
    assert check_image(buffer.getvalue()).height == 48


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    encoded = encoded_image(picture(200, 150), kind)
    with pytest.raises(UnusableError, match=r"damaged|cannot decode|not an image"):
        check_image(encoded[: int(len(encoded) * share)])


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", r"empty file \(0 bytes\)"),
        (b"just text", "not an image"),
        (b"\xff\xd8\xff\xe0 and nothing else", "not an image|damaged"),
        (encoded_image(picture(), "BMP"), "a BMP file under an image name; allowed: JPEG, PNG, WebP"),
    ],
)
def test_other_content_is_refused_with_its_reason(encoded: bytes, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        check_image(encoded)


def test_too_many_pixels_are_refused() -> None:
    with pytest.raises(UnusableError, match="64 x 48 px is more than max_pixels = 3000"):
        check_image(encoded_image(picture()), max_pixels=3000)


def test_header_that_claims_a_giant_image_is_refused_before_decoding() -> None:
    encoded = bytearray(encoded_image(picture(), "PNG"))
    encoded[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(UnusableError):
        check_image(bytes(encoded))
