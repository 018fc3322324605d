"""The two parts have no sample in common, and as many as wanted."""

import pytest

from benchmarks.shortcuts.samples import parts_of
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig
from tests.made.pictures import stored_images, write_splits

TASKS = {"colorization": {}, "exemplar": {}}


def parts(folder, num_samples, **options):
    config = PipelineConfig(**{"images": str(folder), "tasks": TASKS, "canvas_px": 32, "batch_size": 4} | options)
    found = {(name, is_held_out): [] for name in TASKS for is_held_out in (False, True)}
    for part in parts_of(config, "image", num_samples, seed=0, augment=True):
        found[part.batch.task, part.is_held_out] += part.batch.keys
    return found


def test_without_another_split_one_pass_is_cut_in_two(small_shards):
    found = parts(small_shards(images=18), 100)
    for name in TASKS:
        fit, held = found[name, False], found[name, True]
        assert (len(fit), len(held)) == (8, 8)
        assert len(set(fit) | set(held)) == 16


def test_no_more_than_wanted(small_shards):
    found = parts(small_shards(images=40), 6)
    assert {len(keys) for keys in found.values()} == {8}  # whole batches of 4


def test_large_batches_are_made_smaller(small_shards):
    found = parts(small_shards(images=6), 100, batch_size=32)
    assert {len(keys) for keys in found.values()} == {3}


def test_a_validation_split_is_held_out(tmp_path):
    splits = {split: stored_images(8, split=split) for split in ("train", "val")}
    found = parts(write_splits(tmp_path / "shards", splits), 8)
    for (_, is_held_out), keys in found.items():
        assert {key.startswith("val") for key in keys} == {is_held_out}
        assert len(set(keys)) == 8


def test_too_few_samples_are_refused(small_shards):
    with pytest.raises(UsageError, match="3 samples in split train; need at least 4"):
        parts(small_shards(images=3), 8, batch_size=2)
