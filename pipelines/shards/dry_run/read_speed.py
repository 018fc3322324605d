"""Reading speed of single files against a tar of them: paths in, measured MB/s of both out.

The files are read one by one in random order, and a tar of just these files from its beginning to its end. Before
each pass their bytes are dropped from the page cache where the system allows it; the result says whether that worked.
"""

import os
import random
import statistics
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["ReadComparison", "compare_reading"]

MAX_FILES = 256
MAX_BYTES = 64 * 2**20
NUM_REPEATS = 3
# A disk with a moving head reads a few hundred files per second: one pass must do there.
LONG_PASS_S = 0.5
BLOCK_BYTES = 2**20
# Now and then another process holds a page, which stays.
COLD_RATIO = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadComparison:
    """Medians over the repeats, of one thread. `cache`: "cold" if bytes came from the disk, "warm" if from memory."""

    num_files: int
    num_bytes: int
    files_mb_per_s: float
    tar_mb_per_s: float
    cache: Literal["cold", "warm"]

    @property
    def tar_gain(self) -> float:
        """Ratio of the tar's rate to that of the files."""
        return self.tar_mb_per_s / self.files_mb_per_s


def compare_reading(paths: Sequence[Path], folder: Path) -> ReadComparison | None:
    """Read the first of `paths` (up to 256 files, 64 MiB in all) both ways; None if there is nothing to read.

    `folder`: where the tar is made, and removed again. It should be on the disk the shards will be on.
    """
    files = _readable(paths)
    num_bytes = sum(path.stat().st_size for path in files)
    if not num_bytes:
        return None
    tar = folder / "read_speed.tar"
    try:
        with tarfile.open(tar, "w") as archive:
            for path in files:
                archive.add(path, path.name, recursive=False)
        # Dirty pages cannot be dropped from the cache.
        _sync(tar)
        is_cold = _can_drop(tar) and sum(_can_drop(path) for path in files) >= COLD_RATIO * len(files)
        # In random order: the order of the list may be the order on the disk, which training does not read in.
        shuffled = random.Random(0).sample(files, len(files))
        files_s, tar_s = _median_s(shuffled, is_cold), _median_s([tar], is_cold)
    finally:
        tar.unlink(missing_ok=True)
    return ReadComparison(
        num_files=len(files),
        num_bytes=num_bytes,
        files_mb_per_s=num_bytes / 1e6 / files_s,
        tar_mb_per_s=num_bytes / 1e6 / tar_s,
        cache="cold" if is_cold else "warm",
    )


def _readable(paths: Sequence[Path]) -> list[Path]:
    """Return the first paths that can be read and together stay within the limits."""
    chosen, num_bytes = [], 0
    for path in paths[:MAX_FILES]:
        is_readable = path.is_file() and os.access(path, os.R_OK)
        if is_readable and num_bytes + path.stat().st_size <= MAX_BYTES:
            num_bytes += path.stat().st_size
            chosen.append(path)
    return chosen


def _median_s(paths: Sequence[Path], is_cold: bool) -> float:
    # Makes "warm" true of the first pass; and a page that is still on its way from the disk could not be dropped.
    _read_all(paths)
    passes_s: list[float] = []
    while len(passes_s) < NUM_REPEATS and sum(passes_s) < LONG_PASS_S:
        if is_cold:
            for path in paths:
                _drop(path)
        start_s = time.perf_counter()
        _read_all(paths)
        passes_s.append(time.perf_counter() - start_s)
    return statistics.median(passes_s)


def _read_all(paths: Sequence[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            while os.read(descriptor, BLOCK_BYTES):
                pass
        finally:
            os.close(descriptor)


def _drop(path: Path) -> None:
    """Drop a file's bytes from the page cache, if the system does so. Its name and inode stay."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _can_drop(path: Path) -> bool:
    """Drop a file's bytes and return whether they are gone. Not before timing: looking makes the system read ahead."""
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False  # macOS has neither
    _drop(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return not _is_cached(descriptor, max(0, path.stat().st_size - 1))
    finally:
        os.close(descriptor)


def _is_cached(descriptor: int, offset: int) -> bool:
    try:
        return bool(os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT))
    except BlockingIOError:
        return False
    except OSError:  # a file system that cannot tell, such as some network ones
        return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
