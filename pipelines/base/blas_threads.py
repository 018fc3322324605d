"""Limit of the threads that numerical libraries use, for pieces of work that many threads make slower."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController, threadpool_limits

__all__ = ["limit_blas_threads", "one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy, SciPy and torch use one thread each inside the block.

    Each brings a pool of its own, and idle threads of one spin on the cores that another needs: a fit took 96 s instead
    of 7 on two cores. Environment variables do not help: they are read once, when a library is loaded. Sums then do not
    depend on the number of cores, either.
    """
    import torch

    before = torch.get_num_threads()
    with _controller().limit(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def limit_blas_threads(num_threads: int) -> None:
    """Limit every pool of this process, for good: in a worker process that has its share of the cores."""
    import torch

    threadpool_limits(limits=num_threads)
    torch.set_num_threads(num_threads)


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """Find the loaded libraries once: looking for them takes milliseconds, and a probe fits hundreds of times."""
    # The libraries must be loaded by now, or they would be missed.
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()
