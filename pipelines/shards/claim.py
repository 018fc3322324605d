"""A folder to write to, for one build at a time, left clean however the build ends."""

import fcntl
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.shards.records import RECORD_FOLDER

__all__ = ["claimed", "sigterm_as_interrupt"]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """`folder` is there and ours alone while the block runs. Raises UsageError if it cannot be."""
    records = folder / RECORD_FOLDER
    try:
        records.mkdir(parents=True, exist_ok=True)
        lock = (records / "lock").open("w")
    except OSError as error:
        reason = f"cannot write there ({error.strerror})"
        raise UsageError(f"{folder}: {reason}. Give --out a folder you may write to.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            reason = "another build is writing there"
            raise UsageError(f"{folder}: {reason}. Wait for it, or give another folder.") from error
        for left in [*folder.glob(".*.tmp"), *records.glob(".*.tmp")]:
            left.unlink()  # of a build that was killed
        yield


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does (KeyboardInterrupt), so that temporary files are cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows handlers in the main thread only
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
