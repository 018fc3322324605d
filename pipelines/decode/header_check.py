"""Last look at encoded bytes before a decoder gets them, so that nothing huge, cut off or too small is decoded."""

from pipelines.shards.format.image_headers import ImageHeader, read_header

__all__ = ["MAX_IMAGE_PIXELS", "check_header"]

MAX_IMAGE_PIXELS = 178_956_970
"""The size at which Pillow, too, refuses an image: three bytes each make half a gigabyte."""


def check_header(encoded: memoryview, width_px: int, height_px: int) -> ImageHeader:
    """What the header says. Raises ValueError with the reason unless this is a whole image that can hold such a box."""
    header = read_header(encoded)
    if header.width * header.height > MAX_IMAGE_PIXELS:
        raise ValueError(f"{header.width} x {header.height} pixels; at most {MAX_IMAGE_PIXELS} are decoded")
    width, height = header.upright_size()
    if width < width_px or height < height_px:
        raise ValueError(f"is {width} x {height}; the manifest promises at least {width_px} x {height_px}")
    return header
