"""Extract the frames of an MJPEG clip as encoded JPEGs, for a decoder of images.

In a plain MP4 file, as `fourfold shards build` writes it, the file's tables say where the frames lie (ISO/IEC
14496-12). PyAV opens all other files; that takes 0.25 ms, as long as decoding a frame.
"""

import io
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import av
import av.error

__all__ = ["jpeg_frames"]

START_OF_JPEG = b"\xff\xd8\xff"
TO_TRACK = (b"moov", b"trak")
TO_TABLES = (b"mdia", b"minf", b"stbl")


class _Box(NamedTuple):
    """Box of an MP4 file: its type, and start and end of its content in bytes."""

    kind: bytes
    start: int
    end: int


def jpeg_frames(encoded: memoryview, chosen: Sequence[int]) -> list[memoryview] | None:
    """Return the encoded frames of ascending indices, fewer if the clip is too short; None if it is no MJPEG."""
    places = _places(encoded)
    if places is None:
        return _demuxed(encoded, chosen)
    first, _ = places[0]
    if encoded[first : first + 3] != START_OF_JPEG:
        return None
    return [encoded[slice(*places[index])] for index in chosen if index < len(places)]


def _demuxed(encoded: memoryview, chosen: Sequence[int]) -> list[memoryview] | None:
    try:
        with av.open(io.BytesIO(encoded), mode="r") as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context.name != "mjpeg":
                return None
            # The last packet of a stream is empty: it flushes the decoder and holds no frame.
            packets = (packet for packet in container.demux(stream) if packet.size)
            wanted, needed = set(chosen), chosen[-1] + 1
            found = enumerate(itertools.islice(packets, needed))
            return [memoryview(bytes(one)) for index, one in found if index in wanted]
    except av.error.FFmpegError:
        return None


def _places(encoded: memoryview) -> list[tuple[int, int]] | None:
    """Return start and end of every frame in bytes; None unless this is an MP4 of one track, shown from its start."""
    try:
        track = _only(encoded, _Box(b"", 0, len(encoded)), TO_TRACK)
        if track is None or not _is_shown_from_start(encoded, track):
            return None
        tables = _only(encoded, track, TO_TABLES)
        places = None if tables is None else _places_by(encoded, {box.kind: box for box in _boxes(encoded, tables)})
    except (struct.error, KeyError):
        return None
    return places if places and all(end <= len(encoded) for _, end in places) else None


def _boxes(encoded: memoryview, parent: _Box) -> Iterator[_Box]:
    """Yield the boxes inside a box. Raises struct.error if they do not fit into it."""
    place = parent.start
    while place < parent.end:
        size, kind = struct.unpack_from(">I4s", encoded, place)
        if size < 8 or place + size > parent.end:  # torn; or of 64 bits, or up to the end: no clip is that large
            raise struct.error(f"box {kind!r} of {size} bytes")
        yield _Box(kind, place + 8, place + size)
        place += size


def _only(encoded: memoryview, parent: _Box, kinds: Sequence[bytes]) -> _Box | None:
    """Return the box at a path of types below `parent`; None if a type is missing or there are several of it."""
    for kind in kinds:
        found = [box for box in _boxes(encoded, parent) if box.kind == kind]
        if len(found) != 1:
            return None
        parent = found[0]
    return parent


def _is_shown_from_start(encoded: memoryview, track: _Box) -> bool:
    # An edit list that skips frames, delays or slows the clip would make shown frames differ from stored ones.
    edits = _only(encoded, track, (b"edts", b"elst"))
    if edits is None:
        return all(box.kind != b"edts" for box in _boxes(encoded, track))
    version_and_flags, num_edits, _, start, rate = struct.unpack_from(">IIIiI", encoded, edits.start)
    return (version_and_flags, num_edits, start, rate) == (0, 1, 0, 1 << 16)


def _places_by(encoded: memoryview, tables: dict[bytes, _Box]) -> list[tuple[int, int]]:
    """Return start and end of every frame from the tables of an MP4 track. Raises KeyError and struct.error."""
    # 1. Sizes of frames (stsz), one for all or one each. The count is checked before memory is taken for it: a damaged
    # file may claim four billion frames.
    _, equal_size, num_frames = struct.unpack_from(">III", encoded, tables[b"stsz"].start)
    if num_frames > len(encoded):
        raise struct.error(f"{num_frames} frames in {len(encoded)} bytes")
    sizes = (
        itertools.repeat(equal_size, num_frames)
        if equal_size
        else iter(struct.unpack_from(f">{num_frames}I", encoded, tables[b"stsz"].start + 12))
    )
    # 2. Starts of chunks (stco), and how many frames each chunk holds (stsc): an entry counts until the next one.
    _, num_chunks = struct.unpack_from(">II", encoded, tables[b"stco"].start)
    starts = struct.unpack_from(f">{num_chunks}I", encoded, tables[b"stco"].start + 8)
    _, num_runs = struct.unpack_from(">II", encoded, tables[b"stsc"].start)
    numbers = struct.unpack_from(f">{3 * num_runs}I", encoded, tables[b"stsc"].start + 8)
    runs = dict(zip(numbers[0::3], numbers[1::3], strict=True))
    # 3. Frames of a chunk lie one after the other.
    places, held = [], 0
    for number, start in enumerate(starts, start=1):
        held = runs.get(number, held)
        for size in itertools.islice(sizes, held):
            places.append((start, start + size))
            start += size
    if len(places) != num_frames:
        raise struct.error(f"{len(places)} places of {num_frames} frames")
    return places
