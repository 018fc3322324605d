"""Clips whose target is remembered: only their first frame is decoded, and no bit of any batch is another."""

import itertools

import numpy as np
import pytest

from pipelines.build import PipelineConfig, build_pipeline
from pipelines.decode.opencv import OpenCVBackend
from pipelines.shards.format.manifest import load_manifest
from tests.made.restore_every_step import assert_every_restart_goes_on_the_same, digests

NUM_CLIPS = 7
NUM_STEPS = 5 * NUM_CLIPS


@pytest.fixture
def folder(small_shards):
    return small_shards(images=4, clips=NUM_CLIPS, num_frames=6)


@pytest.fixture
def damaged(folder):
    """Of two clips all but the first frame is gone."""
    table = load_manifest(folder).select("clip", "train")
    for row in (1, 4):
        with (folder / table.shards[int(table.shard_index[row])].name).open("r+b") as file:
            start, size = int(table.offset[row]), int(table.size[row])
            file.seek(start)
            clip = file.read(size)
            frames = [place for place in range(size) if clip[place : place + 3] == b"\xff\xd8\xff"]
            file.seek(start + frames[1])
            file.write(bytes(clip.index(b"moov") - 4 - frames[1]))
    return folder


def config_of(folder, remembered_clips, **options):
    task = {"motion_segmentation": {"remembered_clips": remembered_clips}}
    size = {"clip_height_px": 40, "clip_width_px": 48, "num_frames": 6, "clip_batch_size": 2, "num_threads": 2}
    return PipelineConfig(**({"clips": folder, "tasks": task} | size | options))


def stream(folder, remembered_clips, **options):
    return digests(build_pipeline(config_of(folder, remembered_clips, **options), seed=3), NUM_STEPS)


@pytest.fixture
def decoded(monkeypatch):
    """(clips, those of which only the first frame was decoded) of every batch."""
    counts = []
    decode = OpenCVBackend.clip_planes

    def counted(self, encoded, *args, first_only_B=None, **kwargs):
        counts.append((len(encoded), int(first_only_B.sum())))
        return decode(self, encoded, *args, first_only_B=first_only_B, **kwargs)

    monkeypatch.setattr(OpenCVBackend, "clip_planes", counted)
    return counts


@pytest.mark.parametrize("remembered_clips", [1, 3, 4096])
def test_the_memory_changes_no_bit(folder, remembered_clips):
    assert stream(folder, remembered_clips) == stream(folder, 0)


@pytest.mark.parametrize("options", [{"num_threads": 1}, {"num_threads": 4}, {"prefetch_batches": 1}])
def test_neither_do_threads_and_prefetching(folder, options):
    assert stream(folder, 4, **options) == stream(folder, 0)


def test_of_clips_seen_before_only_the_first_frame_is_decoded(folder, decoded):
    stream(folder, 4096, prefetch_batches=1)
    clips, first_only = np.array(decoded).sum(axis=0)
    # A clip is decoded whole as it is and mirrored, and once more where a batch was on its way already.
    assert clips - first_only <= 2 * NUM_CLIPS + 6
    assert not any(first for _, first in decoded[:2])


@pytest.mark.parametrize("remembered_clips", [0, 4096])
def test_clips_left_out_are_counted_each_time_they_are_seen(folder, remembered_clips):
    with build_pipeline(config_of(folder, remembered_clips, prefetch_batches=1), seed=3) as pipeline:
        pipeline.tasks["motion_segmentation"]._target = lambda gray_NHW: (np.zeros((5, 6)), np.zeros((5, 6)), 1)
        for _ in range(NUM_STEPS):
            next(pipeline)
    stats = {stage.name: stage for stage in pipeline.stage_stats()}
    assert stats["motion_segmentation"].num_left_out == stats["motion_segmentation"].num_items >= 2 * NUM_STEPS
    assert stats["decode"].num_left_out == 0


def test_nothing_remembered_is_everything_decoded(folder, decoded):
    stream(folder, 0)
    assert not any(first for _, first in decoded)


def test_replacements_are_the_same(damaged):
    options = {"max_failure_ratio": 1.0}
    forgetting = build_pipeline(config_of(damaged, 0, **options), seed=3)
    with forgetting:
        faults = [fault.key for step in itertools.islice(forgetting, NUM_STEPS) for fault in step.faults]
    assert {key[-4:] for key in faults} == {"0001", "0004"}
    assert stream(damaged, 4096, **options) == stream(damaged, 0, **options)


def test_a_place_without_a_good_sample_is_not_remembered(damaged):
    """Both clips of a batch may fail, and those that would take their places."""
    options = {"max_failure_ratio": 1.0, "clip_batch_size": 4, "flip_probability": 0.0}
    assert stream(damaged, 4096, **options) == stream(damaged, 0, **options)


def test_a_restart_at_every_step(damaged):
    config = config_of(damaged, 4, max_failure_ratio=1.0)
    assert_every_restart_goes_on_the_same(lambda: build_pipeline(config, seed=3), num_steps=12)


def test_going_back_with_a_full_memory(folder):
    with build_pipeline(config_of(folder, 4096), seed=3) as pipeline:
        first = [step.batches["motion_segmentation"] for step in itertools.islice(pipeline, 12)]
        pipeline.restore({"step": 0, "image_batch": 0, "clip_batch": 0})
        again = [step.batches["motion_segmentation"] for step in itertools.islice(pipeline, 12)]
        assert len(pipeline.tasks["motion_segmentation"].targets) <= 2 * NUM_CLIPS
    for one, two in zip(first, again, strict=True):
        assert one.keys == two.keys
        assert np.array_equal(one.inputs.numpy(), two.inputs.numpy())
        assert np.array_equal(one.target["moving"].numpy(), two.target["moving"].numpy())
