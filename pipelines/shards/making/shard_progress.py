"""Progress of long work, wherever it runs: the work calls `tell`, and `listening` around it receives it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Listener", "listening", "tell"]

Listener = Callable[[int, int], None]
"""Called with the samples and bytes that were done since the last call."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(num_samples: int, num_bytes: int) -> None:
    """Report samples and bytes to the listener of this thread, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(num_samples, num_bytes)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress reported inside the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
