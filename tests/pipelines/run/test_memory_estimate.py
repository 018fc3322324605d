"""Stated memory: what the real batches take, and no more than that is promised."""

import pytest

from pipelines.build import PipelineConfig, build_pipeline, memory_of

TASKS = {"relative_position": {}, "colorization": {}, "exemplar": {}, "motion_segmentation": {}}
SMALL = {"canvas_px": 64, "clip_height_px": 48, "clip_width_px": 64, "num_frames": 6}


def config_of(folder=None, **options):
    return PipelineConfig(**({"images": folder, "clips": folder, "tasks": TASKS, "batch_size": 4} | SMALL | options))


def test_bytes_of_a_step_are_those_of_its_tensors(small_shards):
    config = config_of(small_shards(images=6, clips=2), clip_batch_size=2)
    with build_pipeline(config, seed=0) as pipeline:
        step, memory = next(pipeline), pipeline.memory
    for name, batch in step.batches.items():
        tensors = [batch.inputs, batch.weight, *batch.target.values()]
        assert memory.batch_bytes[name] == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert memory == memory_of(config)


def test_pixels_are_one_canvas_of_each_size_or_one_per_task():
    image, clip = 4 * 3 * 64 * 64, 8 * 6 * 3 * 48 * 64
    grids = 4 * 3 * 100 * 100
    assert memory_of(config_of()).pixels_bytes == image + grids + clip
    assert memory_of(config_of(share_decode=False)).pixels_bytes == 2 * image + grids + clip
    same_size = {**TASKS, "relative_position": {"canvas_px": 64}}
    assert memory_of(config_of(tasks=same_size)).pixels_bytes == image + clip
    assert memory_of(config_of(tasks={"colorization": {}})).pixels_bytes == image


def test_more_prefetch_costs_whole_steps_and_more_ranks_share_them():
    two, five = memory_of(config_of(prefetch_batches=2)), memory_of(config_of(prefetch_batches=5))
    assert five.peak_bytes - two.peak_bytes == 3 * (two.step_bytes + two.pixels_bytes)
    assert memory_of(config_of(), world_size=2).step_bytes * 2 == two.step_bytes


def test_a_step_at_the_papers_sizes_is_about_70_mib():
    memory = memory_of(PipelineConfig(tasks=TASKS))
    assert memory.step_bytes / 2**20 == pytest.approx(70, rel=0.2)
