"""Profiles made up from numbers: models of pipelines, windows and measurements that never ran."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.profile.judge.measurements import Measurements
from benchmarks.profile.measure.costs import StageCost
from benchmarks.profile.measure.load import CoreUse
from benchmarks.profile.measure.windows import Window
from benchmarks.profile.model.queueing import ConsumerCost, Feed, PipelineModel, StageWork
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.run.stage_stats import StageStats


def made_feed(**changes: Any) -> Feed:
    """16 images a batch, nothing costs anything but decoding: 1 ms of a core each."""
    facts: dict[str, Any] = {"kind": "image", "batch_size": 16, "read_s": 0.0, "waits_s": (0.0,), "draw_s": 0.0}
    return Feed(**(facts | {"decode_s": 1e-3} | changes))


def made_model(*jobs: StageWork, feed: Feed | None = None, **changes: Any) -> PipelineModel:
    """Two threads on two cores; colorization for 8 ms of a core a step; nobody takes the steps."""
    facts: dict[str, Any] = {"consumer": ConsumerCost(), "num_threads": 2, "prefetch_batches": 4, "num_cores": 2.0}
    feeds = (feed or made_feed(),)
    facts |= {"samples_per_step": float(sum(one.batch_size for one in feeds)), "feeds": feeds}
    return PipelineModel(**(facts | {"jobs": jobs or (StageWork(task="colorization", cpu_s=8e-3),)} | changes))


def made_use(own_s: float = 1.0, seconds: float = 1.0) -> CoreUse:
    return CoreUse(seconds=seconds, own_s=own_s, queued_s=0.0)


def made_window(**changes: Any) -> Window:
    """One second, ten steps of 16 samples."""
    facts: dict[str, Any] = {"seconds": 1.0, "num_steps": 10, "num_samples": 160, "wait_s": 0.9, "transfer_s": 0.0}
    stages = (made_stats("read", 0.1, 0.2, 0.7), made_stats("decode", 0.5, 0.25, 0.25))
    return Window(**(facts | {"step_s": 0.1, "use": made_use(), "stages": stages} | changes))


def made_stats(name: str, busy_s: float, input_s: float, output_s: float) -> StageStats:
    return StageStats(
        name=name,
        num_items=10,
        num_failures=0,
        busy_s=busy_s,
        blocked_on_input_s=input_s,
        blocked_on_output_s=output_s,
    )


def made_config(**pipeline: Any) -> ProfileConfig:
    facts: dict[str, Any] = {"images": "shards", "batch_size": 16, "prefetch_batches": 4, "num_threads": 2}
    return ProfileConfig.model_validate({"pipeline": facts | {"tasks": {"colorization": {}}} | pipeline})


def made_costs(model: PipelineModel) -> dict[str, StageCost]:
    """Costs per sample that a model's seconds per batch stand for."""
    found = {}
    for feed in model.feeds:
        per_sample = {"read": feed.read_s / feed.batch_size, "draw": feed.draw_s / feed.batch_size}
        for name, cost_s in (per_sample | {"decode": feed.decode_s}).items():
            label = f"{name} {feed.kind}"
            found[label] = StageCost(name=label, kind=feed.kind, service_s=cost_s, sample_bytes=50_000.0)
        for job in model.jobs:
            found[job.task] = StageCost(name=job.task, kind=feed.kind, service_s=job.cpu_s / feed.batch_size)
    return found


def made_measured(
    model: PipelineModel,
    *,
    config: ProfileConfig | None = None,
    base: Sequence[Window] = (made_window(),),
    cores: float | None = None,
) -> Measurements:
    """As if a pipeline that a model describes had been measured. cores: those to be had."""
    cost = model.consumer
    step_s = cost.step_s + cost.transfer_s
    alone = made_window(seconds=step_s, num_steps=1, num_samples=model.samples_per_step) if step_s else made_window()
    return Measurements(
        config=config or made_config(),
        base=tuple(base),
        free=(),
        consumer=(alone,),
        consumer_name="device" if step_s else "nobody",
        flop_per_step=0.0,
        costs=made_costs(model),
        model=model,
        model_here=replace(model, num_cores=cores or model.num_cores),
        cores_to_be_had=cores or model.num_cores,
    )
