"""Reader of samples from memory-mapped tars: a row of a table in, a memoryview of its encoded bytes out, no copy.

Tars are never unpacked and no member name is trusted: the manifest says where the bytes are. A shard of a remote folder
is downloaded whole when its first sample is read, unless `shard_cache` has downloaded it before.
"""

import mmap
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from pipelines.base.errors import DataError
from pipelines.shards.format.manifest import SampleTable
from pipelines.shards.format.shard_place import check_whole, fetch, shard_places

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
        places = shard_places(table.folder, table.shards)
        self.paths = [place.path for place in places]
        self._table = table
        self._open: OrderedDict[int, memoryview] = OrderedDict()
        self._lock = Lock()
        self._is_remote = [place.url is not None for place in places]
        self._has_remote = any(self._is_remote)
        for shard, path, is_remote in zip(table.shards, self.paths, self._is_remote, strict=True):
            if not is_remote or path.exists():
                check_whole(path, shard, is_copy=is_remote)

    def read(self, row: int) -> memoryview:
        """Return the bytes of one image or clip file. The view stays valid as long as it is held. Raises DataError."""
        offset, size = int(self._table.offset[row]), int(self._table.size[row])
        shard_index = int(self._table.shard_index[row])
        shard = self._mapped(shard_index)
        # Offsets come from a file that may be damaged or from strangers: a slice beyond the end would be silently
        # short.
        if offset < 0 or size < 1 or offset + size > len(shard):
            raise DataError(
                f"{self.paths[shard_index]}: sample {self._table.keys[row]} at bytes {offset} to {offset + size} of "
                f"{len(shard)}; the manifest does not fit the tar. Build the shards again."
            )
        return shard[offset : offset + size]

    def _mapped(self, shard_index: int) -> memoryview:
        """Return the bytes of a shard; the shards used last stay mapped."""
        # One lock for all shards: opening is rare, and two threads must not download or map the same shard.
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
        if self._has_remote:
            for shard_index in [index for index in self._open if not self.paths[index].exists()]:
                del self._open[shard_index]

    def _map(self, shard_index: int) -> memoryview:
        """Map a shard, after downloading it if it is remote. Raises DataError."""
        path, is_remote = self.paths[shard_index], self._is_remote[shard_index]
        for _ in range(MAX_FETCHES if is_remote else 1):
            if is_remote:
                fetch(self._table.folder, self._table.shards[shard_index])
            try:
                return _map(path, is_copy=is_remote)
            # A remote shard may be evicted from the cache between its download and this line: it is fetched again.
            except FileNotFoundError as error:
                missing = error
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: cannot read this shard ({error}). Restore it or build again.") from error
        raise DataError(f"{path}: cannot read this shard ({missing.strerror}). Restore it or build again.")


def _map(path: Path, *, is_copy: bool) -> memoryview:
    with path.open("rb") as file:
        if is_copy:
            os.utime(file.fileno())  # the cache drops first what was opened longest ago
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
