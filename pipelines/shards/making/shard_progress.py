"""What long work tells of itself while it goes on, wherever it runs: `tell` in the work, `listening` around it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Listener", "listening", "tell"]

Listener = Callable[[int, int], None]
"""Takes a number of samples and of bytes that are done since the last time."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(num_samples: int, num_bytes: int) -> None:
    """To whoever listens in this thread; nobody need."""
    listener = _listener.get()
    if listener is not None:
        listener(num_samples, num_bytes)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Everything told inside the block goes to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
