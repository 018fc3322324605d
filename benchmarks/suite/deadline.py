"""Time limit of a run: once it is over, the run is interrupted as by SIGTERM, and stages at work save a checkpoint."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.base.interrupt import sigterm_as_interrupt

__all__ = ["TimeLimit", "time_limit"]


class TimeLimit:
    """Whether the time of a run is over."""

    def __init__(self) -> None:
        self.is_over = False

    def end(self) -> None:
        """Interrupt the main thread. In a pretraining that means: finish the step, save, and leave."""
        self.is_over = True
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[TimeLimit]:
    """Interrupt the block after `seconds`, if given; then leave it quietly, with `is_over` true.

    Any other KeyboardInterrupt goes through. SIGTERM is treated as Ctrl-C in the block.
    """
    limit = TimeLimit()
    timer = None if seconds is None else threading.Timer(seconds, limit.end)
    try:
        with sigterm_as_interrupt():
            if timer is not None:
                timer.daemon = True
                timer.start()
            try:
                yield limit
            finally:
                if timer is not None:
                    timer.cancel()
                    # A signal that was sent just now must arrive here, and not after the handler is gone.
                    timer.join()
    except KeyboardInterrupt:
        if not limit.is_over:
            raise
