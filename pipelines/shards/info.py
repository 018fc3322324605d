"""What a folder of shards holds, per kind and split: counts, sizes, labels, formats, and what may hurt training.

Reads the manifest and the small .idx files, and one sidecar per clip shard; no image or clip is decoded.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import DataError
from pipelines.shards.index import index_path, read_index
from pipelines.shards.manifest import Kind, Manifest, SampleTable, Shard, load_manifest

__all__ = ["FolderSummary", "GroupSummary", "describe"]

FORMAT_NAMES = {"jpg": "jpeg", "png": "png", "webp": "webp"}
PAPER_CANVAS_PX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """All samples of one kind and split. `codecs`: samples per format; `labels`: samples per class name."""

    kind: Kind
    split: str
    num_samples: int
    num_shards: int
    shard_bytes: int
    median_sample_bytes: int
    median_width_px: int
    median_height_px: int
    codecs: dict[str, int]
    labels: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSummary:
    folder: Path
    labels: tuple[str, ...]
    groups: tuple[GroupSummary, ...]
    num_rejects: int
    warnings: tuple[str, ...]


def describe(folder: Path) -> FolderSummary:
    """Summary of a folder. Raises UsageError or DataError if it has no readable manifest."""
    manifest = load_manifest(folder)
    pairs = sorted(
        {(shard.kind, shard.split) for shard in manifest.shards}, key=lambda pair: (pair[0] != "image", pair[1])
    )
    groups = tuple(_group(manifest, kind, split) for kind, split in pairs)
    num_rejects = _count_lines(folder / "rejects.jsonl")
    return FolderSummary(
        folder=folder,
        labels=manifest.labels,
        groups=groups,
        num_rejects=num_rejects,
        warnings=tuple(_warnings(manifest, groups, num_rejects)),
    )


def _group(manifest: Manifest, kind: Kind, split: str) -> GroupSummary:
    table = manifest.select(kind, split)
    labels = Counter(table.label[table.label >= 0].tolist())
    return GroupSummary(
        kind=kind,
        split=split,
        num_samples=len(table),
        num_shards=len(table.shards),
        shard_bytes=sum(shard.shard_bytes for shard in table.shards),
        median_sample_bytes=int(np.median(table.size)),
        median_width_px=int(np.median(table.width)),
        median_height_px=int(np.median(table.height)),
        codecs=_codecs(manifest.folder, table),
        labels={manifest.labels[index]: count for index, count in sorted(labels.items())},
    )


def _codecs(folder: Path, table: SampleTable) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for shard in table.shards:
        try:
            counts.update(_shard_codecs(folder, shard))
        except (DataError, OSError, ValueError, KeyError):
            counts["unknown"] += shard.num_samples
    return dict(counts.most_common())


def _shard_codecs(folder: Path, shard: Shard) -> Counter[str]:
    samples = read_index(index_path(folder / shard.name))
    if shard.kind == "image":
        return Counter(FORMAT_NAMES.get(members[0][0], members[0][0]) for members in samples)
    # One build has one codec for all clips, so the first sidecar speaks for its shard.
    _, offset, size, _ = next(member for member in samples[0] if member[0] == "json")
    with (folder / shard.name).open("rb") as file:
        file.seek(offset)
        return Counter({json.loads(file.read(size))["codec"]: shard.num_samples})


def _count_lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def _warnings(manifest: Manifest, groups: Sequence[GroupSummary], num_rejects: int) -> Iterator[str]:
    missing = [shard.name for shard in manifest.shards if not (manifest.folder / shard.name).is_file()]
    if missing:
        yield f"{len(missing)} shards are missing: {', '.join(missing[:3])}; see `fourfold shards verify`"
    if num_rejects:
        yield f"{num_rejects} source files were rejected; rejects.jsonl says why"
    for group in groups:
        where = f"{group.kind}s in split {group.split}"
        if 0 < sum(group.labels.values()) < group.num_samples:
            yield f"{where}: {group.num_samples - sum(group.labels.values())} of {group.num_samples} have no label"
        absent = [name for name in manifest.labels if group.kind == "image" and name not in group.labels]
        if absent:
            yield f"{where}: no sample of class {', '.join(absent[:3])}{' and others' if len(absent) > 3 else ''}"
        if group.kind == "image" and min(group.median_width_px, group.median_height_px) < PAPER_CANVAS_PX:
            size = f"{group.median_width_px} x {group.median_height_px} px"
            yield f"{where}: median size {size} is below a {PAPER_CANVAS_PX} px canvas; set canvas_px lower"
    if manifest.labels and {group.split for group in groups if group.kind == "image"} == {"train"}:
        yield "labels but no validation split: a linear probe needs one; build with val = every:N or hash:P"
