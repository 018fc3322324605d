"""Bounds and the fitted model against numbers worked out by hand."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.profile.measure.costs import StageCost
from benchmarks.profile.model.queueing import ConsumerCost, StageWork, bounds, fit, own_threads
from pipelines.base.machine import num_cores
from pipelines.build import PipelineConfig
from tests.made.made_profiles import made_feed, made_model


def config(**changes: Any) -> PipelineConfig:
    facts: dict[str, Any] = {"images": "a", "clips": "b", "batch_size": 10, "clip_batch_size": 4}
    return PipelineConfig.model_validate(facts | {"tasks": {"colorization": {}, "exemplar": {}}} | changes)


def cost(name: str, service_s: float, **changes: Any) -> StageCost:
    kind: Any = "clip" if "clip" in name or name == "motion_segmentation" else "image"
    return StageCost(**({"name": name, "kind": kind, "service_s": service_s} | changes))


IMAGE_COSTS = (
    cost("read image", 1e-5, wait_s=2e-3, waits_s=(1e-3, 3e-3)),
    cost("draw image", 2e-5),
    cost("decode image", 1e-3, contention=1.5),
    cost("colorization", 5e-4, contention=2.0),
    cost("exemplar", 4e-4),
)


def test_bounds_of_a_hand_worked_model() -> None:
    # Producer: 1 + 3 + 2 ms and 16 images of 1 ms on 2 threads. Workers: 16 + 8 ms on 2. Cores: 1 + 2 + 16 + 8 = 27 ms
    # on two of them, 1.2 times that when both are busy. Consumer: 5 + 7 ms.
    feed = made_feed(read_s=1e-3, draw_s=2e-3, waits_s=(1e-3, 5e-3))
    model = made_model(feed=feed, consumer=ConsumerCost(transfer_s=5e-3, step_wait_s=7e-3), contention=1.2)
    assert bounds(model) == pytest.approx(
        {"cores": 16 / 16.2e-3, "producer": 16 / 14e-3, "workers": 16 / 12e-3, "consumer": 16 / 12e-3}
    )
    overlapped = replace(model, consumer=replace(model.consumer, is_overlapped=True))
    assert bounds(overlapped)["consumer"] == pytest.approx(16 / 7e-3)


def test_nobody_is_no_bound() -> None:
    assert "consumer" not in bounds(made_model())


def test_cpu_seconds_by_stage_count_shares_and_decodes() -> None:
    feed = made_feed(read_s=1e-3, draw_s=2e-3, num_decodes=3, share=0.5)
    model = made_model(
        StageWork(task="colorization", cpu_s=8e-3, share=0.25),
        feed=feed,
        consumer=ConsumerCost(step_cpu_s=6e-3, step_threads=2),
    )
    expected = {"read": 0.5e-3, "draw": 1e-3, "decode": 24e-3, "colorization": 2e-3, "step": 6e-3}
    assert model.cpu_by_stage() == pytest.approx(expected)
    assert model.cpu_s == pytest.approx(33.5e-3)
    assert model.consumer.step_s == pytest.approx(3e-3)


def test_fit_turns_costs_a_sample_into_seconds_a_batch() -> None:
    model = fit(config(num_threads=3), {one.name: one for one in IMAGE_COSTS}, ConsumerCost())
    (feed,) = model.feeds
    assert (feed.batch_size, feed.num_decodes, feed.share) == (10, 1, 1.0)
    assert (feed.read_s, feed.draw_s, feed.decode_s) == pytest.approx((1e-4, 2e-4, 1.5e-3))
    assert feed.waits_s == pytest.approx((1e-2, 3e-2))
    assert feed.wait_s == pytest.approx(2e-2)
    assert {job.task: job.cpu_s for job in model.jobs} == pytest.approx({"colorization": 1e-2, "exemplar": 4e-3})
    assert (model.num_threads, model.samples_per_step, model.num_cores) == (3, 10, num_cores())


def test_fit_of_both_kinds_counts_images_and_clips() -> None:
    costs = (*IMAGE_COSTS, cost("read clip", 1e-5), cost("draw clip", 0.0), cost("decode clip", 4e-3))
    costs = (*costs, cost("motion_segmentation", 3e-3))
    tasks = {"colorization": {}, "motion_segmentation": {"task_weight": 0.5}}
    model = fit(config(tasks=tasks), {one.name: one for one in costs}, ConsumerCost(), cores=1.5)
    assert [feed.kind for feed in model.feeds] == ["image", "clip"]
    assert [feed.share for feed in model.feeds] == [1.0, 0.5]
    assert model.samples_per_step == 14
    assert model.num_cores == 1.5
    assert {job.task: job.share for job in model.jobs} == {"colorization": 1.0, "motion_segmentation": 0.5}


@pytest.mark.parametrize(("weights", "share"), [((1.0, 1.0), 1.0), ((0.5, 0.5), 0.75), ((0.2, 0.0001), 0.20008)])
def test_a_kind_is_read_when_any_of_its_tasks_is_active(weights: tuple[float, float], share: float) -> None:
    tasks = {name: {"task_weight": weight} for name, weight in zip(("colorization", "exemplar"), weights, strict=True)}
    (feed,) = fit(config(tasks=tasks), {one.name: one for one in IMAGE_COSTS}, ConsumerCost()).feeds
    assert feed.share == pytest.approx(share)


@pytest.mark.parametrize(("share_decode", "num_decodes"), [(True, 1), (False, 2)])
def test_decodes_a_sample(share_decode: bool, num_decodes: int) -> None:
    costs = {one.name: one for one in IMAGE_COSTS}
    (feed,) = fit(config(share_decode=share_decode), costs, ConsumerCost()).feeds
    assert feed.num_decodes == num_decodes


def test_threads_of_a_task() -> None:
    tasks = {"colorization": {}, "motion_segmentation": {}}
    assert own_threads(config(tasks=tasks), "colorization") == 1
    assert own_threads(config(tasks=tasks, clip_batch_size=1), "motion_segmentation") == 1


def test_changed_models() -> None:
    jobs = (
        StageWork(task="colorization", cpu_s=8e-3),
        StageWork(task="motion_segmentation", cpu_s=5e-3, num_threads=2),
    )
    clips = made_feed(kind="clip", batch_size=4, decode_s=5e-3)
    model = replace(made_model(*jobs), feeds=(made_feed(), clips), samples_per_step=20)
    assert [feed.decode_s for feed in model.with_feeds("clip", decode_s=2e-3).feeds] == [1e-3, 2e-3]
    assert [feed.read_s for feed in model.with_feeds(read_s=5e-3).feeds] == [5e-3, 5e-3]
    assert [job.cpu_s for job in model.with_task("colorization", 1e-3).jobs] == [1e-3, 5e-3]
    more = model.on_cores(32)
    assert (more.num_threads, more.num_cores) == (32, 32.0)
    assert [job.num_threads for job in more.jobs] == [1, 4]
    assert model.without_consumer().consumer == ConsumerCost()
