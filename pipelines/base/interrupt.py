"""Treat SIGTERM as Ctrl-C, so that a terminated run deletes its temporary files as an interrupted one does."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["sigterm_as_interrupt"]


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block when SIGTERM arrives. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows handlers in the main thread only
        return
    # Python's own handler of Ctrl-C, so that one way of cleaning up serves both signals.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
