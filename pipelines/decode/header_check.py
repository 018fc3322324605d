"""Check the header of an encoded image before decoding, so that no huge, truncated or too small image is decoded."""

from pipelines.shards.format.image_headers import ImageHeader, read_header

__all__ = ["MAX_IMAGE_PIXELS", "check_header"]

MAX_IMAGE_PIXELS = 178_956_970
"""Largest image in pixels, the limit of Pillow, too; at three bytes each half a gigabyte."""


def check_header(encoded: memoryview, width_px: int, height_px: int) -> ImageHeader:
    """Return the header of a whole image of at least this size. Raises ValueError with the reason for any other."""
    header = read_header(encoded)
    # From the header alone, before a decoder takes memory for it: a small file can claim a huge image.
    if header.width * header.height > MAX_IMAGE_PIXELS:
        raise ValueError(f"{header.width} x {header.height} pixels; at most {MAX_IMAGE_PIXELS} are decoded")
    width, height = header.upright_size()
    if width < width_px or height < height_px:
        raise ValueError(f"is {width} x {height}; the manifest promises at least {width_px} x {height_px}")
    return header
