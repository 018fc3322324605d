"""Costs of stages of a tiny pipeline: every stage is there, numbers are per sample, waiting is not work."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.profile.measure.costs import StageCost, lanes, measure_costs
from benchmarks.studies.trials.planted import throttled_reads
from pipelines.base.machine import num_cores
from pipelines.build import PipelineConfig
from tests.made.made_profiles import made_config
from tests.made.patience import retried

MakeShards = Callable[..., Path]
CPU = torch.device("cpu")


def config(small_shards: MakeShards) -> PipelineConfig:
    return made_config(images=small_shards(12), batch_size=4, canvas_px=64).pipeline


def test_every_stage_has_a_cost(small_shards: MakeShards) -> None:
    found = measure_costs(config(small_shards), 0.2, CPU)
    assert list(found) == ["read image", "draw image", "decode image", "colorization"]
    for cost in found.values():
        assert cost.kind == "image"
        assert 0 <= cost.service_s < 0.1
        assert 1 <= cost.contention <= 4
        assert cost.busy_s == cost.service_s * cost.contention
        assert cost.num_batches >= 3
    assert found["read image"].sample_bytes > 100
    assert found["decode image"].service_s > found["read image"].service_s


def test_slow_reads_wait_and_do_not_work(small_shards: MakeShards) -> None:
    one = config(small_shards)

    def check() -> None:
        with throttled_reads(one.sources_of("image")[0].path, 2e5):
            read = measure_costs(one, 0.3, CPU)["read image"]
        assert read.wait_s >= 0.8 * read.sample_bytes / 2e5
        assert read.service_s < read.wait_s

    # A process that is not scheduled for a while reads later, and then waits less for its turn.
    retried(check)


def test_a_lane_for_every_core_of_one_thread_each(small_shards: MakeShards) -> None:
    with lanes(config(small_shards), CPU) as pipelines:
        assert len(pipelines) == min(num_cores(), 8)


def test_rates_of_a_core_count_waiting() -> None:
    cost = StageCost(name="read image", kind="image", service_s=1e-3, wait_s=3e-3, contention=2.0)
    assert cost.samples_per_s == pytest.approx(250)
    assert cost.busy_s == pytest.approx(2e-3)
