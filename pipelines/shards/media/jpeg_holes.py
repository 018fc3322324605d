"""Holes in the pixels of a JPEG that libjpeg fills without a word: zero bytes where a code for pixels should be.

A failed copy leaves zeros. libjpeg decodes them as coefficients, and complains only if the rest comes out uneven: of
holes of 256 zero bytes in 400 photos it passes over 25 %, of those of 512 over 15 %.

What zeros mean is in the file. In the tables that most encoders use they are coefficients of -1, 63 to a block, which
no picture has. In tables made for one picture they can be blocks without detail, of which a white page has thousands;
such a file is decoded once more by FFmpeg, which counts the coefficients of every block. None of 17,040 whole photos
(four public collections) is refused; of 400 of them, every copy with a hole of 33 to 2048 zeros is.
"""

from typing import Any

from pipelines.shards.media.decoder_messages import captured_messages

__all__ = ["MIN_ZEROS", "hole_in"]

MIN_ZEROS = 32
"""So many zero bytes in a row are looked into; 2 of 1,800 whole photos have half as many."""
ZEROS = bytes(MIN_ZEROS)
EOI = b"\xff\xd9"
SOS, DHT, BASELINE = 0xDA, 0xC4, (0xC0, 0xC1)
END_OF_BLOCK = 0


def hole_in(encoded: bytes) -> str | None:
    """Say why the pixels of a JPEG with a good header have a hole; None if they have none that shows."""
    # A header may hold any zeros; the first search from the start is the cheap one, and finds nothing in most files.
    at = encoded.find(ZEROS)
    if at < 0:
        return None
    start, is_baseline, are_blocks = _scan(encoded)
    at = encoded.find(ZEROS, start)
    # The bits of a progressive file's later scans may all be zero.
    if at < 0 or not is_baseline or encoded.find(EOI, start) < at:
        return None
    if not are_blocks:
        return f"a hole of zeros at byte {at}"
    error = _error_by_ffmpeg(encoded)
    return None if error is None else f"zeros at byte {at} that are no code for pixels: {error}"


def _scan(encoded: bytes) -> tuple[int, bool, bool]:
    """Find where the pixels start, whether they are in one pass, and whether zeros may be blocks without detail.

    They may where every table of details has that as its first code: luma and chroma blocks take turns. With a pass
    for each, one such table is enough.
    """
    place, is_baseline, num_channels, zero_symbols = 2, False, 0, list[int]()
    while True:
        if encoded[place + 1] == 0xFF:  # a fill byte
            place += 1
            continue
        marker, length = encoded[place + 1], int.from_bytes(encoded[place + 2 : place + 4], "big")
        if marker in BASELINE:
            is_baseline, num_channels = True, encoded[place + 9]
        if marker == DHT:
            zero_symbols += _zero_symbols(encoded[place + 4 : place + 2 + length])
        if marker == SOS:
            are_blocks = [symbol == END_OF_BLOCK for symbol in zero_symbols]
            takes_turns = encoded[place + 4] == num_channels
            return place + 2 + length, is_baseline, all(are_blocks) if takes_turns else any(are_blocks)
        place += 2 + length


def _zero_symbols(tables: bytes) -> list[int]:
    """Return the first symbol of each AC table: codes are numbered from zero on, the shortest first."""
    symbols, place = list[int](), 0
    while place + 17 < len(tables):
        if tables[place] >> 4:
            symbols.append(tables[place + 17])
        place += 17 + sum(tables[place + 1 : place + 17])
    return symbols


def _error_by_ffmpeg(encoded: bytes) -> str | None:
    """Return what stops FFmpeg at the first error in a JPEG; None if it decodes all of it."""
    import av.error  # nearly no build of images comes here

    context: Any = av.CodecContext.create("mjpeg", "r")
    context.thread_count, context.options = 1, {"err_detect": "explode"}
    with captured_messages():
        try:
            frames = [*context.decode(av.Packet(encoded)), *context.decode(None)]
        except av.error.FFmpegError as error:
            return error.strerror or type(error).__name__
    return None if frames else "no picture"
