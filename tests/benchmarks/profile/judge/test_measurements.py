"""From windows to a model: what a step costs its consumer, what contention is, what a prediction stands on."""

import pytest

from benchmarks.profile.judge.measurements import MAX_CONTENTION, consumer_cost, contention_of, median_of
from benchmarks.profile.model.queueing import ConsumerCost
from pipelines.base.machine import num_cores
from tests.made.made_profiles import made_measured, made_model, made_use, made_window


def test_a_step_that_sleeps_waits_for_something_else_than_a_core() -> None:
    windows = [made_window(num_steps=10, step_s=0.5, transfer_s=0.2, use=made_use(own_s=0.01))]
    assert consumer_cost(windows, is_overlapped=False) == ConsumerCost(transfer_s=0.02, step_wait_s=0.05)


def test_a_step_that_computes_takes_cores() -> None:
    windows = [made_window(num_steps=10, step_s=0.5, use=made_use(own_s=0.4))]
    taking = consumer_cost(windows, is_overlapped=True)
    assert taking.step_threads == 1
    assert taking.step_cpu_s == pytest.approx(0.04)
    assert taking.step_s == pytest.approx(0.05)
    assert taking.is_overlapped


@pytest.mark.skipif(num_cores() < 2, reason="one core")
def test_a_step_on_two_cores() -> None:
    taking = consumer_cost([made_window(num_steps=10, step_s=0.5, use=made_use(own_s=1.0))], is_overlapped=False)
    assert (taking.step_threads, taking.step_wait_s) == (2, pytest.approx(0.0))


def test_one_odd_window_does_not_matter() -> None:
    windows = [made_window(num_steps=10, step_s=step_s, use=made_use(own_s=0.0)) for step_s in (0.5, 0.5, 9.0)]
    assert consumer_cost(windows, is_overlapped=False).step_wait_s == pytest.approx(0.05)
    assert median_of(windows, lambda window: window.step_s) == 0.5


@pytest.mark.skipif(num_cores() < 2, reason="one core")
@pytest.mark.parametrize(("factor", "expected"), [(1.0, 1.0), (1.3, 1.3), (9.0, MAX_CONTENTION)])
def test_contention_is_what_a_running_step_takes_over_its_stages_alone(factor: float, expected: float) -> None:
    model = made_model()
    windows = [made_window(num_steps=10, use=made_use(own_s=10 * factor * model.cpu_s))]
    assert contention_of(model, windows) == pytest.approx(expected)


def test_nobody_needs_nothing() -> None:
    assert made_measured(made_model()).consumer_samples_per_s is None
    trained = made_measured(made_model(consumer=ConsumerCost(step_wait_s=0.1)))
    assert trained.consumer_samples_per_s == pytest.approx(160)
