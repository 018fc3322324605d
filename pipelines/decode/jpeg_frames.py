"""The frames of an MJPEG clip as they are stored, each of them a JPEG, for a decoder of images.

Where they lie in a plain MP4 file, as `fourfold shards build` writes it, is read from its tables (ISO/IEC 14496-12);
PyAV opens all others. Opening takes PyAV a quarter of a millisecond, as long as decoding a frame.
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
    """Part of a file: what it is, and from where to where its content lies."""

    kind: bytes
    start: int
    end: int


def jpeg_frames(encoded: memoryview, chosen: Sequence[int]) -> list[memoryview] | None:
    """The frames of these ascending indices, undecoded; fewer if the clip is too short. None if it is no MJPEG."""
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
            packets = (packet for packet in container.demux(stream) if packet.size)
            wanted, needed = set(chosen), chosen[-1] + 1
            found = enumerate(itertools.islice(packets, needed))
            return [memoryview(bytes(one)) for index, one in found if index in wanted]
    except av.error.FFmpegError:
        return None


def _places(encoded: memoryview) -> list[tuple[int, int]] | None:
    """Start and end of every frame as stored. None unless this is an MP4 file of one track, shown from its start."""
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
    place = parent.start
    while place < parent.end:
        size, kind = struct.unpack_from(">I4s", encoded, place)
        if size < 8 or place + size > parent.end:  # torn; or of 64 bits, or up to the end: no clip is that large
            raise struct.error(f"box {kind!r} of {size} bytes")
        yield _Box(kind, place + 8, place + size)
        place += size


def _only(encoded: memoryview, parent: _Box, kinds: Sequence[bytes]) -> _Box | None:
    """The box that lies within the others, if there is one of each kind."""
    for kind in kinds:
        found = [box for box in _boxes(encoded, parent) if box.kind == kind]
        if len(found) != 1:
            return None
        parent = found[0]
    return parent


def _is_shown_from_start(encoded: memoryview, track: _Box) -> bool:
    edits = _only(encoded, track, (b"edts", b"elst"))
    if edits is None:
        return all(box.kind != b"edts" for box in _boxes(encoded, track))
    version_and_flags, num_edits, _, start, rate = struct.unpack_from(">IIIiI", encoded, edits.start)
    return (version_and_flags, num_edits, start, rate) == (0, 1, 0, 1 << 16)


def _places_by(encoded: memoryview, tables: dict[bytes, _Box]) -> list[tuple[int, int]]:
    """From the sizes of frames, the starts of chunks, and how many frames the chunks hold. Raises KeyError and
    struct.error."""
    _, equal_size, num_frames = struct.unpack_from(">III", encoded, tables[b"stsz"].start)
    if num_frames > len(encoded):
        raise struct.error(f"{num_frames} frames in {len(encoded)} bytes")
    sizes = (
        itertools.repeat(equal_size, num_frames)
        if equal_size
        else iter(struct.unpack_from(f">{num_frames}I", encoded, tables[b"stsz"].start + 12))
    )
    _, num_chunks = struct.unpack_from(">II", encoded, tables[b"stco"].start)
    starts = struct.unpack_from(f">{num_chunks}I", encoded, tables[b"stco"].start + 8)
    _, num_runs = struct.unpack_from(">II", encoded, tables[b"stsc"].start)
    numbers = struct.unpack_from(f">{3 * num_runs}I", encoded, tables[b"stsc"].start + 8)
    runs = dict(zip(numbers[0::3], numbers[1::3], strict=True))
    places, held = [], 0
    for number, start in enumerate(starts, start=1):
        held = runs.get(number, held)
        for size in itertools.islice(sizes, held):
            places.append((start, start + size))
            start += size
    if len(places) != num_frames:
        raise struct.error(f"{len(places)} places of {num_frames} frames")
    return places
