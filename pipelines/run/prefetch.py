"""Run an iterator in a background thread, a bounded number of items ahead of its consumer.

An exception in the iterator is raised in place of the item that it prevented. A thread that has died without one is an
error, never an endless wait.
"""

import atexit
from collections import deque
from collections.abc import Generator
from threading import Condition, Thread
from typing import Generic, TypeVar

from pipelines.base.errors import FourfoldError
from pipelines.base.thread_pool import POLL_S

__all__ = ["Prefetcher"]

T = TypeVar("T")
STOP_S = 30.0
"""Seconds that `stop` waits for the item being made; a thread that hangs in a network read is then left behind."""


class Prefetcher(Generic[T]):
    """Prefetcher: `get` items in order. `depth`: items held ready, besides the one being made."""

    def __init__(self, items: Generator[T, None, None], depth: int, name: str) -> None:
        self._items, self._depth = items, depth
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_stopped = False
        self._changed = Condition()
        # A daemon, so that a consumer that fails without `stop` does not keep its process alive.
        self._thread = Thread(target=self._run, name=name, daemon=True)
        # At exit the interpreter freezes daemon threads wherever they are, also inside libraries; stop it before.
        atexit.register(self.stop)
        self._thread.start()

    def get(self) -> T:
        """Wait for the next item and return it. Raises the iterator's exception, also at every later call.

        Raises FourfoldError if the thread has died without one, as in a forked process.
        """
        with self._changed:
            while not self._changed.wait_for(self._is_decided, timeout=POLL_S):
                # Both are checked, because the thread may have put its last item between the two.
                if not self._thread.is_alive() and not self._is_decided():
                    raise FourfoldError(
                        f"Thread {self._thread.name} has died without an error. Start again; in a process that was "
                        "forked, build the pipeline after the fork."
                    )
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
            raise self._error or RuntimeError("get() after stop()")

    def first_ready(self) -> T | None:
        """Return the next item without taking it; None if it is not there yet."""
        with self._changed:
            return self._ready[0] if self._ready else None

    def stop(self) -> None:
        """Drop all items and wait for the thread to end, at most STOP_S. Safe to call twice."""
        with self._changed:
            self._is_stopped = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(STOP_S)
        atexit.unregister(self.stop)

    def _is_decided(self) -> bool:
        """Whether `get` need not wait any longer."""
        return bool(self._ready) or self._error is not None or self._is_stopped

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
            # A pipeline is endless. An iterator that ends is a bug, and `get` must not wait for its next item.
            else:
                raise EOFError("the prefetched iterator has ended")
        except BaseException as error:  # of any kind: else the consumer would wait for ever
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._items.close()

    def _put(self, item: T) -> bool:
        """Wait for room and add an item; return False after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._depth or self._is_stopped)
            if not self._is_stopped:
                self._ready.append(item)
                self._changed.notify_all()
            return not self._is_stopped
