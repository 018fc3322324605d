"""Rates with a clock under control."""

import os

import pytest

from training.diagnostics.meter import Meter


@pytest.fixture
def now(monkeypatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr("training.diagnostics.meter.time.monotonic", lambda: clock[0])
    return clock


def test_rates_are_of_the_interval(now) -> None:
    meter = Meter({"a": 0})
    now[0] = 104.0
    assert meter.take({"a": 20}) == ({"a": 5.0}, 0.0)
    now[0] = 105.0
    assert meter.take({"a": 30}) == ({"a": 10.0}, 0.0)


def test_cpu_time_is_that_of_all_processes_of_the_run(now, monkeypatch) -> None:
    spent = [os.times_result((1.0, 0.5, 0.25, 0.25, 9.0))]
    monkeypatch.setattr("training.diagnostics.meter.os.times", lambda: spent[0])
    meter = Meter({"a": 0}, seconds_before=10.0, cpu_seconds_before=3.0)
    spent[0] = os.times_result((2.0, 1.0, 1.25, 0.75, 99.0))
    assert meter.cpu_seconds == 3.0 + 5.0 - 2.0
    assert meter.seconds == 10.0


def test_waiting_is_a_share_of_the_interval(now) -> None:
    meter = Meter({"a": 0})
    with meter.waiting():
        now[0] = 101.0
    now[0] = 104.0
    assert meter.take({"a": 0})[1] == 0.25


def test_seconds_go_on_from_an_earlier_process(now) -> None:
    meter = Meter({}, seconds_before=50.0)
    now[0] = 101.5
    assert meter.seconds == 51.5
