"""What libjpeg and libpng print while they decode: kept from the user's terminal, and read as evidence of damage.

They write to file descriptor 2 and tell their caller nothing: a JPEG cut off and closed again decodes "well", with
its lower part gray, and only this line to show for it.
"""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["captured_messages"]

# stderr is one per process, so one decode at a time may have it: parallel checks want processes, not threads.
_lock = threading.Lock()
DECODER_LINE = re.compile(
    r"libpng |Corrupt JPEG|Premature end|Invalid SOS|Inconsistent progression|Unknown Adobe|Warning: unknown JFIF"
    r"|\[ ?(WARN|ERROR|INFO):|TIFF|OpenCV TIFF"
)


@contextmanager
def captured_messages() -> Iterator[list[str]]:
    """A list that holds, after the block, the lines that decoders printed in it; other lines go on to stderr."""
    lines: list[str] = []
    with _lock:
        try:
            stderr = os.dup(2)
        except OSError:  # a service without a stderr
            yield lines
            return
        notes = _notes(os.getpid())
        os.dup2(notes, 2)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)
            if os.lseek(notes, 0, os.SEEK_CUR):
                lines += _drain(notes, stderr)
            os.close(stderr)


@cache
def _notes(_process: int) -> int:
    """An unnamed file, kept open; one per process, because a forked worker would share its position with its parent."""
    if sys.platform == "linux":
        return os.memfd_create("decoder-messages")
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor


def _drain(notes: int, stderr: int) -> list[str]:
    written = os.pread(notes, os.lseek(notes, 0, os.SEEK_CUR), 0)
    os.ftruncate(notes, 0)
    os.lseek(notes, 0, os.SEEK_SET)
    lines = written.decode(errors="replace").splitlines(keepends=True)
    others = "".join(line for line in lines if not DECODER_LINE.match(line))
    if others:  # a progress bar or a log line of another thread
        os.write(stderr, others.encode())
    return [line.strip() for line in lines if DECODER_LINE.match(line)]
