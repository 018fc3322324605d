"""That an array is gone is known only when all its views are, and costs no interrupt."""

import signal
import time
from collections.abc import Iterator
from types import FrameType

import numpy as np
import pytest
import torch

from pipelines.base.freed_arrays import FreedArrays


def test_an_array_is_gone_with_its_last_view() -> None:
    views: FreedArrays[str] = FreedArrays()
    memory = np.arange(64, dtype=np.uint8)
    root = views.watched(memory, "first")
    kept = torch.from_numpy(root.view(np.float32)[3:5])
    del root
    assert views.gone() == []
    del kept
    assert views.gone() == ["first"]
    assert views.gone() == []


def test_what_is_written_is_in_the_memory() -> None:
    memory = np.zeros(4, np.uint8)
    FreedArrays[int]().watched(memory, 1)[:] = 7
    assert memory.tolist() == [7, 7, 7, 7]


def test_memory_watched_twice_goes_twice() -> None:
    views: FreedArrays[int] = FreedArrays()
    memory = np.zeros(4, np.uint8)
    one, two = views.watched(memory, 1), views.watched(memory, 2)
    del one
    assert views.gone() == [1]
    del two
    assert views.gone() == [2]


class Interrupted(Exception):
    pass


def interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


@pytest.fixture
def _alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_alarm")
def test_an_interrupt_that_comes_while_views_go_is_not_lost() -> None:
    """In a callback written in Python it would be raised, printed, and forgotten."""
    views: FreedArrays[int] = FreedArrays()
    memory = np.zeros(4, np.uint8)
    held = [views.watched(memory, number) for number in range(50_000)]

    def drop_all() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        held.clear()  # takes longer than that, all of it in C
        time.sleep(1)  # should it not, the interrupt comes here

    with pytest.raises(Interrupted):
        drop_all()
    assert len(views.gone()) == 50_000
