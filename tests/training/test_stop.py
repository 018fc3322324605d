"""The first signal is a request, the second an interrupt."""

import os
import signal
import threading

import pytest

from training.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_is_a_request(number) -> None:
    with StopRequest() as stop:
        assert not stop.is_made
        os.kill(os.getpid(), number)
        assert stop.is_made


def test_two_signals_interrupt() -> None:
    with StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_may_use_it() -> None:
    entered = []

    def enter() -> None:
        with StopRequest() as stop:
            entered.append(stop.is_made)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [False]
