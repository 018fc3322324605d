"""A thread pool that cannot hang on a thread that has died: whoever waits for its work looks whether it still lives.

A thread pool of the standard library whose threads are gone (a fork, an exception outside a job) queues its jobs for
ever, and their results never come.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from pipelines.base.errors import FourfoldError

__all__ = ["POLL_S", "CallingThread", "Workers", "result_of"]

T = TypeVar("T")
POLL_S = 0.5
"""How long a wait goes on before the threads are looked at. A check takes microseconds; a dead worker is an error
within this time."""


class Workers(ThreadPoolExecutor):
    """`submit`, `map` and `result_of` raise FourfoldError once a thread of the pool has died."""

    def __init__(self, num_threads: int, thread_name_prefix: str = "fourfold-worker") -> None:
        super().__init__(num_threads, thread_name_prefix)
        self.num_threads = num_threads

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        self.check()
        return super().submit(fn, *args, **kwargs)

    def map(self, fn: Callable[..., T], *iterables: Iterable[Any], **_: Any) -> Iterator[T]:
        """Results in order. All jobs are submitted at once; the first error is raised at its place."""
        futures = [self.submit(fn, *arguments) for arguments in zip(*iterables, strict=False)]
        return (self.result_of(future) for future in futures)

    def result_of(self, future: Future[T]) -> T:
        """A job's result, or its exception."""
        return result_of(future, self.check)

    def check(self) -> None:
        """Raises FourfoldError if a thread of the pool is dead."""
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead and not self._shutdown:
            raise FourfoldError(
                f"Worker thread {dead[0]} has died ({len(dead)} of {len(self._threads)}). Start again; in a process "
                "that was forked, build the pipeline after the fork."
            )


class CallingThread(Workers):
    """In place of one thread beside the caller: a job is done where it is submitted. A pool of one thread that its
    caller always waits for has the same order, and hands everything to another core's caches and back."""

    def __init__(self) -> None:
        super().__init__(1)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def result_of(future: Future[T], check: Callable[[], None]) -> T:
    """Wait for a future, and call `check`, which may raise, at every POLL_S of waiting."""
    while not wait([future], timeout=POLL_S).done:
        check()
    return future.result()
