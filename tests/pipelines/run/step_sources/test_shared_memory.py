"""Tensors in memory of two sides: seen without a copy, left alone while somebody looks, used again afterwards."""

import gc
import os

import numpy as np
import pytest
import torch

from pipelines.base.errors import FourfoldError
from pipelines.run.step_sources.shared_memory import MappedBlocks, SharedMemory


class Sides:
    """A maker and a user in one process."""

    def __init__(self) -> None:
        self.maker, self.user = SharedMemory(), MappedBlocks()
        self.num_mapped = 0

    def send(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        packed = self.maker.pack(tensors)
        for number in sorted({one.block for one in packed.values() if one.block >= 0}):
            with self.maker.first_sent(number) as new:
                if new is not None:
                    descriptor, num_bytes = new
                    self.user.add(number, os.dup(descriptor), num_bytes)
                    self.num_mapped += 1
        return self.user.unpack(packed)

    def give_back(self) -> int:
        gc.collect()
        released = self.user.released()
        self.maker.release(released)
        return len(released)


@pytest.fixture
def sides() -> Sides:
    return Sides()


def made(sides: Sides, *shape: int) -> torch.Tensor:
    array = sides.maker.empty(shape, np.float32)
    array[:] = np.arange(array.size).reshape(shape)
    return torch.from_numpy(array)


def test_a_tensor_of_the_makers_memory_is_seen_without_a_copy(sides: Sides) -> None:
    tensor = made(sides, 2, 3, 5)
    found = sides.send(x=tensor)["x"]
    assert torch.equal(found, tensor)
    tensor[1, 2, 4] = 77
    assert found[1, 2, 4] == 77
    found[0, 0, 0] = 88
    assert tensor[0, 0, 0] == 88


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.permute(0, 3, 1, 2),
        lambda x: x[1:, ::2],
        lambda x: x[0, 0].unsqueeze(0).expand(3, -1, -1),
        lambda x: x[..., 1],
        lambda x: x[1, 2, 3, 4],
    ],
)
def test_views_arrive_as_they_are(sides: Sides, view) -> None:
    tensor = view(made(sides, 2, 3, 4, 5))
    found = sides.send(x=tensor)["x"]
    assert torch.equal(found, tensor)
    assert found.stride() == tensor.stride()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6).view(2, 3),
        torch.arange(6.0).view(2, 3).T,
        torch.tensor(3.5),
        torch.rand(4, 1, 2, 2).expand(-1, 3, -1, -1),
        torch.tensor([True, False]),
        torch.rand(3, 5).bfloat16(),
        torch.empty(0, 3),
    ],
)
def test_tensors_of_other_memory_are_copied(sides: Sides, tensor: torch.Tensor) -> None:
    found = sides.send(x=tensor)["x"]
    assert torch.equal(found, tensor)
    assert found.dtype == tensor.dtype
    if tensor.numel():
        assert found.data_ptr() != tensor.data_ptr()


def test_one_plane_seen_three_times_is_copied_once(sides: Sides) -> None:
    found = sides.send(x=torch.rand(4, 1, 2, 2).expand(-1, 3, -1, -1))["x"]
    assert found.stride()[1] == 0


def test_a_block_is_used_again_once_its_last_view_is_gone(sides: Sides) -> None:
    first = sides.send(x=made(sides, 8))["x"]
    part = first[3:]
    assert sides.give_back() == 0
    second = sides.send(x=made(sides, 8))["x"]
    del first
    assert sides.give_back() == 0
    assert part.tolist() == [3, 4, 5, 6, 7]
    del part
    assert sides.give_back() == 1
    mapped = sides.num_mapped
    third = sides.send(x=made(sides, 8))["x"]
    assert sides.num_mapped == mapped
    assert second.tolist() == third.tolist() == list(range(8))


def test_what_is_held_is_not_written_over(sides: Sides) -> None:
    held = []
    for value in range(20):
        array = sides.maker.empty((100,), np.float32)
        array[:] = value
        held.append(sides.send(x=torch.from_numpy(array))["x"])
        del array
        if value % 3 == 0:
            held.pop()
            sides.give_back()
    assert [int(one[0]) for one in held] == [value for value in range(20) if value % 3]
    assert all((one == one[0]).all() for one in held)


def test_a_block_sent_twice_is_released_twice(sides: Sides) -> None:
    tensor = made(sides, 4)
    one, two = sides.send(x=tensor)["x"], sides.send(x=tensor)["x"]
    del tensor, one
    assert sides.give_back() == 1
    made(sides, 4).fill_(9)
    assert two.tolist() == [0, 1, 2, 3]


def test_no_file_stays_open_for_a_block_that_was_sent(sides: Sides) -> None:
    before = len(os.listdir("/proc/self/fd"))
    kept = [sides.send(x=made(sides, 16, size))["x"] for size in range(1, 9)]
    assert len(kept) == 8
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_that_cannot_be_had_is_told(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FourfoldError, match=r"1048576\.0 MiB cannot be shared .*; for open files, raise the limit"):
        sides.user.add(0, os.open(os.devnull, os.O_RDWR), 2**40)
    monkeypatch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FourfoldError, match=r"No space left on device\)\. Lower batch_size"):
        sides.maker.empty((3, 5), np.float32)
