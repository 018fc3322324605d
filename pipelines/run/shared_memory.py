"""Tensors that a worker process makes and another one uses, without a copy between them.

The maker takes all its large arrays from a `SharedMemory`; a tensor in one of its blocks is sent as the number of the
block and the tensor's place there. The user maps the block once (`Mapped`) and says when the last view of it is gone;
then the maker uses it again. A block is memory without a name: it takes no room of /dev/shm, and is gone with the two
processes however they end.
"""

import os
import tempfile
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.buffer_pool import BufferPool
from pipelines.base.errors import FourfoldError
from pipelines.base.freed_arrays import FreedArrays
from pipelines.tasks.base import one_of_equal_planes

__all__ = ["Mapped", "Packed", "SharedMemory"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Packed:
    """A tensor as its place in a block; `block` -1 for one without elements."""

    block: int
    offset_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """From its first element to the end of its last one."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.stride, strict=True))
        return (last + 1) * self.dtype.itemsize


class SharedMemory(BufferPool):
    """The maker's side."""

    def __init__(self) -> None:
        # The user keeps its mapping of a block, so there is no use in dropping one.
        super().__init__(max_free_blocks=inf)
        self._descriptors: dict[int, int] = {}
        self._blocks: list[Bytes] = []
        self._starts: list[tuple[int, int]] = []
        self._sent: defaultdict[int, deque[torch.Tensor]] = defaultdict(deque)

    def _new_block(self, num_bytes: int) -> Bytes:
        with _shareable(num_bytes):
            descriptor = _nameless_file()
            os.ftruncate(descriptor, num_bytes)
            block = _mapped(descriptor, num_bytes)
        number = len(self._blocks)
        self._descriptors[number] = descriptor
        self._blocks.append(block)
        self._starts = sorted([*self._starts, (block.ctypes.data, number)])
        return block

    def pack(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, Packed]:
        """Where the tensors are, which stay as they are until `release`. Those that are elsewhere are copied first."""
        placed = {name: self._placed(tensor) for name, tensor in tensors.items()}
        packed = {name: self._packed(tensor) for name, tensor in placed.items()}
        for number, tensor in {one.block: placed[name] for name, one in packed.items() if one.block >= 0}.items():
            self._sent[number].append(tensor)
        return packed

    @contextmanager
    def first_sent(self, number: int) -> Iterator[tuple[int, int] | None]:
        """File descriptor and bytes of a block that was not sent before, None of another; closed afterwards."""
        descriptor = self._descriptors.pop(number, None)
        if descriptor is None:
            yield None
            return
        try:
            yield descriptor, len(self._blocks[number])
        finally:
            os.close(descriptor)

    def release(self, blocks: Iterable[int]) -> None:
        """The user needs these no longer. A block sent twice must be released twice."""
        for number in blocks:
            self._sent[number].popleft()

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.numel() or self._block_of(tensor) is not None:
            return tensor
        return self.copy_of(one_of_equal_planes(tensor)).expand(tensor.shape)

    def _packed(self, tensor: torch.Tensor) -> Packed:
        layout = tensor.dtype, tuple(tensor.shape), tensor.stride()
        number = self._block_of(tensor) if tensor.numel() else None
        if number is None:
            return Packed(-1, 0, *layout)
        return Packed(number, tensor.data_ptr() - self._blocks[number].ctypes.data, *layout)

    def _block_of(self, tensor: torch.Tensor) -> int | None:
        address = tensor.data_ptr()
        index = bisect_right(self._starts, (address, len(self._blocks))) - 1
        if index < 0:
            return None
        start, number = self._starts[index]
        return number if address < start + len(self._blocks[number]) else None


class Mapped:
    """The user's side."""

    def __init__(self) -> None:
        self._blocks: dict[int, Bytes] = {}
        self._in_use: FreedArrays[int] = FreedArrays()

    def add(self, number: int, descriptor: int, num_bytes: int) -> None:
        """Map a block; the descriptor is closed. Raises FourfoldError."""
        try:
            with _shareable(num_bytes):
                self._blocks[number] = _mapped(descriptor, num_bytes)
        finally:
            os.close(descriptor)

    def unpack(self, packed: Mapping[str, Packed]) -> dict[str, torch.Tensor]:
        """The tensors, in the memory they were made in."""
        roots = {number: self._root(number) for number in {one.block for one in packed.values() if one.block >= 0}}
        return {name: _view(roots.get(one.block), one) for name, one in packed.items()}

    def released(self) -> tuple[int, ...]:
        """Numbers of blocks whose last view is gone since this was last called, for the maker's `release`."""
        return tuple(self._in_use.gone())

    def _root(self, number: int) -> torch.Tensor:
        return torch.from_numpy(self._in_use.watched(self._blocks[number], number))


def _view(root: torch.Tensor | None, one: Packed) -> torch.Tensor:
    if root is None:
        return torch.empty(one.shape, dtype=one.dtype)
    part = root[one.offset_bytes : one.offset_bytes + one.num_bytes]
    return part.view(one.dtype).as_strided(one.shape, one.stride)


@contextmanager
def _shareable(num_bytes: int) -> Iterator[None]:
    """What the system refuses inside becomes a FourfoldError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch has no type for it
        reason = " ".join(str(error).split())
        raise FourfoldError(
            f"{num_bytes / 2**20:.1f} MiB cannot be shared with a worker process ({reason}). Lower batch_size, "
            "prefetch_batches or num_workers; for open files, raise the limit (ulimit -n)."
        ) from error


def _mapped(descriptor: int, num_bytes: int) -> Bytes:
    """The bytes of a file. By torch, because Python's own mapping keeps a descriptor open for each, of which a process
    may have no more than some thousand."""
    storage = torch.UntypedStorage.from_file(f"/dev/fd/{descriptor}", shared=True, nbytes=num_bytes)
    block: Bytes = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()  # type: ignore[arg-type]
    return block


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fourfold")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
