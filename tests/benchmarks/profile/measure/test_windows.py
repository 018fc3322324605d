"""Windows of a running pipeline: what they count adds up; pausing and holding leave the stream alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.profile.measure.windows import NUM_HELD, Bench, forget_targets, rates_in_turns, samples_per_step
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.build import build_pipeline
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]
TASKS = {"relative_position": {"patch_px": 12, "gap_px": 2, "jitter_px": 1}, "colorization": {}}


@pytest.fixture
def config(small_shards: MakeShards) -> ProfileConfig:
    return made_config(images=small_shards(12), tasks=TASKS, batch_size=4, canvas_px=64, prefetch_batches=2)


@pytest.fixture
def bench(config: ProfileConfig) -> Iterator[Bench]:
    with Bench(config.model_copy(update={"device_samples_per_s": 4000.0})) as made:
        yield made


def test_a_window_counts_what_happened_in_it(bench: Bench) -> None:
    window = bench.window(60.0, max_steps=12)
    assert (window.num_steps, window.num_samples) == (12, 48)
    assert window.samples_per_s == pytest.approx(48 / window.seconds)
    assert window.wait_s + window.transfer_s + window.step_s <= window.seconds
    assert window.wait_s + window.transfer_s + window.step_s >= 0.5 * window.seconds
    assert window.step_s >= 12 * 4 / 4000
    assert [stage.name for stage in window.stages] == ["read", "decode", "colorization", "relative_position"]
    # Up to four steps were under way when the window began, so that their items came before it.
    assert window.stages[-1].num_items >= 4 * 8


def test_a_window_ends_with_its_time(bench: Bench) -> None:
    window = bench.window(0.05)
    assert window.num_steps >= 1
    assert 0.05 <= window.seconds < 5


def test_the_taker_alone_needs_no_pipeline(bench: Bench) -> None:
    bench.hold()
    before = bench.pipeline.stage_stats()
    window = bench.consumer_window(0.02)
    assert window.num_steps >= NUM_HELD
    assert window.wait_s == 0
    assert [stage.num_items for stage in bench.pipeline.stage_stats()] == [stage.num_items for stage in before]


def test_a_pause_loses_no_batch(config: ProfileConfig) -> None:
    with Bench(config) as bench, build_pipeline(config.pipeline, seed=0) as other:
        bench.window(60.0, max_steps=2)
        bench.pause()
        taken = bench.pipeline.position()
        for _ in range(taken["step"]):
            next(other)
        mine, theirs = next(bench.pipeline), next(other)
    assert mine.batches["colorization"].keys == theirs.batches["colorization"].keys
    assert torch.equal(mine.batches["colorization"].inputs, theirs.batches["colorization"].inputs)


def test_overlapped_transfers_give_the_same_number_of_steps(config: ProfileConfig) -> None:
    with Bench(config.model_copy(update={"overlap_transfer": True})) as bench:
        assert bench.window(60.0, max_steps=4).num_steps == 4
        bench.pause()
        assert bench.window(60.0, max_steps=2).num_steps == 2


def test_samples_of_a_step_count_each_kind_once() -> None:
    both = made_config(clips="c", clip_batch_size=3, tasks={"colorization": {}, "motion_segmentation": {}})
    assert samples_per_step(both.pipeline) == 19
    assert samples_per_step(made_config(tasks={"colorization": {}, "exemplar": {}}).pipeline) == 16


def test_targets_are_forgotten(small_shards: MakeShards) -> None:
    config = made_config(
        clips=small_shards(0, 4), images=None, tasks={"motion_segmentation": {}}, clip_batch_size=2, num_frames=6
    )
    with build_pipeline(config.pipeline, seed=0) as pipeline:
        forget_targets(pipeline)
        assert pipeline.tasks["motion_segmentation"].targets is None


def test_benches_take_turns(config: ProfileConfig) -> None:
    with Bench(config) as one, Bench(config, has_consumer=False) as other:
        rates = rates_in_turns({"one": one, "other": other}, 2, 0.02)
    assert {name: len(values) for name, values in rates.items()} == {"one": 2, "other": 2}
    assert min(rates["one"] + rates["other"]) > 0
