"""The scaling plan: multiplication by hand, cores by the simulation, more processes where cores do not help."""

import math

import pytest

from benchmarks.profile.model.queueing import PipelineModel, StageWork
from benchmarks.profile.model.scaling import AMPLE_CORES, KEPT_BUSY_RATIO, ScalingRow, assumptions, plan_scaling
from tests.made.made_profiles import made_feed, made_model

SAMPLE_BYTES, STEP_BYTES = 50_000.0, 3.2e6


def plan(model: PipelineModel, *speeds: float, num_gpus: tuple[int, ...] = (1,)) -> tuple[ScalingRow, ...]:
    return plan_scaling(model, num_gpus, speeds, SAMPLE_BYTES, STEP_BYTES)


def test_rows_are_multiples_of_one_gpu() -> None:
    one, eight, many = plan(made_model(), 500.0, num_gpus=(1, 8, 1024))
    assert (one.total_samples_per_s, eight.total_samples_per_s, many.total_samples_per_s) == (500, 4000, 512_000)
    assert eight.cores_per_gpu == one.cores_per_gpu
    assert many.total_cores == 1024 * one.cores_per_gpu
    assert many.read_bytes_per_s == pytest.approx(512_000 * SAMPLE_BYTES)
    assert many.device_bytes_per_s == pytest.approx(500 * STEP_BYTES / 16)


@pytest.mark.parametrize("speed", [100.0, 500.0, 1500.0, 3000.0])
def test_cores_are_at_least_those_of_the_bound_and_few_more(speed: float) -> None:
    # 16 images of 1 ms and 8 ms of a task: 1.5 ms of a core a sample.
    (row,) = plan(made_model(), speed)
    assert row.cores_per_gpu_by_bound == pytest.approx(speed * 1.5e-3)
    assert math.ceil(row.cores_per_gpu_by_bound) <= row.cores_per_gpu <= 2 * row.cores_per_gpu_by_bound + 1
    assert row.simulated_wait_ratio <= 1 - KEPT_BUSY_RATIO + 1e-3


def test_a_thread_that_cannot_be_split_asks_for_more_processes() -> None:
    # The producing thread reads for 10 ms a step, whatever the cores: 1,600 samples/s, of which a process is given 0.8.
    model = made_model(feed=made_feed(read_s=0.01, decode_s=1e-5))
    assert [row.processes_per_gpu for row in plan(model, 1000.0, 3000.0, 12_000.0)] == [1, 3, 10]


def test_few_steps_held_ready_ask_for_more_processes() -> None:
    # One thread makes a batch of a task in 80 ms and at most four steps are under way: 800 samples/s on any cores.
    model = made_model(StageWork(task="colorization", cpu_s=0.08), feed=made_feed(decode_s=1e-6), prefetch_batches=2)
    (row,) = plan(model, 8000.0)
    assert 10 <= row.processes_per_gpu <= 20
    assert row.cores_per_gpu <= row.processes_per_gpu * 8
    assert row.simulated_wait_ratio <= 1 - KEPT_BUSY_RATIO + 1e-3


@pytest.mark.parametrize("contention", [1.0, 1.3, 2.0])
def test_no_plan_is_absurd(contention: float) -> None:
    for row in plan(made_model(contention=contention, prefetch_batches=2), 500.0, 5000.0, 50_000.0):
        assert row.cores_per_gpu <= 3 * row.cores_per_gpu_by_bound + row.processes_per_gpu
        assert row.cores_per_gpu <= AMPLE_CORES * row.processes_per_gpu


def test_equal_speeds_are_one_row_and_in_order() -> None:
    assert [row.gpu_samples_per_s for row in plan(made_model(), 900.0, 300.0, 900.0)] == [300.0, 900.0]


def test_assumptions_state_the_measured_numbers() -> None:
    found = dict(assumptions(made_model(contention=1.2, feed=made_feed(waits_s=(1.6e-3,))), SAMPLE_BYTES))
    assert "1.80 ms of a core a sample" in found
    assert "0.100 ms of waiting a sample" in found
    assert "50 kB a sample" in found
