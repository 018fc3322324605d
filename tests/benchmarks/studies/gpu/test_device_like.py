"""TF32 by hand-made numbers, and constants counted one by one."""

import torch

from benchmarks.studies.gpu.device_like import DeviceLike, as_tf32


def test_tf32_keeps_ten_bits_of_the_fraction():
    given = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, -(1 + 2**-12), 0.0])
    assert as_tf32(given).tolist() == [1.0, 1 + 2**-10, 1.0, 1 + 2**-9, -1.0, 0.0]
    assert as_tf32(given.double()).tolist() == given.double().tolist()


def test_factors_of_products_are_rounded_and_sums_are_not():
    almost = torch.full((1, 1), 1 + 2**-12)
    with DeviceLike():
        assert (almost @ almost).item() == torch.einsum("ij,jk->ik", almost, almost).item() == 1
        assert (almost + almost).item() == 2 + 2**-11


def test_constants_made_of_numbers_are_counted():
    with DeviceLike() as device:
        torch.arange(3) + torch.tensor([1, 2, 3]).new_tensor([4, 5, 6])
    assert device.num_host_copies == 2
