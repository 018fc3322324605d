"""Memory is given out again when its last view is gone, and never before."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pipelines.base.buffer_pool import MAX_FREE_BLOCKS, BufferPool

SHAPE = (3, 50, 7)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_comes_back_when_its_array_is_gone() -> None:
    recycler = BufferPool()
    first = recycler.empty(SHAPE, np.float32)
    assert (first.shape, first.dtype, first.flags.c_contiguous) == (SHAPE, np.float32, True)
    place = address(first)
    del first
    assert address(recycler.empty(SHAPE, np.int32)) == place


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[1:],
        lambda array: array.transpose(2, 0, 1)[3],
        lambda array: array.view(np.uint8),
        lambda array: array.reshape(-1)[5:6],
        lambda array: memoryview(array),
        torch.from_numpy,
        lambda array: torch.from_numpy(array[1:]).permute(2, 1, 0),
        lambda array: torch.from_numpy(array).view(-1)[7:9].detach(),
        lambda array: torch.from_numpy(array)[1].numpy(),
    ],
)
def test_memory_does_not_come_back_while_a_view_lives(view) -> None:  # type: ignore[no-untyped-def]
    recycler = BufferPool()
    array = recycler.empty(SHAPE, np.float32)
    place, held = address(array), view(array)
    del array
    gc.collect()
    assert address(recycler.empty(SHAPE, np.float32)) != place
    del held
    gc.collect()
    assert address(recycler.empty(SHAPE, np.float32)) == place


def test_sizes_are_kept_apart_and_few_blocks_are_kept() -> None:
    recycler = BufferPool()
    held = [recycler.empty((size,), np.uint8) for size in (10, 20) for _ in range(3 * MAX_FREE_BLOCKS)]
    del held
    recycler.empty((30,), np.uint8)  # what is gone is taken back when something is asked for
    assert {size: len(recycler._free[size]) for size in (10, 20)} == dict.fromkeys((10, 20), MAX_FREE_BLOCKS)


def test_nothing_is_an_array_too() -> None:
    assert BufferPool().empty((0, 5), np.float32).shape == (0, 5)


def test_threads_never_share_memory() -> None:
    recycler = BufferPool()

    def work(number: int) -> bool:
        for _ in range(200):
            array = recycler.empty((1000,), np.int64)
            array[:] = number
            if (array != number).any():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
