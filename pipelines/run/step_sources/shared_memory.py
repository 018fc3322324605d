"""Share tensors between a worker process and its parent without copying them.

The worker takes all large arrays from a `SharedMemory`. A tensor in one of its blocks is sent as the number of the
block and the place in it. The parent maps each block once (`MappedBlocks`), and tells the worker when the last view of
it is gone; then the worker uses the block again. Blocks have no name: they take no room in /dev/shm, and are gone with
the two processes, however those end.
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

__all__ = ["MappedBlocks", "PackedTensor", "SharedMemory"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """Place of a tensor in a block; `block` -1 for a tensor without elements. `stride` in elements."""

    block: int
    offset_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes from the first element to the end of the last one."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.stride, strict=True))
        return (last + 1) * self.dtype.itemsize


class SharedMemory(BufferPool):
    """Worker's side: a buffer pool whose blocks another process can map."""

    def __init__(self) -> None:
        # The parent keeps its mapping of every block, so dropping one here would free no memory.
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

    def pack(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, PackedTensor]:
        """Return the places of tensors, which are kept until `release`. Tensors outside the blocks are copied first."""
        # One reference per block and call, not per tensor: the parent releases blocks.
        placed = {name: self._placed(tensor) for name, tensor in tensors.items()}
        packed = {name: self._packed(tensor) for name, tensor in placed.items()}
        for number, tensor in {one.block: placed[name] for name, one in packed.items() if one.block >= 0}.items():
            self._sent[number].append(tensor)
        return packed

    @contextmanager
    def first_sent(self, number: int) -> Iterator[tuple[int, int] | None]:
        """Yield descriptor and bytes of a block that was never sent, else None; the descriptor is closed afterwards."""
        descriptor = self._descriptors.pop(number, None)
        if descriptor is None:
            yield None
            return
        try:
            yield descriptor, len(self._blocks[number])
        finally:
            os.close(descriptor)

    def release(self, blocks: Iterable[int]) -> None:
        """Drop tensors in blocks that the parent needs no longer. A block sent twice must be released twice."""
        for number in blocks:
            self._sent[number].popleft()

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        # A tensor that one plane repeats (lightness) is sent as one plane: a third of the bytes.
        if not tensor.numel() or self._block_of(tensor) is not None:
            return tensor
        return self.copy_of(one_of_equal_planes(tensor)).expand(tensor.shape)

    def _packed(self, tensor: torch.Tensor) -> PackedTensor:
        layout = tensor.dtype, tuple(tensor.shape), tensor.stride()
        number = self._block_of(tensor) if tensor.numel() else None
        if number is None:
            return PackedTensor(-1, 0, *layout)
        return PackedTensor(number, tensor.data_ptr() - self._blocks[number].ctypes.data, *layout)

    def _block_of(self, tensor: torch.Tensor) -> int | None:
        """Return the number of the block that holds a tensor, found by its address; None if no block does."""
        address = tensor.data_ptr()
        # Blocks are sorted by address: the only candidate is the last one that starts at or before the tensor.
        index = bisect_right(self._starts, (address, len(self._blocks))) - 1
        if index < 0:
            return None
        start, number = self._starts[index]
        return number if address < start + len(self._blocks[number]) else None


class MappedBlocks:
    """Parent's side: maps a worker's blocks, and tells when all views of one are gone."""

    def __init__(self, *, is_pinned: bool = False) -> None:
        """is_pinned: lock the pages of every block, so that a GPU can copy from it while this process works."""
        self._is_pinned = is_pinned
        self._blocks: dict[int, Bytes] = {}
        self._pinned: list[int] = []
        self._in_use: FreedArrays[int] = FreedArrays()

    def add(self, number: int, descriptor: int, num_bytes: int) -> None:
        """Map a block, and close the descriptor. Raises FourfoldError if the system refuses."""
        try:
            with _shareable(num_bytes):
                self._blocks[number] = _mapped(descriptor, num_bytes)
        finally:
            os.close(descriptor)
        # A system that refuses to lock more pages makes copies slower, and nothing else.
        address = self._blocks[number].ctypes.data
        if self._is_pinned and int(torch.cuda.cudart().cudaHostRegister(address, num_bytes, 0)) == 0:  # type: ignore[no-untyped-call]
            self._pinned.append(address)

    def close(self) -> None:
        """Unlock the pages. Call it when no copy is running; tensors stay valid. Safe to call twice."""
        while self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._pinned.pop())  # type: ignore[no-untyped-call]

    def unpack(self, packed: Mapping[str, PackedTensor]) -> dict[str, torch.Tensor]:
        """Return the tensors as views into the blocks they were made in."""
        roots = {number: self._root(number) for number in {one.block for one in packed.values() if one.block >= 0}}
        return {name: _view(roots.get(one.block), one) for name, one in packed.items()}

    def released(self) -> tuple[int, ...]:
        """Return numbers of the blocks whose last view is gone since the last call, for the worker's `release`."""
        return tuple(self._in_use.gone())

    def _root(self, number: int) -> torch.Tensor:
        return torch.from_numpy(self._in_use.watched(self._blocks[number], number))


def _view(root: torch.Tensor | None, one: PackedTensor) -> torch.Tensor:
    if root is None:
        return torch.empty(one.shape, dtype=one.dtype)
    part = root[one.offset_bytes : one.offset_bytes + one.num_bytes]
    return part.view(one.dtype).as_strided(one.shape, one.stride)


@contextmanager
def _shareable(num_bytes: int) -> Iterator[None]:
    """Turn errors of the system inside the block into a FourfoldError that says what to lower."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch has no type for it
        reason = " ".join(str(error).split())
        raise FourfoldError(
            f"{num_bytes / 2**20:.1f} MiB cannot be shared with a worker process ({reason}). Lower batch_size, "
            "prefetch_batches or num_workers; for open files, raise the limit (ulimit -n)."
        ) from error


def _mapped(descriptor: int, num_bytes: int) -> Bytes:
    """Map the bytes of a file: uint8 (num_bytes,)."""
    # With torch, because Python's mmap keeps a descriptor open for every block, and many systems allow only 1024.
    storage = torch.UntypedStorage.from_file(f"/dev/fd/{descriptor}", shared=True, nbytes=num_bytes)
    block: Bytes = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()  # type: ignore[arg-type]
    return block


def _nameless_file() -> int:
    """Return the descriptor of a file without a name: memory on Linux, a deleted temporary file elsewhere."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fourfold")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
