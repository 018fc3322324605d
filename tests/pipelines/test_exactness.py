"""Exactness with the real tasks: same batches for any threads, ranks and restarts, in mixes of tasks and of sources."""

import hashlib
import itertools
import json

import numpy as np
import pytest

from pipelines.build import PipelineConfig, build_pipeline
from pipelines.shards.format.manifest import load_manifest
from tests.made.restore_every_step import assert_every_restart_goes_on_the_same, digest, digests

IMAGE_TASKS = {"relative_position": {"grids_per_image": 2, "color": "drop"}, "colorization": {}, "exemplar": {}}
ALL_TASKS = {**IMAGE_TASKS, "motion_segmentation": {"num_threads": 1}}
TASK_MIX = {
    "relative_position": {"task_weight": 0.5},
    "colorization": {"task_weight": 0.4},
    "motion_segmentation": {"task_weight": 0.1, "num_threads": 1},
}
SMALL = {"canvas_px": 32, "clip_height_px": 32, "clip_width_px": 32, "num_frames": 4, "num_threads": 2}
SIZES = {"batch_size": 4, "clip_batch_size": 2}


@pytest.fixture
def folder(small_shards):
    return small_shards(images=23, clips=5, num_frames=4)


@pytest.fixture
def other(small_shards):
    return small_shards(images=7, name="other", per_shard=3)


def config_of(folder, tasks, **options):
    return PipelineConfig(**({"images": folder, "clips": folder, "tasks": tasks} | SMALL | SIZES | options))


def mixed(folder, other, tasks, **options):
    images = [{"path": folder, "weight": 2}, {"path": other}]
    return config_of(folder, tasks, images=images, **options)


@pytest.mark.parametrize("num_threads", [1, 4])
def test_threads_change_no_bit(folder, num_threads):
    expected = digests(build_pipeline(config_of(folder, ALL_TASKS), seed=3), 12)
    assert digests(build_pipeline(config_of(folder, ALL_TASKS, num_threads=num_threads), seed=3), 12) == expected


def rows_of(config, world_size, num_steps):
    """Per step, the set over all ranks of (task, key, sha256 of that row of every tensor).

    Without exemplar's negative and weight, which say where other rows stand in the rank's batch.
    """
    steps = [set() for _ in range(num_steps)]
    for rank in range(world_size):
        with build_pipeline(config, seed=3, rank=rank, world_size=world_size) as pipeline:
            for rows, step in zip(steps, pipeline, strict=False):
                for name, batch in step.batches.items():
                    tensors = {"inputs": batch.inputs, "weight": batch.weight} | batch.target
                    per_key = len(batch.inputs) // len(batch.keys)
                    for row in range(len(batch.inputs)):
                        content = hashlib.sha256()
                        for key in sorted(set(tensors) - {"negative"}):
                            content.update(tensors[key][row].contiguous().numpy().tobytes())
                        rows.add((name, batch.keys[row // per_key], content.hexdigest()))
    return steps


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_what_one_sees(folder, other, world_size):
    tasks = {**ALL_TASKS, "colorization": {"task_weight": 0.5}}
    config = mixed(folder, other, tasks, batch_size=8, clip_batch_size=4)
    assert rows_of(config, world_size, 5) == rows_of(config, 1, 5)


def test_a_restart_at_each_of_the_first_200_steps(folder):
    config = config_of(folder, IMAGE_TASKS, num_threads=1, batch_size=2, canvas_px=16)
    assert_every_restart_goes_on_the_same(lambda: build_pipeline(config, seed=3), num_steps=200)


def test_a_restart_in_the_middle_of_a_mix_of_tasks_and_sources(folder, other):
    config = mixed(folder, other, TASK_MIX, num_threads=1, batch_size=2)
    assert_every_restart_goes_on_the_same(lambda: build_pipeline(config, seed=3), num_steps=60)


def test_a_restart_while_samples_fail(folder):
    table = load_manifest(folder).select("image", "train")
    with (folder / table.shards[0].name).open("r+b") as file:
        for row in (0, 2, 3):
            file.seek(int(table.offset[row]))
            file.write(b"junk" * 8)
    config = config_of(folder, IMAGE_TASKS, num_threads=1, batch_size=4, max_failure_ratio=1.0)
    assert_every_restart_goes_on_the_same(lambda: build_pipeline(config, seed=3), num_steps=12)
    whole = rows_of(config, 1, 8)
    assert rows_of(config, 2, 8) == whole


def test_the_position_is_a_few_integers(folder, other):
    with build_pipeline(mixed(folder, other, TASK_MIX), seed=3) as pipeline:
        for _ in itertools.islice(pipeline, 7):
            pass
        position = pipeline.position()
    assert set(position) == {"step", "image_batch", "clip_batch"}
    assert position["step"] == 7
    assert json.loads(json.dumps(position)) == position


def test_a_mix_has_its_shares_and_every_source_its_own_epochs(folder, other):
    config = mixed(folder, other, {"colorization": {}}, batch_size=6, canvas_px=8)
    tables = [load_manifest(one).select("image", "train") for one in (folder, other)]
    sizes = [set(zip(table.width.tolist(), table.height.tolist(), strict=True)) for table in tables]
    with build_pipeline(config, seed=3) as pipeline:
        plan = pipeline.plans["image"]
        seen = [pipeline_step.batches["colorization"].keys for pipeline_step in itertools.islice(pipeline, 30)]
    rows = np.concatenate([plan.picks(index).rows for index in range(30)])
    keys = [*tables[0].keys, *tables[1].keys]
    assert [key for batch in seen for key in batch] == [keys[row] for row in rows.tolist()]
    assert 0.55 < (rows < 23).mean() < 0.78
    assert len(sizes) == 2
    for first, last in ((0, 23), (23, 30)):
        mine = rows[(rows >= first) & (rows < last)]
        whole_epochs = len(mine) // (last - first)
        counts = np.bincount(mine[: whole_epochs * (last - first)] - first, minlength=last - first)
        assert (counts == whole_epochs).all()


def test_the_first_source_alone_in_a_list_is_the_folder(folder):
    tasks = {"colorization": {}}
    alone = config_of(folder, tasks, images=[{"path": folder, "weight": 5}])
    assert digests(build_pipeline(alone, seed=3), 4) == digests(build_pipeline(config_of(folder, tasks), seed=3), 4)


def test_without_augmentation_every_pass_is_the_same_and_holds_every_sample(folder, other):
    config = mixed(folder, other, TASK_MIX, batch_size=5)
    with build_pipeline(config, seed=3, augment=False) as pipeline:
        num_steps = pipeline.pass_steps
        assert num_steps == {"relative_position": 6, "colorization": 6, "motion_segmentation": 3}
        first, second = ([next(pipeline) for _ in range(6)] for _ in range(2))
    keys = [key for step in first for key in step.batches["colorization"].keys]
    assert keys == [*load_manifest(folder).select("image", "train").keys] + [f"train{i:04d}" for i in range(7)]
    assert all(set(step.batches) == set(TASK_MIX) for step in first)
    assert not any(step.batches["colorization"].geometry["flip"].any() for step in first)
    for one, two in zip(first, second, strict=True):
        for name in ("relative_position", "colorization"):
            assert digest(_only(one, name)) == digest(_only(two, name))


def _only(step, name):
    return type(step)(index=0, batches={name: step.batches[name]})


def test_without_augmentation_images_are_cut_at_their_centre(folder):
    with build_pipeline(config_of(folder, {"colorization": {}}), seed=3, augment=False) as pipeline:
        batch = next(pipeline).batches["colorization"]
    table = load_manifest(folder).select("image", "train")
    for row, (x0, y0, x1, y1) in enumerate(batch.geometry["box"].tolist()):
        width, height = int(table.width[row]), int(table.height[row])
        side = min(width, height)
        assert (x1 - x0, y1 - y0) == (side, side)
        assert (x0, y0) == ((width - side) // 2, (height - side) // 2)
