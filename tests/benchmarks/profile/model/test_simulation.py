"""The simulated pipeline against closed forms: one stage after the other with deterministic times, queues between."""

from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks.profile.model.queueing import ConsumerCost, PipelineModel, StageWork, bounds
from benchmarks.profile.model.simulation import is_active, simulate
from tests.made.made_profiles import made_feed, made_model

PLENTY = 64.0


def samples_per_s(model: PipelineModel) -> float:
    return simulate(model).samples_per_s


@pytest.mark.parametrize(
    ("feed_s", "job_s", "step_s"), [(0.03, 0.01, 0.01), (0.01, 0.03, 0.01), (0.01, 0.01, 0.03), (0.02, 0.02, 0.02)]
)
def test_tandem_queue_gives_what_its_slowest_stage_gives(feed_s: float, job_s: float, step_s: float) -> None:
    model = made_model(
        StageWork(task="colorization", cpu_s=job_s),
        feed=made_feed(read_s=feed_s, decode_s=0.0),
        consumer=ConsumerCost(step_wait_s=step_s),
        num_cores=PLENTY,
        num_threads=1,
    )
    assert samples_per_s(model) == pytest.approx(16 / max(feed_s, job_s, step_s), rel=1e-6)


@pytest.mark.parametrize("num_threads", [1, 2, 4, 8, 16, 32])
def test_decoding_spreads_over_threads_up_to_a_batch(num_threads: int) -> None:
    model = made_model(StageWork(task="colorization", cpu_s=0.0), num_threads=num_threads, num_cores=PLENTY)
    assert samples_per_s(model) == pytest.approx(16 / (16e-3 / min(num_threads, 16)), rel=1e-6)


def test_the_last_images_of_a_batch_leave_threads_idle() -> None:
    # 16 images on 5 threads take four rounds, though 16 / 5 is 3.2: what a bound does not see.
    model = made_model(StageWork(task="colorization", cpu_s=0.0), num_threads=5, num_cores=PLENTY)
    assert samples_per_s(model) == pytest.approx(16 / 4e-3, rel=1e-6)
    assert samples_per_s(model) < bounds(model)["producer"]


def test_few_cores_are_shared_by_all() -> None:
    # 16 ms of decoding and 8 ms of a task a step, on two cores that never idle.
    played = simulate(made_model(num_threads=4, prefetch_batches=16))
    assert played.samples_per_s == pytest.approx(16 / 12e-3, rel=0.02)
    assert played.busy_ratio == pytest.approx(1.0, abs=0.02)


def test_contention_divides_what_busy_cores_give() -> None:
    model = made_model(num_threads=4, prefetch_batches=16)
    assert samples_per_s(replace(model, contention=1.5)) == pytest.approx(samples_per_s(model) / 1.5, rel=0.02)


def test_tasks_of_a_step_run_beside_each_other() -> None:
    jobs = [StageWork(task=name, cpu_s=0.02) for name in ("relative_position", "colorization", "exemplar")]
    feed = made_feed(decode_s=0.0, read_s=0.001)
    for num_threads, expected_s in ((1, 0.06), (3, 0.02)):
        model = made_model(*jobs, feed=feed, num_threads=num_threads, num_cores=PLENTY)
        assert samples_per_s(model) == pytest.approx(16 / expected_s, rel=0.02)


def test_a_decode_per_task_costs_a_decode_each() -> None:
    once = made_model(StageWork(task="colorization", cpu_s=0.0), num_cores=PLENTY)
    thrice = replace(once, feeds=(replace(once.feeds[0], num_decodes=3),))
    assert samples_per_s(thrice) == pytest.approx(samples_per_s(once) / 3, rel=1e-6)


def test_a_task_of_every_fourth_step_costs_a_quarter() -> None:
    feed = made_feed(decode_s=0.0, read_s=1e-6)
    model = made_model(
        StageWork(task="colorization", cpu_s=0.04, share=0.25), feed=feed, num_threads=1, num_cores=PLENTY
    )
    assert samples_per_s(model) == pytest.approx(16 / 0.01, rel=0.02)


def test_reads_that_wait_are_no_work_for_the_cores() -> None:
    played = simulate(
        made_model(StageWork(task="colorization", cpu_s=0.0), feed=made_feed(decode_s=0.0, waits_s=(0.1,)))
    )
    assert played.samples_per_s == pytest.approx(160, rel=1e-6)
    assert played.busy_ratio == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("prefetch_batches", "is_bridged"), [(1, False), (16, True)])
def test_only_a_deep_queue_bridges_a_long_read(prefetch_batches: int, is_bridged: bool) -> None:
    # A tenth of the reads takes 90 ms, 9 ms a step on average; a step takes 10 ms.
    feed = made_feed(decode_s=0.0, waits_s=(0.09, *[0.0] * 9))
    model = made_model(
        StageWork(task="colorization", cpu_s=0.0),
        feed=feed,
        consumer=ConsumerCost(step_wait_s=0.01),
        prefetch_batches=prefetch_batches,
    )
    assert (samples_per_s(model) == pytest.approx(1600, rel=0.02)) == is_bridged


def test_copies_block_the_step_or_run_beside_it() -> None:
    taking = ConsumerCost(transfer_s=0.02, step_wait_s=0.03)
    model = made_model(consumer=taking, num_cores=PLENTY)
    assert samples_per_s(model) == pytest.approx(16 / 0.05, rel=1e-6)
    overlapped = replace(model, consumer=replace(taking, is_overlapped=True))
    assert samples_per_s(overlapped) == pytest.approx(16 / 0.03, rel=1e-6)


def test_a_step_on_the_cores_competes_with_the_pipeline() -> None:
    alone = made_model(num_threads=4, prefetch_batches=16)
    trained = replace(alone, consumer=ConsumerCost(step_cpu_s=0.024, step_threads=2))
    assert samples_per_s(trained) == pytest.approx(16 / 0.024, rel=0.03)  # 24 + 24 ms of work on two cores


def test_who_waits_for_whom() -> None:
    slow_step = simulate(made_model(consumer=ConsumerCost(step_wait_s=0.1)))
    assert slow_step.wait_ratio == pytest.approx(0.0, abs=1e-6)
    slow_read = made_model(feed=made_feed(decode_s=0.0, waits_s=(0.09,)), consumer=ConsumerCost(step_wait_s=0.03))
    assert simulate(slow_read).wait_ratio == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("num_cores", [0.7, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("contention", [1.0, 1.4])
@pytest.mark.parametrize(
    "taking", [ConsumerCost(), ConsumerCost(step_wait_s=0.01, transfer_s=0.01, is_overlapped=True)]
)
def test_never_above_any_bound(num_threads: int, num_cores: float, contention: float, taking: ConsumerCost) -> None:
    model = made_model(num_threads=num_threads, num_cores=num_cores, contention=contention, consumer=taking)
    # What was prepared before the count began may come into it: at most what the queue holds, of 60 steps.
    slack = 1 + (model.prefetch_batches + 2) / 60
    limits = bounds(replace(model, contention=1.0))
    assert samples_per_s(model) <= min(limits.values()) * slack


def test_the_same_model_gives_the_same_numbers() -> None:
    assert simulate(made_model()) == simulate(made_model())


@pytest.mark.parametrize(("share", "expected"), [(1.0, 12), (0.5, 6), (0.25, 3), (1 / 3, 4), (0.0, 0)])
def test_shares_are_spread_evenly(share: float, expected: int) -> None:
    active = [step for step in range(12) if is_active(share, step)]
    assert len(active) == expected
    gaps = {after - before for before, after in pairwise(active)}
    assert len(gaps) <= 1
