"""The running pipeline: the same stream for any threads, ranks and resume; faults counted."""

import hashlib
import itertools
import time

import numpy as np
import pytest
import torch

from pipelines.base.errors import DataError, UsageError
from pipelines.build import build_pipeline
from pipelines.shards.format.manifest import load_manifest
from pipelines.tasks import TASKS
from tests.made.echo_tasks import ClipEcho, Echo, OtherEcho, config_for
from tests.made.pictures import Stored, stored_images, write_folder
from tests.made.restore_every_step import digest


@pytest.fixture(autouse=True)
def _echo_tasks(monkeypatch):
    for task in (Echo, OtherEcho, ClipEcho):
        monkeypatch.setitem(TASKS, task.name, task)


@pytest.fixture
def folder(small_shards):
    return small_shards(images=11, clips=5, num_frames=3)


def digests(config, count, position=None, **options):
    with build_pipeline(config, seed=5, **options) as pipeline:
        if position is not None:
            pipeline.restore(position)
        return [digest(step) for step in itertools.islice(pipeline, count)]


MIX = {"echo": {"task_weight": 0.6}, "other_echo": {}, "clip_echo": {"task_weight": 0.4}}


@pytest.mark.parametrize("options", [{"num_threads": 1}, {"num_threads": 4}, {"prefetch_batches": 7}])
def test_threads_and_prefetch_do_not_change_the_stream(folder, options):
    assert digests(config_for(folder, MIX, **options), 8) == digests(config_for(folder, MIX), 8)


def test_a_resume_at_any_step_gives_the_rest_of_the_same_stream(folder):
    config, total = config_for(folder, MIX), 9
    with build_pipeline(config, seed=5) as pipeline:
        positions, whole = [pipeline.position()], []
        for step in itertools.islice(pipeline, total):
            whole.append(digest(step))
            positions.append(pipeline.position())
    for start, position in enumerate(positions):
        assert digests(config, total - start, position) == whole[start:]


def test_a_running_pipeline_can_be_sent_back(folder):
    with build_pipeline(config_for(folder, MIX), seed=5) as pipeline:
        first = [digest(step) for step in itertools.islice(pipeline, 4)]
        pipeline.restore({"step": 0, "image_batch": 0, "clip_batch": 0})
        assert [digest(step) for step in itertools.islice(pipeline, 4)] == first


def test_the_position_is_the_consumers_not_the_prefetchers(folder):
    with build_pipeline(config_for(folder, prefetch_batches=5), seed=5) as pipeline:
        next(pipeline)
        time.sleep(0.2)
        assert pipeline.position() == {"step": 1, "image_batch": 1, "clip_batch": 0}


@pytest.mark.parametrize(
    "position",
    [
        {},
        {"step": 1},
        {"step": 1, "image_batch": -1, "clip_batch": 0},
        {"step": "x", "image_batch": 0, "clip_batch": 0},
    ],
)
def test_a_wrong_position_is_refused(folder, position):
    with build_pipeline(config_for(folder), seed=5) as pipeline, pytest.raises(UsageError, match="pipeline position"):
        pipeline.restore(position)


SMALLER = {"echo": {"batch_size": 2}, "other_echo": {}, "clip_echo": {}}


def test_a_task_with_a_smaller_batch_takes_every_second_sample_of_the_same_batch(folder):
    config, smaller = config_for(folder, {**SMALLER, "echo": {}}), config_for(folder, SMALLER)
    with build_pipeline(config, seed=5) as whole, build_pipeline(smaller, seed=5) as pipeline:
        for step, full in itertools.islice(zip(pipeline, whole, strict=False), 4):
            small, large = step.batches["echo"], full.batches["echo"]
            assert small.keys == large.keys[1::2]
            assert torch.equal(small.inputs, large.inputs[1::2])
            assert torch.equal(small.target["number"], large.target["number"][1::2])
            assert len(step.batches["other_echo"].keys) == 4
            assert pipeline.position() == whole.position()
    assert pipeline.memory.batch_bytes["echo"] * 2 == whole.memory.batch_bytes["echo"]


def test_a_task_with_a_smaller_batch_resumes_and_sees_the_same_samples_on_two_ranks(folder):
    config = config_for(folder, SMALLER)
    with build_pipeline(config, seed=5) as pipeline:
        next(pipeline)
        position = pipeline.position()
        rest = [digest(step) for step in itertools.islice(pipeline, 3)]
    assert digests(config, 3, position) == rest
    assert rows_of(config, 2, 6) == rows_of(config, 1, 6)
    assert [len(rows) for rows in rows_of(config, 1, 2)] == [2, 2]


def test_a_bad_sample_of_a_smaller_batch_is_replaced_as_in_the_whole_one(tmp_path):
    """Of 7 samples a task takes 3: the bad one comes to a place that is taken, and to one that is not."""
    folder = broken_folder(tmp_path, 20, 1)
    configs = [
        config_for(folder, {"echo": {"batch_size": size}}, batch_size=7, max_failure_ratio=1.0) for size in (3, 7)
    ]
    with build_pipeline(configs[0], seed=5) as pipeline, build_pipeline(configs[1], seed=5) as whole:
        is_taken = set()
        for step, full in itertools.islice(zip(pipeline, whole, strict=False), 30):
            rows = pipeline.plans["image"].rows_taken(3)
            small, large = step.batches["echo"], full.batches["echo"]
            assert torch.equal(small.inputs, large.inputs[rows])
            assert small.keys == tuple(large.keys[row] for row in rows)
            assert step.faults == full.faults
            planned = whole.plans["image"].picks(step.index).rows
            is_taken |= {int(np.flatnonzero(planned == 0)[0]) in rows} if step.faults else set()
    assert is_taken == {True, False}


def test_without_augmentation_a_task_sees_all_samples(folder):
    with build_pipeline(config_for(folder, SMALLER), seed=5, augment=False) as pipeline:
        assert len(next(pipeline).batches["echo"].keys) == 4


def rows_of(config, world_size, num_steps):
    """Per step, the set of (key, drawn number, pixels) over all ranks."""
    steps = [set() for _ in range(num_steps)]
    for rank in range(world_size):
        with build_pipeline(config, seed=5, rank=rank, world_size=world_size) as pipeline:
            for rows, step in zip(steps, pipeline, strict=False):
                batch = step.batches["echo"]
                for key, number, pixels in zip(batch.keys, batch.target["number"].tolist(), batch.inputs, strict=True):
                    rows.add((key, number, hashlib.sha256(pixels.contiguous().numpy().tobytes()).digest()))
    return steps


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_what_one_would(folder, world_size):
    config = config_for(folder)
    assert rows_of(config, world_size, 6) == rows_of(config, 1, 6)


def test_every_sample_once_per_epoch(folder):
    with build_pipeline(config_for(folder, batch_size=3), seed=5) as pipeline:
        seen = [key for step in itertools.islice(pipeline, 11) for key in step.batches["echo"].keys]
    everything = sorted(load_manifest(folder).select("image", "train").keys)
    assert [sorted(seen[first : first + 11]) for first in (0, 11, 22)] == [everything] * 3


def test_seed_and_epoch_change_crops(folder):
    one_epoch = config_for(folder, batch_size=11)

    def boxes(seed, steps):
        with build_pipeline(one_epoch, seed=seed) as pipeline:
            batches = [step.batches["echo"] for step in itertools.islice(pipeline, steps)]
        return [dict(zip(batch.keys, map(tuple, batch.geometry["box"].tolist()), strict=True)) for batch in batches]

    first, second = boxes(0, 2)
    (other,) = boxes(1, 1)
    assert sum(first[key] == second[key] for key in first) < 4
    assert sum(first[key] == other[key] for key in first) < 4


def test_geometry_holds_label_box_and_flip(folder):
    table = load_manifest(folder).select("image", "train")
    label_of = dict(zip(table.keys, table.label.tolist(), strict=True))
    with build_pipeline(config_for(folder, ("echo", "clip_echo")), seed=5) as pipeline:
        step = next(pipeline)
    images, clips = step.batches["echo"], step.batches["clip_echo"]
    assert images.geometry["label"].tolist() == [label_of[key] for key in images.keys]
    assert images.geometry["box"].shape == (4, 4)
    assert images.geometry["flip"].shape == (4,)
    assert images.geometry["flip"].dtype == bool
    assert clips.geometry["label"].tolist() == [-1, -1]
    assert "box" not in clips.geometry


def test_shared_decode_gives_tasks_one_canvas_and_separate_decode_two(folder):
    for share, is_same in ((True, True), (False, False)):
        with build_pipeline(config_for(folder, ("echo", "other_echo"), share_decode=share), seed=5) as pipeline:
            step = next(pipeline)
        first, second = step.batches["echo"], step.batches["other_echo"]
        assert first.keys == second.keys
        assert torch.equal(first.inputs, second.inputs) == is_same
        assert not torch.equal(first.target["number"], second.target["number"])


def test_one_task_more_does_not_change_another(folder):
    alone, both = config_for(folder, ("echo",)), config_for(folder, ("echo", "other_echo", "clip_echo"))
    with build_pipeline(alone, seed=5) as first, build_pipeline(both, seed=5) as second:
        for one, two in itertools.islice(zip(first, second, strict=False), 4):
            assert torch.equal(one.batches["echo"].inputs, two.batches["echo"].inputs)
            assert torch.equal(one.batches["echo"].target["number"], two.batches["echo"].target["number"])


def test_inactive_steps_use_up_no_samples(folder):
    config = config_for(folder, {"echo": {"task_weight": 0.3}})
    with build_pipeline(config, seed=5) as pipeline:
        steps = list(itertools.islice(pipeline, 20))
        position = pipeline.position()
    active = [step for step in steps if step.batches]
    assert 1 <= len(active) < 15
    assert position == {"step": 20, "image_batch": len(active), "clip_batch": 0}
    assert [step.index for step in steps] == list(range(20))


def broken_folder(tmp_path, num_good, num_bad):
    samples = stored_images(num_good)
    junk = [
        Stored(key=f"bad{index}", suffix="jpg", encoded=b"junk" * 9, width=40, height=40) for index in range(num_bad)
    ]
    return write_folder(tmp_path / "broken", [*junk, *samples], per_shard=40)


def test_the_next_of_the_plan_takes_the_place_of_a_bad_sample(tmp_path):
    """20 good and 1 bad in batches of 7: wherever the bad one comes, the sample 7 places later stands there."""
    config = config_for(broken_folder(tmp_path, 20, 1), {"echo": {"repeats": 3}}, batch_size=7, canvas_px=24)
    with build_pipeline(config, seed=5) as pipeline:
        plan, table = pipeline.plans["image"], load_manifest(config.images).select("image", "train")
        steps = list(itertools.islice(pipeline, 3))
        decode = {stage.name: stage for stage in pipeline.stage_stats()}["decode"]
    (step,) = [step for step in steps if step.faults]
    (fault,) = step.faults
    planned, later = ([table.keys[row] for row in plan.picks(step.index + more).rows] for more in (0, 1))
    row = planned.index("bad0")
    batch = step.batches["echo"]
    assert (fault.shard, fault.key) == ("train-images-000000.tar", "bad0")
    assert fault.reason.startswith("not a JPEG")
    assert fault.reason.endswith(f"; {later[row]} takes its place")
    assert list(batch.keys) == [*planned[:row], later[row], *planned[row + 1 :]]
    assert batch.weight.min() == 1
    assert decode.num_failures >= 1


def test_the_one_that_takes_its_place_is_as_it_is_in_its_own_batch(tmp_path):
    config = config_for(broken_folder(tmp_path, 20, 1), {"echo": {}, "other_echo": {}}, batch_size=7)
    with build_pipeline(config, seed=5) as pipeline:
        plan, table = pipeline.plans["image"], load_manifest(config.images).select("image", "train")
        steps = list(itertools.islice(pipeline, 4))
    step = next(step for step in steps if step.faults)
    row = [table.keys[row] for row in plan.picks(step.index).rows].index("bad0")
    following = steps[step.index + 1]
    for name, batch in step.batches.items():
        assert torch.equal(batch.inputs[row], following.batches[name].inputs[row])
        for key, values in batch.geometry.items():
            np.testing.assert_array_equal(values[row], following.batches[name].geometry[key][row])


def test_where_there_is_no_good_sample_the_place_weighs_nothing(tmp_path):
    config = config_for(broken_folder(tmp_path, 1, 30), {"echo": {"repeats": 3}}, batch_size=31, max_failure_ratio=1.0)
    with build_pipeline(config, seed=5) as pipeline:
        step = next(pipeline)
    batch = step.batches["echo"]
    weight = batch.weight.view(31, 3).sum(1)
    assert set(weight.tolist()) == {0, 3}
    assert len(step.faults) == 30
    assert set(batch.keys) == {"train0000"}
    assert torch.equal(batch.inputs[3 * int(weight.argmin())], batch.inputs[3 * int(weight.argmax())])


def test_too_many_bad_samples_stop_the_run_once_there_are_enough_to_judge(tmp_path):
    folder = broken_folder(tmp_path, 19, 1)
    with build_pipeline(config_for(folder, batch_size=10, max_failure_ratio=0.03), seed=5) as pipeline:
        steps = [next(pipeline) for _ in range(9)]
        assert sum(len(step.faults) for step in steps) >= 4
        with pytest.raises(DataError, match=r"5 of 100 samples failed \(5\.0%\), max_failure_ratio allows 3\.0%.*bad0"):
            next(pipeline)
    with build_pipeline(config_for(folder, batch_size=10, max_failure_ratio=0.06), seed=5) as pipeline:
        assert len(list(itertools.islice(pipeline, 15))) == 15


def test_a_batch_without_a_good_sample_stops_the_run_at_once(tmp_path):
    config = config_for(broken_folder(tmp_path, 0, 4), batch_size=2, max_failure_ratio=1.0)
    with (
        build_pipeline(config, seed=5) as pipeline,
        pytest.raises(DataError, match="All 2 samples of a batch failed, and those"),
    ):
        next(pipeline)


def test_an_error_in_a_task_reaches_the_consumer_in_its_place(folder):
    with build_pipeline(config_for(folder, {"echo": {"fail_at_call": 2}}, num_threads=1), seed=5) as pipeline:
        assert [next(pipeline).index, next(pipeline).index] == [0, 1]
        with pytest.raises(ZeroDivisionError, match="task broke"):
            next(pipeline)
        with pytest.raises(UsageError, match="closed"):
            next(pipeline)


def test_an_error_while_reading_reaches_the_consumer(folder, monkeypatch):
    config = config_for(folder)
    with build_pipeline(config, seed=5) as pipeline:
        next(pipeline)
        monkeypatch.setattr(
            "pipelines.read.reader.SampleReader.read", lambda *_: (_ for _ in ()).throw(OSError("gone"))
        )
        with pytest.raises(OSError, match="gone"):
            list(pipeline)
