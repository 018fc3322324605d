"""The trainer's parts of the check of a GPU, on a CPU with a small net."""

import math

import torch

from benchmarks.studies.gpu.gpu_check import QUICK
from benchmarks.studies.gpu.trainer_parts import data_wait, recipe_config, step_time

CPU = torch.device("cpu")


def test_a_step_is_timed_plain_and_compiled(small_shards):
    shards = small_shards(images=16, clips=4)
    config = recipe_config(shards, QUICK, {"colorization": {}}, is_small=True)
    for backend in (None, "eager"):
        found = step_time(config, CPU, 2, backend=backend)
        assert found["backend"] == backend
        assert math.isclose(found["samples_per_s"], 8 / found["step_s"]["median"])
        assert found["tflop_per_s"] > 0


def test_the_wait_for_data_is_a_share_of_the_time(small_shards):
    config = recipe_config(small_shards(images=16, clips=4), QUICK, {"colorization": {}}, is_small=True)
    found = data_wait(config, CPU, num_steps=3)
    assert 0 <= found["data_wait_ratio"] <= 1
    assert found["samples_per_s"]["colorization"] > 0


def test_the_recipe_is_the_papers_but_for_data_and_batch():
    config = recipe_config("somewhere", QUICK, is_small=False)
    assert (config.trunk.depth, config.heads.preset) == (101, "paper")
    assert list(config.pipeline.tasks) == ["colorization", "exemplar", "motion_segmentation", "relative_position"]
    assert config.pipeline.batch_size == QUICK.batch_size
