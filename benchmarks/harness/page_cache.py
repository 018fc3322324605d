"""The system's page cache: read files into it, drop them from it, and check how much of them is in memory.

Dropping is a request (`posix_fadvise`): mapped pages stay, and so does everything in a file system that lives in
memory. `mincore` says what is resident and reads nothing itself. The caches of a disk or a hypervisor are out of reach.
"""

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_RESIDENT_RATIO", "drop", "files_below", "read_all", "resident_ratio"]

BLOCK_BYTES = 2**20
MAX_RESIDENT_RATIO = 0.02
"""Files of which at most that share is in memory count as cold: an index, or a page that another process holds, may
stay."""


def files_below(folder: Path) -> list[Path]:
    """Return all files of a folder and the folders in it, without links, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def read_all(paths: Iterable[Path]) -> None:
    """Read files to the end, so that the next reader finds them in memory."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK_BYTES):
                pass


def drop(paths: Iterable[Path]) -> float:
    """Ask the system to drop files from memory; return the share of their pages that stayed (see `resident_ratio`).

    Files are cold only if that is at most MAX_RESIDENT_RATIO. Where there is no such request (macOS), it is 1.0.
    """
    paths = list(paths)
    for path in paths if hasattr(os, "posix_fadvise") else ():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not yet on the disk would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return resident_ratio(paths)


def resident_ratio(paths: Iterable[Path]) -> float:
    """Return the share of the files' pages in memory: 1.0 where the system does not tell, 0.0 without any page."""
    resident = total = 0
    for path in paths:
        pages = _resident_pages(path)
        if pages is None:
            # Unknown counts as in memory, so that no file passes for cold without proof.
            return 1.0
        resident += int(pages.sum())
        total += len(pages)
    return resident / total if total else 0.0


def _resident_pages(path: Path) -> npt.NDArray[np.uint8] | None:
    """Return 0 or 1 for each page; None if the system does not tell."""
    size = path.stat().st_size
    if not size:
        return np.zeros(0, np.uint8)
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError):
        return None
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    # A private writable mapping, because ctypes takes the address of writable memory only; nothing is written to it.
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as view,
    ):
        first = ctypes.c_char.from_buffer(view)
        failed = mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), pages)
        del first  # a mapping that is pointed to cannot be closed
    return None if failed else np.bitwise_and(np.frombuffer(bytes(pages), np.uint8), 1, dtype=np.uint8)
