"""Our operations against the references, and that each version of an operation is really one."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.studies.gpu.device_like import DeviceLike
from benchmarks.studies.gpu.kornia_operations import NUM_SAMPLED, parts
from pipelines.targets.motion.device import batched_masks, torch_flow

PARTS = {part.name: part for part in parts(count=2, side=64)}


@pytest.mark.parametrize("name", PARTS)
def test_ours_is_as_near_to_the_reference_as_the_task_needs(name):
    part = PARTS[name]
    assert part.difference(part.ours) <= part.allowed


@pytest.mark.parametrize("name", PARTS)
def test_both_versions_have_one_shape(name):
    part = PARTS[name]
    assert part.ours().shape == part.kornia().shape == part.reference().shape


@pytest.mark.parametrize("name", ["a and b of Lab", "affine warp"])
def test_tf32_moves_kornias_beyond_what_is_allowed_and_ours_not(name):
    part = PARTS[name]
    with DeviceLike():
        ours, kornia = part.ours(), part.kornia()
    assert part.difference(lambda: ours) <= part.allowed < part.difference(lambda: kornia)


def test_a_batch_of_clips_is_sampled_so_many_times(monkeypatch):
    found, sampled = [], torch_flow.sampled
    for module in (torch_flow, batched_masks):
        monkeypatch.setattr(module, "sampled", lambda *given: found.append(1) or sampled(*given))
    with FakeTensorMode():
        batched_masks.mask_clips(torch.empty(1, 6, 240, 320, dtype=torch.uint8))
    assert len(found) == NUM_SAMPLED
