import signal
import time

import pytest

from benchmarks.suite.deadline import time_limit
from tests.made.patience import PATIENCE_S
from training.stop import StopRequest


def test_block_is_interrupted_when_its_time_is_over() -> None:
    start_s = time.monotonic()
    with time_limit(0.05) as limit:
        time.sleep(PATIENCE_S)
    assert limit.is_over
    assert time.monotonic() - start_s < PATIENCE_S / 2


def test_training_is_asked_to_stop_and_then_leaves() -> None:
    saved = False
    with time_limit(0.05) as limit, StopRequest() as stop:
        while not stop.is_made:
            time.sleep(0.001)
        saved = True
        raise KeyboardInterrupt
    assert saved
    assert limit.is_over


def test_ctrl_c_goes_through_and_a_block_in_time_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), time_limit(PATIENCE_S):
        raise KeyboardInterrupt
    with time_limit(None) as limit:
        pass
    assert not limit.is_over
    assert signal.getsignal(signal.SIGTERM) is before
