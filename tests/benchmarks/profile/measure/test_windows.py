"""Windows of a running pipeline: what they count adds up; pausing, holding and cutting off leave the stream alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.profile.measure.growth_by_stage import measure_truncated
from benchmarks.profile.measure.stage_hooks import forget_targets, sources_of, truncated
from benchmarks.profile.measure.trace import Recorder
from benchmarks.profile.measure.windows import NUM_HELD, Bench, samples_per_step
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.build import Pipeline, build_pipeline
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
    assert [stage.name for stage in window.stages] == ["read", "decode", "relative_position", "colorization"]
    # Up to four steps were under way when the window began, so that their items came before it.
    assert window.stage("colorization").num_items >= 4 * 8


def test_a_window_ends_with_its_time(bench: Bench) -> None:
    window = bench.window(0.05)
    assert window.num_steps >= 1
    assert 0.05 <= window.seconds < 5


def test_the_taker_alone_needs_no_pipeline(bench: Bench) -> None:
    bench.hold()
    before = bench.pipeline.stage_stats()
    window = bench.taker_window(0.02)
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


def test_a_listener_hears_of_every_stage_and_of_the_taker(bench: Bench) -> None:
    recorder = Recorder()
    bench.observe(recorder)
    bench.window(60.0, max_steps=2)
    bench.observe(None)
    stages = {span.stage for span in recorder.spans}
    assert stages == {"read", "decode", "relative_position", "colorization", "wait", "transfer", "step"}
    assert all(span.end_s >= span.start_s for span in recorder.spans)
    heard = len(recorder.spans)
    bench.window(60.0, max_steps=1)
    assert len(recorder.spans) == heard


def test_samples_of_a_step_count_each_kind_once() -> None:
    both = made_config(clips="c", clip_batch_size=3, tasks={"colorization": {}, "motion_segmentation": {}})
    assert samples_per_step(both.pipeline) == 19
    assert samples_per_step(made_config(tasks={"colorization": {}, "exemplar": {}}).pipeline) == 16


@pytest.mark.parametrize("last_stage", ["read", "decode", "relative_position", "colorization"])
def test_a_pipeline_cut_off_makes_what_comes_before_and_nothing_else(config: ProfileConfig, last_stage: str) -> None:
    with build_pipeline(config.pipeline, seed=0) as whole, build_pipeline(config.pipeline, seed=0) as cut:
        expected = next(whole).batches
        with truncated(cut, last_stage):
            found = next(cut).batches
            kept = {"relative_position": 1, "colorization": 2}.get(last_stage, 0)
            for index, (name, batch) in enumerate(found.items()):
                assert batch.keys == expected[name].keys
                assert (batch.inputs.numel() > 0) == (index < kept)
                assert index >= kept or torch.equal(batch.inputs, expected[name].inputs)
        cut.restore(whole.position())
        assert_same_step(whole, cut)


def assert_same_step(one: Pipeline, other: Pipeline) -> None:
    first, second = next(one).batches, next(other).batches
    assert all(torch.equal(first[name].inputs, second[name].inputs) for name in first)


def test_clips_can_be_cut_off_too(small_shards: MakeShards) -> None:
    config = made_config(
        clips=small_shards(0, 4),
        images=None,
        tasks={"motion_segmentation": {}},
        clip_batch_size=2,
        num_frames=6,
        clip_height_px=48,
        clip_width_px=64,
    )
    with build_pipeline(config.pipeline, seed=0) as pipeline, truncated(pipeline, "read"):
        assert next(pipeline).batches["motion_segmentation"].inputs.numel() == 0


def test_targets_are_forgotten(small_shards: MakeShards) -> None:
    config = made_config(
        clips=small_shards(0, 4), images=None, tasks={"motion_segmentation": {}}, clip_batch_size=2, num_frames=6
    )
    with build_pipeline(config.pipeline, seed=0) as pipeline:
        forget_targets(pipeline)
        assert pipeline.tasks["motion_segmentation"].targets is None


def test_sources_by_kind(config: ProfileConfig) -> None:
    with build_pipeline(config.pipeline, seed=0) as pipeline:
        assert list(sources_of(pipeline)) == ["image"]


def test_stages_are_measured_at_every_thread_count(config: ProfileConfig) -> None:
    found = measure_truncated(config.model_copy(update={"thread_counts": (1, 2)}), 0.2)
    assert {(one.num_threads, one.last_stage) for one in found} == {
        (count, stage) for count in (1, 2) for stage in ("read", "decode", "relative_position", "colorization")
    }
    assert all(one.samples_per_s > 0 and len(one.values) == 2 for one in found)
