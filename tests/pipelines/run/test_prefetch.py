"""The prefetcher: order, bound, exceptions handed over, and threads that end."""

import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pipelines.base.errors import FourfoldError
from pipelines.run.prefetch import Prefetcher
from tests.made.patience import PATIENCE_S, seconds_here, wait_until


def counting(made, stop_at=None, error=None):
    for number in range(10**9):
        if number == stop_at:
            if error is None:
                return
            raise error
        made.append(number)
        yield number


def test_items_come_in_order():
    prefetcher = Prefetcher(counting([]), 3, "test")
    assert [prefetcher.get() for _ in range(50)] == list(range(50))
    prefetcher.stop()


@pytest.mark.parametrize("depth", [1, 4])
def test_no_more_than_depth_and_one_are_made_ahead(depth):
    made = []
    prefetcher = Prefetcher(counting(made), depth, "test")
    wait_until(lambda: len(made) == depth + 1)
    time.sleep(0.05)
    assert len(made) == depth + 1
    prefetcher.get()
    wait_until(lambda: len(made) == depth + 2)
    prefetcher.stop()


def test_an_exception_comes_after_the_items_made_before_it_and_stays():
    prefetcher = Prefetcher(counting([], stop_at=2, error=KeyError("lost")), 4, "test")
    assert [prefetcher.get(), prefetcher.get()] == [0, 1]
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            prefetcher.get()
    prefetcher.stop()


def test_an_exception_wakes_a_consumer_that_already_waits():
    def slow():
        time.sleep(0.1)
        raise OSError("late")
        yield

    prefetcher = Prefetcher(slow(), 1, "test")
    with pytest.raises(OSError, match="late"):
        prefetcher.get()
    prefetcher.stop()


def test_the_end_of_the_iterator_is_an_error_not_a_hang():
    prefetcher = Prefetcher(counting([], stop_at=0), 1, "test")
    with pytest.raises(EOFError):
        prefetcher.get()
    prefetcher.stop()


def test_stop_ends_the_thread_and_closes_the_iterator():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    prefetcher = Prefetcher(items(), 2, "prefetch-under-test")
    prefetcher.get()
    prefetcher.stop()
    prefetcher.stop()
    assert closed.is_set()
    assert "prefetch-under-test" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(RuntimeError, match="after stop"):
        prefetcher.get()


def test_a_process_that_forgets_to_stop_ends_all_the_same():
    script = """
        import itertools
        from pipelines.run.prefetch import Prefetcher
        prefetcher = Prefetcher((n for n in itertools.count()), 2, "forgotten")
        print(prefetcher.get())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], timeout=PATIENCE_S, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_thread_that_is_gone_without_an_error_is_an_error():
    prefetcher = Prefetcher(counting([]), 1, "lost")
    prefetcher.get()
    prefetcher.stop()
    # As in a forked process: the thread is not there, and nobody has stopped it.
    prefetcher._is_stopped = False
    start_s = time.monotonic()
    with pytest.raises(FourfoldError, match="Thread lost has died without an error"):
        prefetcher.get()
    assert time.monotonic() - start_s < seconds_here(5)


def test_an_exit_in_the_thread_reaches_the_consumer():
    prefetcher = Prefetcher(counting([], stop_at=1, error=SystemExit("killed")), 1, "test")
    assert prefetcher.get() == 0
    with pytest.raises(SystemExit, match="killed"):
        prefetcher.get()
    prefetcher.stop()


def test_stop_leaves_a_thread_that_hangs(monkeypatch):
    monkeypatch.setattr("pipelines.run.prefetch.STOP_S", 0.05)
    release = threading.Event()

    def items():
        release.wait()
        yield 1

    prefetcher = Prefetcher(items(), 1, "hanging")
    prefetcher.stop()
    release.set()
    wait_until(lambda: "hanging" not in [thread.name for thread in threading.enumerate()])
