"""Costs that can be counted by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.studies.motion.device_cost import Cost, bounds_of, cost_of
from pipelines.targets.motion.device.batched_masks import mask_clips
from pipelines.targets.motion.device.torch_flow import dense_flow

IMAGE = torch.zeros(2, 1, 8, 10)
CASES = {
    "a sum reads two and writes one": (lambda: IMAGE + IMAGE, 320, 3 * 160 * 4, 1),
    "a view costs nothing": (lambda: IMAGE.view(-1).unsqueeze(0).expand(3, -1)[:, ::2], 0, 0, 0),
    "an expanded row is read once": (lambda: IMAGE[:1].expand(5, 1, 8, 10) * 2, 400, (80 + 400) * 4, 1),
    "a convolution of 3 x 3": (
        lambda: F.conv2d(IMAGE, torch.ones(1, 1, 3, 3)),
        2 * 9 * (2 * 6 * 8) + 9,
        (160 + 9 + 96 + 9) * 4,
        2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_costs_are_those_counted_by_hand(name):
    call, flop, traffic_bytes, num_operations = CASES[name]
    assert cost_of(call) == Cost(flop=flop, traffic_bytes=traffic_bytes, num_operations=num_operations)


def test_bounds_follow_from_the_data_sheet():
    found = bounds_of(Cost(flop=67e12, traffic_bytes=int(4.8e12), num_operations=1000), 10)
    assert found == pytest.approx({"by_memory_per_s": 10, "by_arithmetic_per_s": 10, "by_launches_per_s": 2000})


def test_a_pair_costs_the_same_in_a_larger_batch():
    with FakeTensorMode():
        one, two = (
            cost_of(lambda n=n: dense_flow(torch.empty(n, 1, 16, 24), torch.empty(n, 1, 16, 24))) for n in (1, 2)
        )
    assert one.num_operations == pytest.approx(two.num_operations, rel=0.02)
    assert 2 * one.flop == pytest.approx(two.flop, rel=0.05)


def test_constants_from_the_host_are_counted_and_scalars_are_none():
    with FakeTensorMode():
        values = torch.empty(3, device="cuda")
        cost = cost_of(lambda: values * torch.tensor([1.0, 2.0, 3.0], device="cuda") + 2.0)
    assert (cost.num_host_copies, cost.num_operations) == (1, 3)


def test_motion_masks_copy_no_constant_but_kornias():
    with FakeTensorMode():
        cost = cost_of(lambda: mask_clips(torch.empty(1, 6, 240, 320, dtype=torch.uint8, device="cuda")))
    assert cost.num_host_copies == 10
