"""Who takes steps: nobody, a device of a given speed, a real trainer; copies and sleeps last as long as they should."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.profile.measure.consumers import moved, nvtx_range, open_consumer, sleep_until
from benchmarks.profile.measure.windows import Bench
from benchmarks.profile.profile_config import ProfileConfig
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]
CPU = torch.device("cpu")


@pytest.mark.parametrize("seconds", [0.0, 0.003, 0.02])
def test_sleeps_are_never_too_short(seconds: float) -> None:
    start_s = time.perf_counter()
    sleep_until(start_s + seconds)
    assert time.perf_counter() - start_s >= seconds


def test_a_device_is_busy_for_its_samples(small_shards: MakeShards) -> None:
    config = tiny(small_shards(6)).model_copy(update={"device_samples_per_s": 200.0})
    with Bench(config) as bench:
        step = next(bench.pipeline)
        start_s = time.perf_counter()
        bench.consumer.step(step)
        assert time.perf_counter() - start_s >= 0.02


def test_moved_steps_hold_the_same_numbers(small_shards: MakeShards) -> None:
    with Bench(tiny(small_shards(6))) as bench:
        step = next(bench.pipeline)
    there = moved(step, CPU)
    assert list(there.batches) == ["colorization"]
    assert torch.equal(there.batches["colorization"].inputs, step.batches["colorization"].inputs)


def test_the_configured_consumer_takes_the_steps(small_shards: MakeShards) -> None:
    config = tiny(small_shards(6))
    with Bench(config) as bench:
        assert bench.consumer.name == "nobody"
        other = config.model_copy(update={"device_samples_per_s": 100.0})
        assert open_consumer(other, bench.pipeline, CPU, 4).name == "device"
    with Bench(other, has_consumer=False) as bench:
        assert bench.consumer.name == "nobody"


def test_a_trainer_learns_and_counts_its_work(small_shards: MakeShards) -> None:
    config = tiny(small_shards(6))
    train = {
        "pipeline": config.pipeline.model_dump(serialize_as_any=True, exclude_none=True),
        "trunk": {"depth": 10, "width": 0.125},
        "heads": {"preset": "small"},
        "budget": {"steps": 1},
    }
    trained = ProfileConfig.model_validate({"pipeline": train["pipeline"], "train": train})
    with Bench(trained) as bench:
        assert bench.consumer.name == "trainer"
        assert bench.consumer.flop_per_step > 0
        window = bench.window(60.0, max_steps=1)
        assert (window.num_steps, window.num_samples) == (1, 4)
        assert 0 < window.step_s <= window.seconds


def test_a_range_costs_nothing_without_a_gpu() -> None:
    with nvtx_range("step", CPU):
        pass


def tiny(folder: Path) -> ProfileConfig:
    """Colorization of four images at a time, small."""
    return made_config(images=folder, batch_size=4, canvas_px=32, prefetch_batches=1)
