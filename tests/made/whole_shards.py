"""Hand-made folders as a build leaves them: tars with labels and sidecars, DALI indexes and a manifest.

The tars are written by `tarfile` and the indexes from what it reads back, not by the code under test.
"""

import hashlib
import io
import itertools
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from pipelines.shards.format.manifest import SAMPLE_SCHEMA, Kind, ManifestWriter, Shard
from pipelines.shards.format.storage import LocalStorage, storage_of
from tests.made.pictures import KINDS, Stored


def write_whole(
    folder: Path, samples: Sequence[Stored], *, labels: Sequence[str] = (), per_shard: int = 3, split: str = "train"
) -> Path:
    """Images first, then clips, `per_shard` to a tar, all in one split."""
    return write_splits(folder, {split: samples}, labels=labels, per_shard=per_shard)


def write_splits(
    folder: Path, splits: Mapping[str, Sequence[Stored]], *, labels: Sequence[str] = (), per_shard: int = 3
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with ManifestWriter(storage_of(folder), labels) as manifest:
        for kind, (split, samples) in itertools.product(KINDS, splits.items()):
            chosen = [sample for sample in samples if (sample.suffix == "mp4") == (kind == "clip")]
            for index, first in enumerate(range(0, len(chosen), per_shard)):
                path = folder / f"{split}-{kind}s-{index:06d}.tar"
                manifest.add(*_write_tar(path, kind, split, chosen[first : first + per_shard], labels))
    return folder


def _write_tar(
    path: Path, kind: Kind, split: str, samples: Sequence[Stored], labels: Sequence[str]
) -> tuple[Shard, pa.RecordBatch]:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for extension, content in members_of(sample, labels):
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    lines, rows = [], []
    for sample in samples:
        own = [member for member in members if member.name.partition(".")[0] == sample.key]
        lines.append(" ".join(f"{m.name.partition('.')[2]} {m.offset_data} {m.size} {m.name}" for m in own))
        facts = {name: getattr(sample, name) for name in ("key", "width", "height", "label", "num_frames", "fps")}
        rows.append({**facts, "offset": own[0].offset_data, "size": own[0].size})
    path.with_suffix(".idx").write_text("\n".join([f"v1.2 {len(samples)}", *lines, ""]))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    shard = Shard(
        name=path.name,
        kind=kind,
        split=split,
        num_samples=len(samples),
        shard_bytes=path.stat().st_size,
        sha256=sha256,
    )
    return shard, pa.RecordBatch.from_pylist(rows, schema=SAMPLE_SCHEMA)


def members_of(sample: Stored, labels: Sequence[str]) -> list[tuple[str, bytes]]:
    """(extension, content) of a sample's members in a tar."""
    sidecar = {"width": sample.width, "height": sample.height, "source": f"src/{sample.key}.{sample.suffix}"}
    if sample.suffix == "mp4":
        sidecar |= {"num_frames": sample.num_frames, "fps": sample.fps, "codec": "mjpeg"}
    members = [(sample.suffix, sample.encoded)]
    if sample.label >= 0:
        members.append(("cls", str(sample.label).encode()))
        sidecar["label"] = labels[sample.label]
    return [*members, ("json", json.dumps(sidecar).encode())]


@dataclass(frozen=True)
class DeadlyStorage(LocalStorage):
    """Ends the process that opens one of its files, as a decoder may that crashes."""

    deadly_name: str

    def open(self, name: str) -> BinaryIO:
        return os._exit(9) if name == self.deadly_name else super().open(name)
