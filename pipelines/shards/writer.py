"""Samples in, one tar out: plain ustar, the same bytes for the same samples, readable by WebDataset and DALI.

Written by hand rather than through `tarfile.TarFile`, so that offsets and sha256 are known as the bytes go out.
"""

import hashlib
import tarfile
from typing import Any, BinaryIO

import numpy as np

from pipelines.shards.manifest import COLUMNS, Kind, Shard
from pipelines.shards.samples import Sample

__all__ = ["TarWriter", "tar_bytes"]

BLOCK_BYTES = 512
END_OF_TAR = bytes(2 * BLOCK_BYTES)


def tar_bytes(sample: Sample) -> int:
    """Bytes a sample takes in a tar, headers and padding included."""
    return sum(BLOCK_BYTES + _padded(len(content)) for _, content in sample.members)


class TarWriter:
    """Appends samples to an open file; `finish` ends the tar and describes it as a `Shard`."""

    def __init__(self, file: BinaryIO) -> None:
        self.num_samples = 0
        self.num_bytes = 0
        self._file = file
        self._hash = hashlib.sha256()
        self._keys: list[str] = []
        self._columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
        self._fps: list[float] = []

    def add(self, sample: Sample) -> None:
        row: dict[str, Any] = {
            "offset": self.num_bytes + BLOCK_BYTES,
            "size": len(sample.members[0][1]),
            "width": sample.width,
            "height": sample.height,
            "label": sample.label,
            "num_frames": sample.num_frames,
        }
        for name, column in self._columns.items():
            column.append(row[name])
        self._keys.append(sample.key)
        self._fps.append(sample.fps)
        for extension, content in sample.members:
            self._write(_header(f"{sample.key}.{extension}", len(content)))
            self._write(content)
            self._write(bytes(_padded(len(content)) - len(content)))
        self.num_samples += 1

    def finish(self, name: str, kind: Kind, split: str) -> Shard:
        self._write(END_OF_TAR)
        return Shard(
            name=name,
            kind=kind,
            split=split,
            shard_bytes=self.num_bytes,
            sha256=self._hash.hexdigest(),
            keys=tuple(self._keys),
            columns={name: np.asarray(column, dtype=np.int64) for name, column in self._columns.items()},
            fps=np.asarray(self._fps, dtype=np.float64),
        )

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.num_bytes += len(content)


def _header(name: str, num_bytes: int) -> bytes:
    """A ustar header without owner and time, which would make equal content differ."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = num_bytes, 0o644, 0
    return info.tobuf(tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict")


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
