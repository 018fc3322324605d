"""Verdicts from made-up measurements: each planted bottleneck is named, and nothing is called an alarm without one."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.profile.judge.advice import Option, settings_options
from benchmarks.profile.judge.verdict import Verdict, consumer_finding, judge, shares_of
from benchmarks.profile.model.queueing import ConsumerCost, PipelineModel, StageWork
from tests.made.made_profiles import made_config, made_feed, made_measured, made_model

MOTION = "motion_segmentation"


def verdict(model: PipelineModel, *methods: Option, **pipeline: Any) -> Verdict:
    config = made_config(num_threads=model.num_threads, prefetch_batches=model.prefetch_batches, **pipeline)
    measured = made_measured(model, config=config)
    return judge(measured, (*settings_options(config, model), *methods))


def faster(stage: str, factor: float, name: str) -> Option:
    """A method by which a stage would cost `factor` of what it does."""

    def change(model: PipelineModel) -> PipelineModel:
        if stage == "decode":
            return model.with_feeds("image", decode_s=model.feeds[0].decode_s * factor)
        return model.with_task(stage, next(job.cpu_s for job in model.jobs if job.task == stage) * factor)

    return Option(name=name, stage=stage, text="something faster", change=change)


HEALTHY = made_model(num_threads=2, prefetch_batches=4)


@pytest.mark.parametrize(
    ("model", "stage"),
    [
        (HEALTHY, "cores"),
        (replace(HEALTHY, consumer=ConsumerCost(step_wait_s=1e-3)), "cores"),
        (replace(HEALTHY, consumer=ConsumerCost(step_wait_s=0.2)), "step"),
        (replace(HEALTHY, consumer=ConsumerCost(step_wait_s=0.2, transfer_s=2e-3)), "step"),
        (replace(HEALTHY, contention=1.4), "cores"),
        (made_model(feed=made_feed(waits_s=(1e-4, 2e-4))), "cores"),
        (made_model(feed=made_feed(waits_s=(*[0.0] * 99, 0.02))), "cores"),
    ],
)
def test_nothing_planted_is_no_alarm(model: PipelineModel, stage: str) -> None:
    found = verdict(model)
    assert (found.stage, found.is_alarm) == (stage, False)
    assert found.others == ()
    assert "cured" not in found.sentence


@pytest.mark.parametrize("wait_s", [0.03, 0.1, 1.0])
def test_throttled_reads(wait_s: float) -> None:
    found = verdict(made_model(feed=made_feed(waits_s=(wait_s,))))
    assert (found.stage, found.is_alarm) == ("read", True)
    assert "waits for bytes" in found.sentence
    assert "times the samples/s" in found.sentence


def test_one_thread_where_cores_idle() -> None:
    model = made_model(StageWork(task="colorization", cpu_s=1e-3), num_threads=1, num_cores=8.0)
    found = judge(made_measured(model), (more_threads(8),))
    assert (found.stage, found.is_alarm) == ("threads", True)
    assert "1 of 8 are used" in found.sentence


def more_threads(count: int) -> Option:
    return Option(
        name="threads", stage="threads", text="more threads", change=lambda model: replace(model, num_threads=count)
    )


def test_one_thread_where_the_step_is_slower_is_no_alarm() -> None:
    model = made_model(num_threads=1, num_cores=8.0, consumer=ConsumerCost(step_wait_s=0.5))
    found = judge(made_measured(model), (more_threads(8),))
    assert (found.stage, found.is_alarm) == ("step", False)


def test_small_prefetch_under_reads_that_stall() -> None:
    stalls = made_feed(waits_s=(0.3, *[0.0] * 15))
    found = verdict(made_model(feed=stalls, prefetch_batches=1, consumer=ConsumerCost(step_wait_s=0.045)))
    assert (found.stage, found.is_alarm) == ("prefetch", True)
    assert "300 ms at worst" in found.sentence


def test_small_prefetch_on_many_threads_is_not_blamed_on_reads() -> None:
    found = verdict(made_model(prefetch_batches=1, num_threads=8, num_cores=8.0))
    assert (found.stage, found.is_alarm) == ("prefetch", True)
    assert "1 prefetched steps too few are under way" in found.sentence


def test_blocking_transfer() -> None:
    found = verdict(replace(HEALTHY, consumer=ConsumerCost(transfer_s=0.05, step_wait_s=0.04)))
    assert (found.stage, found.is_alarm) == ("transfer", True)
    assert "50.0 ms" in found.sentence


def test_a_transfer_longer_than_the_step_it_runs_beside_is_an_alarm_too() -> None:
    found = verdict(replace(HEALTHY, consumer=ConsumerCost(transfer_s=0.2, step_wait_s=0.01, is_overlapped=True)))
    assert (found.stage, found.is_alarm) == ("transfer", True)


@pytest.mark.parametrize(("stage", "name"), [("decode", "small_images"), ("colorization", "flow_engine")])
def test_a_stage_that_has_a_faster_method(stage: str, name: str) -> None:
    model = made_model(StageWork(task="colorization", cpu_s=30e-3), feed=made_feed(decode_s=2e-3), prefetch_batches=16)
    found = verdict(model, faster(stage, 0.1, name))
    assert (found.stage, found.is_alarm) == (stage, True)
    assert "something faster" in found.sentence


def test_a_method_that_helps_little_is_advice_and_no_alarm() -> None:
    found = verdict(HEALTHY, faster("decode", 0.9, "small_images"), faster("decode", 0.1, "backend"))
    assert (found.stage, found.is_alarm) == ("cores", False)


def test_the_method_that_helps_most_comes_first_and_the_other_is_told() -> None:
    model = made_model(StageWork(task="colorization", cpu_s=30e-3), feed=made_feed(decode_s=2e-3), prefetch_batches=16)
    options = faster("decode", 0.3, "small_images"), faster("colorization", 0.05, "flow_engine")
    found = verdict(model, *options)
    assert [found.stage, *(one.stage for one in found.others)] == ["colorization", "decode"]


def test_a_setting_is_blamed_before_a_stage() -> None:
    model = made_model(feed=made_feed(waits_s=(0.05,), decode_s=4e-3))
    found = verdict(model, faster("decode", 0.1, "small_images"))
    assert found.stage == "read"


def test_a_step_that_is_faster_than_the_pipeline_is_not_the_limit() -> None:
    assert consumer_finding(replace(HEALTHY, consumer=ConsumerCost(step_wait_s=1e-3))) is None
    assert consumer_finding(HEALTHY) is None


def test_the_verdict_on_cores_names_the_largest_shares() -> None:
    found = verdict(made_model(StageWork(task="colorization", cpu_s=48e-3), prefetch_batches=16))
    assert "colorization 75%, decode 25%" in found.sentence
    assert "64.0 ms of work a step" in found.sentence


def test_shares_sum_to_one() -> None:
    shares = shares_of(made_model(feed=made_feed(read_s=1e-3)))
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares) == ["decode", "colorization", "read"]
