"""Core seconds: what was used, what was waited for, and how many cores there are to be had."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.profile.measure import load
from benchmarks.profile.measure.load import LoadMeter, cores_to_be_had, queued_by_thread
from pipelines.base.machine import num_cores
from tests.made.patience import PATIENCE_S

SLEEPS = """
import time
from benchmarks.profile.measure.load import LoadMeter
meter = LoadMeter()
time.sleep(0.2)
use = meter.read()
print(use.seconds, use.own_s)
"""
"""For a process of its own with one thread: those of a linear algebra library spin for 30 ms after their work."""


def test_sleeping_uses_nothing() -> None:
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SLEEPS], env=env, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    seconds, own_s = map(float, done.stdout.split())
    assert seconds >= 0.2
    assert own_s < 0.05


def test_computing_is_counted() -> None:
    meter, end_s = LoadMeter(), time.process_time() + 0.05
    while time.process_time() < end_s:
        pass
    assert meter.read().own_s >= 0.05


def test_waiting_for_a_core_never_runs_backwards() -> None:
    meter = LoadMeter()
    assert meter.read().queued_s >= 0
    assert meter.read().queued_s >= 0


def test_every_thread_is_seen_while_it_lives() -> None:
    before = len(queued_by_thread())
    if not before:
        pytest.skip("this system does not say what threads waited for")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert len(queued_by_thread()) == before + 1
    finally:
        stop.set()
        thread.join()


def test_where_the_system_does_not_say_nothing_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "TASKS", tmp_path)
    assert queued_by_thread() == {}
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "schedstat").write_text("odd")
    assert queued_by_thread() == {}
    (tmp_path / "7" / "schedstat").write_text("100 2500000000 7\n")
    assert queued_by_thread() == {"7": pytest.approx(2.5)}
    assert LoadMeter().read().queued_s == 0.0


def test_cores_to_be_had_are_some_and_no_more_than_there_are() -> None:
    assert 0.1 <= cores_to_be_had(0.05) <= num_cores()
