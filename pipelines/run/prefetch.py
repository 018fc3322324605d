"""A background thread that runs an iterator ahead of its consumer, by a bounded number of items.

An exception in the iterator reaches the consumer in place of the item it prevented; a thread that is gone without one
is an error at once, never a wait without end; `stop` ends the thread.
"""

import atexit
from collections import deque
from collections.abc import Generator
from threading import Condition, Thread
from typing import Generic, TypeVar

from pipelines.base.errors import FourfoldError
from pipelines.base.workers import POLL_S

__all__ = ["Prefetcher"]

T = TypeVar("T")
STOP_S = 30.0
"""What `stop` waits for an item in the making; a thread that hangs in a network read is left behind, a daemon."""


class Prefetcher(Generic[T]):
    """`get` items in order. `depth`: items held ready, besides the one in the making."""

    def __init__(self, items: Generator[T, None, None], depth: int, name: str) -> None:
        self._items, self._depth = items, depth
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_stopped = False
        self._changed = Condition()
        # A daemon, so that a consumer that dies without `stop` does not keep its process alive.
        self._thread = Thread(target=self._run, name=name, daemon=True)
        atexit.register(self.stop)
        self._thread.start()

    def get(self) -> T:
        """The next item; waits for it. Raises the iterator's exception, again at every later call.

        Raises FourfoldError if the thread is not there any more and left nothing, as in a forked process.
        """
        with self._changed:
            while not self._changed.wait_for(self._is_decided, timeout=POLL_S):
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

    def stop(self) -> None:
        """Drop what is ready and wait for the thread to end, at most STOP_S. Safe to call twice."""
        with self._changed:
            self._is_stopped = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(STOP_S)
        atexit.unregister(self.stop)

    def _is_decided(self) -> bool:
        return bool(self._ready) or self._error is not None or self._is_stopped

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
            else:
                raise EOFError("the prefetched iterator has ended")
        except BaseException as error:  # whatever it is, the consumer must not wait for ever
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._items.close()

    def _put(self, item: T) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._depth or self._is_stopped)
            if not self._is_stopped:
                self._ready.append(item)
                self._changed.notify_all()
            return not self._is_stopped
