"""Pool of NumPy buffers: a buffer is used again once the last view of it is gone.

A batch of canvases and inputs is tens of megabytes. For new memory the system fills every page with zeros first, which
was a tenth of all time of the CPU pipeline.
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
"""Free buffers kept of each size; each costs its bytes. A pipeline whose batches are used as fast as they are made
never needs more at once."""


class BufferPool:
    """Pool of buffers for arrays and tensors on the CPU. Safe to use from several threads."""

    def __init__(self, max_free_blocks: float = MAX_FREE_BLOCKS) -> None:
        self._max_free_blocks = max_free_blocks
        self._free: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)
        self._given_out: FreedArrays[npt.NDArray[np.uint8]] = FreedArrays()
        self._lock = Lock()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an uninitialized array, as `numpy.empty` does, in a buffer of the pool."""
        num_bytes = prod(shape) * np.dtype(dtype).itemsize
        # An array without bytes has no memory to watch.
        if not num_bytes:
            return np.empty(shape, dtype)
        # Freed buffers are collected here and not in a callback: a callback would need the lock, in the middle of
        # whatever code drops the last view, perhaps of this method.
        with self._lock:
            self._take_back()
            free = self._free[num_bytes]
            block = free.pop() if free else self._new_block(num_bytes)
        return self._given_out.watched(block, block).view(dtype).reshape(shape)

    def contiguous(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor as `Tensor.contiguous` does; a copy on the CPU goes to a buffer of the pool."""
        if tensor.device.type != "cpu" or tensor.is_contiguous():
            return tensor.contiguous()
        return self.copy_of(tensor)

    def copy_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a contiguous copy in a buffer of the pool, of a tensor on the CPU."""
        # Through bytes, because NumPy has no bfloat16.
        room = torch.from_numpy(self.empty((tensor.numel() * tensor.itemsize,), np.uint8))
        return room.view(tensor.dtype).view(tensor.shape).copy_(tensor)

    def _new_block(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """Allocate a buffer; a subclass may take it from memory that processes share."""
        return np.empty(num_bytes, np.uint8)

    def _take_back(self) -> None:
        """Move freed buffers to the free list; drop those beyond `max_free_blocks` of a size."""
        for block in self._given_out.gone():
            free = self._free[block.nbytes]
            if len(free) < self._max_free_blocks:
                free.append(block)
