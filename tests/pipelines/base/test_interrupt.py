import signal
import threading

import pytest

from pipelines.base.interrupt import sigterm_as_interrupt


def test_sigterm_is_an_interrupt_inside_and_as_before_outside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_may_use_it() -> None:
    entered = []

    def enter() -> None:
        with sigterm_as_interrupt():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]
