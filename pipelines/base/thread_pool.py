"""Thread pool that raises an error when one of its threads has died.

The standard library's pool accepts jobs for ever after its threads are gone (in a forked process, or after an exception
outside a job), and waiting for their results never ends.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from pipelines.base.errors import FourfoldError

__all__ = ["POLL_S", "InlineThreadPool", "ThreadPool", "result_of"]

T = TypeVar("T")
POLL_S = 0.5
"""Seconds between two checks that the threads are alive, during a wait: a dead thread is an error within this time. A
check takes microseconds."""


class ThreadPool(ThreadPoolExecutor):
    """Thread pool whose `submit`, `map` and `result_of` raise FourfoldError once a thread of the pool has died."""

    def __init__(self, num_threads: int, thread_name_prefix: str = "fourfold-worker") -> None:
        super().__init__(num_threads, thread_name_prefix)
        self.num_threads = num_threads

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Start a job. Raises FourfoldError if a thread of the pool is dead."""
        self.check()
        return super().submit(fn, *args, **kwargs)

    def map(self, fn: Callable[..., T], *iterables: Iterable[Any], **_: Any) -> Iterator[T]:
        """Return an iterator of results in order. All jobs start at once; an error is raised at its place."""
        # All at once, as the standard library does: a lazy generator would start the next job only when it is asked.
        futures = [self.submit(fn, *arguments) for arguments in zip(*iterables, strict=False)]
        return (self.result_of(future) for future in futures)

    def result_of(self, future: Future[T]) -> T:
        """Wait for a job and return its result, or raise its error."""
        return result_of(future, self.check)

    def check(self) -> None:
        """Raise FourfoldError if a thread of the pool is dead."""
        # After `shutdown` all threads have ended, as they should.
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead and not self._shutdown:
            raise FourfoldError(
                f"Worker thread {dead[0]} has died ({len(dead)} of {len(self._threads)}). Start again; in a process "
                "that was forked, build the pipeline after the fork."
            )


class InlineThreadPool(ThreadPool):
    """Pool without threads: `submit` does the job in the calling thread.

    Use it instead of a pool of one thread that the caller always waits for. The order is the same, and data stays in
    the caches of one core.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Do a job now, and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        # Kept for `result_of`, so that errors come where they would with real threads.
        except Exception as error:
            future.set_exception(error)
        return future


def result_of(future: Future[T], check: Callable[[], None]) -> T:
    """Wait for a future and return its result, or raise its error. Calls `check`, which may raise, every POLL_S."""
    while not wait([future], timeout=POLL_S).done:
        check()
    return future.result()
