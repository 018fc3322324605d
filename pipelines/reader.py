"""Encoded bytes of a sample, from tars mapped into memory: row of a table in, memoryview out, nothing copied.

Tars are never unpacked and no member name is trusted: the manifest says where the bytes are.
"""

import mmap
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from pipelines.errors import DataError
from pipelines.shards.manifest import SampleTable

__all__ = ["SampleReader"]

MAX_OPEN_SHARDS = 256
"""Each open shard holds a file descriptor, and many systems allow a process only 1024."""


class SampleReader:
    """`read(row)` for the rows of one table. Safe to call from several threads.

    Raises DataError at once, naming the file, if a shard is missing or has another size than the manifest says.
    """

    def __init__(self, table: SampleTable) -> None:
        self._paths = [table.folder / shard.name for shard in table.shards]
        self._table = table
        self._open: OrderedDict[int, memoryview] = OrderedDict()
        self._lock = Lock()
        for shard, path in zip(table.shards, self._paths, strict=True):
            _check_whole(path, shard.shard_bytes)

    def read(self, row: int) -> memoryview:
        """The bytes of one image or clip file. The view stays valid for as long as it is held."""
        offset, size = int(self._table.offset[row]), int(self._table.size[row])
        shard_index = int(self._table.shard_index[row])
        shard = self._mapped(shard_index)
        if offset < 0 or size < 1 or offset + size > len(shard):
            raise DataError(
                f"{self._paths[shard_index]}: sample {self._table.keys[row]} at bytes {offset} to {offset + size} of "
                f"{len(shard)}; the manifest does not fit the tar. Build the shards again."
            )
        return shard[offset : offset + size]

    def _mapped(self, shard_index: int) -> memoryview:
        with self._lock:
            view = self._open.get(shard_index)
            if view is None:
                view = self._open[shard_index] = _map(self._paths[shard_index])
                # Only forgotten, not closed: views handed out keep their mapping alive until they are dropped.
                while len(self._open) > MAX_OPEN_SHARDS:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(shard_index)
            return view


def _check_whole(path: Path, expected_bytes: int) -> None:
    try:
        found_bytes = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot read this shard ({error.strerror}). Restore it or build again.") from error
    if found_bytes != expected_bytes:
        raise DataError(
            f"{path}: {found_bytes} bytes, the manifest says {expected_bytes}. Copy it again or build the shards again."
        )


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read this shard ({error}). Restore it or build again.") from error
