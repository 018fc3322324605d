"""A pipeline cut off behind a stage makes what comes before it and nothing else, and is whole again afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.profile.measure.truncation import measure_truncated, truncated
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.build import Pipeline, build_pipeline
from tests.made.made_profiles import made_config

MakeShards = Callable[..., Path]
TASKS = {"relative_position": {"patch_px": 12, "gap_px": 2, "jitter_px": 1}, "colorization": {}}


@pytest.fixture
def config(small_shards: MakeShards) -> ProfileConfig:
    return made_config(images=small_shards(12), tasks=TASKS, batch_size=4, canvas_px=64, prefetch_batches=2)


@pytest.mark.parametrize("last_stage", ["read", "decode", "colorization", "relative_position"])
def test_a_pipeline_cut_off_makes_what_comes_before_and_nothing_else(config: ProfileConfig, last_stage: str) -> None:
    with build_pipeline(config.pipeline, seed=0) as whole, build_pipeline(config.pipeline, seed=0) as cut:
        expected = next(whole).batches
        with truncated(cut, last_stage):
            found = next(cut).batches
            kept = {"colorization": 1, "relative_position": 2}.get(last_stage, 0)
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


def test_stages_are_measured_at_every_thread_count(config: ProfileConfig) -> None:
    found = measure_truncated(config.model_copy(update={"thread_counts": (1, 2)}), 0.2)
    assert {(one.num_threads, one.last_stage) for one in found} == {
        (count, stage) for count in (1, 2) for stage in ("read", "decode", "relative_position", "colorization")
    }
    assert all(one.samples_per_s > 0 and len(one.values) == 2 for one in found)
