"""How fast the bytes of some shards come: in sequence and in random order, from memory (warm) and from the disk (cold).

Cold means that the system was asked to drop the file's pages (posix_fadvise DONTNEED). It need not do so, and a disk
has a memory of its own; so it is counted how many bytes the system then really fetched (/proc/self/io), and a cold
number stands only where nearly all were. What a host of a virtual machine keeps, nobody inside can see.
"""

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DiskSpeed", "Span", "read_speed"]

MAX_BYTES = 96 << 20
MAX_RANDOM_READS = 512
CHUNK_BYTES = 1 << 20
COLD_RATIO = 0.9

Span = tuple[Path, int, int]
"""A file, an offset and a number of bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpeed:
    """Bytes per second; None for a cold read that was none. `note` says why."""

    sequential_warm_bytes_per_s: float
    sequential_cold_bytes_per_s: float | None
    random_warm_bytes_per_s: float
    random_cold_bytes_per_s: float | None
    random_cold_reads_per_s: float | None
    note: str


def read_speed(paths: Sequence[Path], samples: Sequence[Span]) -> DiskSpeed:
    """`paths`: read from start to end, up to MAX_BYTES. `samples`: read in random order."""
    whole = _beginnings(paths)
    chosen = random.Random(0).sample(list(samples), min(len(samples), MAX_RANDOM_READS))
    cold_all, fetched_all = _cold(whole)
    cold_random, fetched_random = _cold(chosen)
    random_bytes = sum(size for _, _, size in chosen)
    return DiskSpeed(
        sequential_cold_bytes_per_s=cold_all if fetched_all >= COLD_RATIO else None,
        random_cold_bytes_per_s=cold_random if fetched_random >= COLD_RATIO else None,
        random_cold_reads_per_s=len(chosen) * cold_random / random_bytes if fetched_random >= COLD_RATIO else None,
        sequential_warm_bytes_per_s=max(_bytes_per_s(whole) for _ in range(3)),
        random_warm_bytes_per_s=max(_bytes_per_s(chosen) for _ in range(3)),
        note=_note(fetched_all, fetched_random),
    )


def _beginnings(paths: Sequence[Path]) -> list[Span]:
    left, spans = MAX_BYTES, []
    for path in paths:
        size = min(path.stat().st_size, left)
        if size <= 0:
            break
        spans.append((path, 0, size))
        left -= size
    return spans


def _cold(spans: Sequence[Span]) -> tuple[float, float]:
    """Bytes per second after dropping the files' pages, and the share of the bytes that was then fetched."""
    if not hasattr(os, "posix_fadvise"):
        return 0.0, 0.0
    for path in {path for path, _, _ in spans}:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # pages that are not written yet cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = _fetched_bytes()
    speed = _bytes_per_s(spans)
    total = sum(size for _, _, size in spans)
    return speed, (_fetched_bytes() - before) / max(total, 1)


def _bytes_per_s(spans: Sequence[Span]) -> float:
    buffer = bytearray(CHUNK_BYTES)
    files: dict[Path, int] = {}
    start_s, total = time.perf_counter(), 0
    try:
        for path, offset, size in spans:
            if path not in files:
                files[path] = os.open(path, os.O_RDONLY)
            total += _read(files[path], offset, size, buffer)
    finally:
        for descriptor in files.values():
            os.close(descriptor)
    return total / max(time.perf_counter() - start_s, 1e-9)


def _read(descriptor: int, offset: int, size: int, buffer: bytearray) -> int:
    done = 0
    while done < size:
        got = os.preadv(descriptor, [memoryview(buffer)[: min(size - done, CHUNK_BYTES)]], offset + done)
        if not got:
            break
        done += got
    return done


def _fetched_bytes() -> int:
    """Bytes this process had fetched from storage; 0 where the system does not say: then nothing counts as cold."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes")), 0)


def _note(fetched_all: float, fetched_random: float) -> str:
    if min(fetched_all, fetched_random) >= COLD_RATIO:
        return "cold: all bytes came from storage; what the storage itself or a host keeps in memory is not known"
    return (
        f"not measured cold: after dropping the pages only {fetched_all:.0%} (sequential) and {fetched_random:.0%} "
        "(random) of the bytes came from storage"
    )
