"""Work on a pool of threads, results in the order of the items, without running far ahead of the reader."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ordered_map"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item], num_threads: int) -> Iterator[Result]:
    """Yield work(item) for each item, in their order.

    Holds at most 2 x `num_threads` + 2 results. The items are taken in the caller's thread.
    """
    depth = 2 * num_threads + 2
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # After an error or an early end, work that has not begun would hold the pool's shutdown up.
            for future in pending:
                future.cancel()
