"""The frames of an MJPEG clip as they are stored, each of them a JPEG, for a decoder of images."""

import io
import itertools
from collections.abc import Sequence

import av
import av.error

__all__ = ["jpeg_frames"]


def jpeg_frames(encoded: memoryview, chosen: Sequence[int]) -> list[bytes] | None:
    """The frames of these ascending indices, undecoded; fewer if the clip is too short. None if it is no MJPEG."""
    try:
        known = "mp4" if bytes(encoded[4:8]) == b"ftyp" else None  # what is known need not be guessed from the content
        with av.open(io.BytesIO(encoded), mode="r", format=known) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context.name != "mjpeg":
                return None
            packets = (packet for packet in container.demux(stream) if packet.size)
            wanted, needed = set(chosen), chosen[-1] + 1
            return [bytes(one) for index, one in enumerate(itertools.islice(packets, needed)) if index in wanted]
    except av.error.FFmpegError:
        return None
