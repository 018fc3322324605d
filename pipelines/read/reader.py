"""Reader of samples from memory-mapped tars: a row of a table in, a memoryview of its encoded bytes out, no copy.

Tars are never unpacked and no member name is trusted: the manifest says where the bytes are. A shard of a remote folder
is downloaded whole when its first sample is read, unless `shard_cache` has downloaded it before.
"""

import mmap
import os
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from threading import Lock

from pipelines.base.errors import DataError
from pipelines.shards.format.manifest import SampleTable
from pipelines.shards.format.mirror import fetch, is_mirror

__all__ = ["SampleReader"]

MAX_OPEN_SHARDS = 256
"""Shards kept mapped; each holds a file descriptor, and many systems allow a process only 1024."""
MAX_FETCHES = 3
"""Downloads tried for one read: another process may delete a cached shard after it came and before it is opened
here."""


class SampleReader:
    """Reader of one table's samples. Safe to call from several threads.

    paths: the shards' files on this machine; those of a remote folder exist once they are downloaded.
    Raises DataError, naming the file, if a shard is missing or has another size than the manifest says: at once for
    local folders, when the shard is read for remote ones.
    """

    def __init__(self, table: SampleTable) -> None:
        # A table of several folders names shards by full paths, which joining to a folder leaves as they are.
        self.paths = [table.folder / shard.name for shard in table.shards]
        self._table = table
        self._open: OrderedDict[int, memoryview] = OrderedDict()
        self._lock = Lock()
        self._mirrors = {folder for folder in {path.parent for path in self.paths} if is_mirror(folder)}
        for shard, path in zip(table.shards, self.paths, strict=True):
            if path.parent not in self._mirrors or path.exists():
                _check_whole(path, shard.shard_bytes)

    def read(self, row: int) -> memoryview:
        """Return the bytes of one image or clip file. The view stays valid as long as it is held. Raises DataError."""
        offset, size = int(self._table.offset[row]), int(self._table.size[row])
        shard_index = int(self._table.shard_index[row])
        shard = self._mapped(shard_index)
        if offset < 0 or size < 1 or offset + size > len(shard):
            raise DataError(
                f"{self.paths[shard_index]}: sample {self._table.keys[row]} at bytes {offset} to {offset + size} of "
                f"{len(shard)}; the manifest does not fit the tar. Build the shards again."
            )
        return shard[offset : offset + size]

    def _mapped(self, shard_index: int) -> memoryview:
        """Return the bytes of a shard; the shards used last stay mapped."""
        with self._lock:
            view = self._open.get(shard_index)
            if view is None:
                self._forget_dropped()
                view = self._open[shard_index] = self._map(shard_index)
                # Not closed: views that were handed out still need the mapping, and end it when the last one is gone.
                while len(self._open) > MAX_OPEN_SHARDS:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(shard_index)
            return view

    def _forget_dropped(self) -> None:
        """Unmap shards that the cache has deleted: their bytes stay on the disk as long as they are mapped."""
        if self._mirrors:
            for shard_index in [index for index in self._open if not self.paths[index].exists()]:
                del self._open[shard_index]

    def _map(self, shard_index: int) -> memoryview:
        """Map a shard, after downloading it if its folder is remote. Raises DataError."""
        path = self.paths[shard_index]
        for _ in range(MAX_FETCHES if path.parent in self._mirrors else 1):
            if path.parent in self._mirrors:
                fetch(path.parent, replace(self._table.shards[shard_index], name=path.name))
            try:
                return _map(path, is_mirrored=path.parent in self._mirrors)
            except FileNotFoundError as error:
                missing = error
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: cannot read this shard ({error}). Restore it or build again.") from error
        raise DataError(f"{path}: cannot read this shard ({missing.strerror}). Restore it or build again.")


def _check_whole(path: Path, expected_bytes: int) -> None:
    try:
        found_bytes = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot read this shard ({error.strerror}). Restore it or build again.") from error
    if found_bytes != expected_bytes:
        raise DataError(
            f"{path}: {found_bytes} bytes, the manifest says {expected_bytes}. Copy it again or build the shards again."
        )


def _map(path: Path, *, is_mirrored: bool) -> memoryview:
    with path.open("rb") as file:
        if is_mirrored:
            os.utime(file.fileno())  # the cache drops first what was opened longest ago
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
