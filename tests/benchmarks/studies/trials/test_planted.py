"""Planted bottlenecks are really there for the time of a block, and gone behind it; every trial's config is valid."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.studies.trials.planted import (
    PLANTS,
    Plant,
    blocking_transfer,
    num_bytes,
    stalling_reads,
    throttled_reads,
)
from benchmarks.studies.trials.profile_trials import BASES, base_config
from benchmarks.studies.trials.trial_shards import TrialShards
from pipelines.build import build_pipeline
from pipelines.read.reader import SampleReader
from pipelines.tasks.base import TaskBatch
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]
SHARDS = TrialShards(images=Path("images"), clips=Path("clips"), oversized=Path("oversized"))


def seconds(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


@pytest.fixture
def reader(small_shards: MakeShards) -> SampleReader:
    with build_pipeline(made_config(images=small_shards(8), canvas_px=32, batch_size=4).pipeline, seed=0) as pipeline:
        return pipeline.maker.sources["image"].source.reader


def test_throttled_reads_take_their_bytes_time(reader: SampleReader) -> None:
    before = SampleReader.read
    folder = reader.paths[0].parent
    num_bytes = len(reader.read(0))
    with throttled_reads(folder, num_bytes / 0.02):
        assert seconds(lambda: reader.read(0)) >= 0.02
    with throttled_reads(folder / "elsewhere", num_bytes / 5.0):
        assert seconds(lambda: reader.read(0)) < 1
    assert SampleReader.read is before


def test_stalls_come_every_so_many_reads(reader: SampleReader) -> None:
    with stalling_reads(reader.paths[0].parent, every=3, seconds=0.05):
        slow = [seconds(lambda: reader.read(0)) >= 0.05 for _ in range(6)]
    assert slow == [False, False, True, False, False, True]


def test_blocking_transfers_take_their_bytes_time(small_shards: MakeShards) -> None:
    with build_pipeline(made_config(images=small_shards(8), canvas_px=32, batch_size=4).pipeline, seed=0) as pipeline:
        batch = next(pipeline).batches["colorization"]
    before = TaskBatch.to
    with blocking_transfer(num_bytes(batch) / 0.02):
        assert seconds(lambda: batch.to("cpu")) >= 0.02
    assert TaskBatch.to is before


def test_what_was_in_place_comes_back_after_an_error() -> None:
    before = SampleReader.read
    with pytest.raises(KeyError), throttled_reads(Path("x"), 1.0):
        raise KeyError
    assert SampleReader.read is before


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_every_trial_has_a_valid_config(plant: Plant) -> None:
    assert plant.needs in BASES
    for trial in range(10):
        config = base_config(SHARDS, plant, trial)
        assert config.pipeline.tasks
        if plant.stage == "motion_segmentation":
            assert config.pipeline.tasks["motion_segmentation"].engine == "farneback"  # type: ignore[attr-defined]


def test_planted_is_what_was_asked_for() -> None:
    stages = {plant.name: plant.stage for plant in PLANTS}
    assert stages == {
        "nothing": "cores",
        "throttled reads": "read",
        "oversized images": "decode",
        "a decode per task": "decode",
        "slow flow engine": "motion_segmentation",
        "one thread": "threads",
        "slow step": "step",
        "small prefetch": "prefetch",
        "blocking transfer": "transfer",
    }
