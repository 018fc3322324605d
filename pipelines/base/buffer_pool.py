"""Memory of batches that nobody holds any more, given out again.

A batch of canvases and inputs is tens of megabytes. Asked for anew each time, the system fills them with zeros first, a
page at a time: a tenth of all time of the CPU pipeline.
"""

from collections import defaultdict
from math import prod
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.freed_arrays import FreedArrays

__all__ = ["BufferPool"]

MAX_FREE_BLOCKS = 4
"""Kept of each size. More are never needed at once where batches are made as fast as they are used."""


class BufferPool:
    """`empty` arrays whose memory comes back when the last view of them is gone. Safe to use from several threads."""

    def __init__(self, max_free_blocks: float = MAX_FREE_BLOCKS) -> None:
        self._max_free_blocks = max_free_blocks
        self._free: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)
        self._given_out: FreedArrays[npt.NDArray[np.uint8]] = FreedArrays()
        self._lock = Lock()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Like `numpy.empty`, for arrays of at least one byte worth keeping; what it holds is undefined."""
        num_bytes = prod(shape) * np.dtype(dtype).itemsize
        if not num_bytes:
            return np.empty(shape, dtype)
        with self._lock:
            self._take_back()
            free = self._free[num_bytes]
            block = free.pop() if free else self._new_block(num_bytes)
        return self._given_out.watched(block, block).view(dtype).reshape(shape)

    def contiguous(self, tensor: torch.Tensor) -> torch.Tensor:
        """Like `Tensor.contiguous`; if a tensor on the CPU has to be copied for that, to memory from here."""
        if tensor.device.type != "cpu" or tensor.is_contiguous():
            return tensor.contiguous()
        return self.copy_of(tensor)

    def copy_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy without gaps, on the CPU."""
        room = torch.from_numpy(self.empty((tensor.numel() * tensor.itemsize,), np.uint8))
        return room.view(tensor.dtype).view(tensor.shape).copy_(tensor)

    def _new_block(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        return np.empty(num_bytes, np.uint8)

    def _take_back(self) -> None:
        for block in self._given_out.gone():
            free = self._free[block.nbytes]
            if len(free) < self._max_free_blocks:
                free.append(block)
