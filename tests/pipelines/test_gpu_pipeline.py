"""Whole pipelines on a GPU (-m cuda): batches there, equal to the CPU's within tolerance, and exact across restarts."""

import pytest
import torch

from benchmarks.studies.gpu.gpu_checks import Sizes, check_restarts, digest
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.tasks.base import CanvasSpec

pytestmark = pytest.mark.cuda

IMAGE_TASKS = ("relative_position", "colorization", "exemplar", "supervised")
SIZES = {"canvas_px": 64, "clip_height_px": 48, "clip_width_px": 64, "num_frames": 6, "batch_size": 4}


def batches_of(folder, device, backend, num_steps=3, **options):
    tasks = {name: {} for name in (*IMAGE_TASKS, "motion_segmentation")}
    config = PipelineConfig(
        images=folder, clips=folder, tasks=tasks, backend=backend, clip_batch_size=2, **SIZES, **options
    )
    with build_pipeline(config, seed=0, device=device) as pipeline:
        return [next(pipeline).batches for _ in range(num_steps)]


@pytest.mark.parametrize("backend", ["dali", "opencv"])
def test_batches_are_on_the_gpu(small_shards, backend):
    (batches,) = batches_of(small_shards(images=8, clips=4), "cuda", backend, num_steps=1)
    for batch in batches.values():
        assert batch.inputs.is_cuda
        assert batch.weight.is_cuda
        assert all(target.is_cuda for target in batch.target.values())


def test_opencv_feeds_a_gpu_what_it_feeds_a_cpu(small_shards):
    folder = small_shards(images=8, clips=4)
    for gpu, cpu in zip(batches_of(folder, "cuda", "opencv"), batches_of(folder, "cpu", "opencv"), strict=True):
        for name in cpu:
            assert gpu[name].keys == cpu[name].keys
            assert (gpu[name].inputs.cpu() - cpu[name].inputs).abs().mean() < 2 / 255


def test_dali_draws_the_same_geometry_and_nearly_the_same_pixels(small_shards):
    folder = small_shards(images=8, clips=4)
    for gpu, cpu in zip(batches_of(folder, "cuda", "dali"), batches_of(folder, "cpu", "opencv"), strict=True):
        for name in cpu:
            assert gpu[name].keys == cpu[name].keys
            assert (gpu[name].inputs.cpu() - cpu[name].inputs).abs().mean() < 4 / 255
        positions = [batches["relative_position"].target["position"].cpu() for batches in (gpu, cpu)]
        assert torch.equal(*positions)


def test_images_on_the_gpu_and_clips_in_processes_are_each_as_alone(small_shards):
    folder = small_shards(images=8, clips=4)
    here = {"clips": {"backend": "opencv", "num_workers": 2}}
    mixed = batches_of(folder, "cuda", "dali", placement=here)
    alone = (
        batches_of(folder, "cuda", "dali", placement={"clips": {"num_workers": 0}}),
        batches_of(folder, "cpu", "opencv"),
    )
    for step, images, clips in zip(mixed, *alone, strict=True):
        assert all(batch.inputs.is_cuda for batch in step.values())
        motion = step.pop("motion_segmentation").to("cpu")
        assert digest(motion) == digest(clips["motion_segmentation"])
        assert all(digest(step[name]) == digest(images[name]) for name in step)


@pytest.mark.parametrize("option", [{"num_threads": 1}, {"prefetch_batches": 5}])
def test_threads_and_prefetching_change_no_bit(small_shards, option):
    folder = small_shards(images=8, clips=4)
    plain, other = batches_of(folder, "cuda", "dali"), batches_of(folder, "cuda", "dali", **option)
    for one, two in zip(plain, other, strict=True):
        assert {name: digest(batch) for name, batch in one.items()} == {name: digest(b) for name, b in two.items()}


def test_restarts_are_exact(small_shards):
    canvas = CanvasSpec(canvas_px=64, clip_height_px=48, clip_width_px=64, num_frames=6)
    sizes = Sizes(batch_size=4, clip_batch_size=2, canvas=canvas)
    assert check_restarts(small_shards(images=8, clips=4), torch.device("cuda", 0), sizes).found == 0


@pytest.mark.gpu_only
def test_tasks_copy_nothing_back(small_shards):
    tasks = {name: {} for name in (*IMAGE_TASKS, "motion_segmentation")}
    folder = small_shards(images=8, clips=4)
    config = PipelineConfig(images=folder, clips=folder, clip_batch_size=2, tasks=tasks, backend="dali", **SIZES)
    with build_pipeline(config, seed=0, device="cuda") as pipeline:
        for _ in range(3):
            next(pipeline)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(3):
                next(pipeline)
            torch.cuda.synchronize()
    assert [event.key for event in profile.key_averages() if "DtoH" in event.key] == []
