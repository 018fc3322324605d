"""Summary of a folder of shards, per kind and split: counts, sizes, labels, formats, and what may hurt training.

Reads the manifest and the small .idx files, and one sidecar per clip shard; no image or clip is decoded.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.base.errors import DataError
from pipelines.shards.format.index import index_name, parse_index
from pipelines.shards.format.manifest import Kind, Manifest, Shard, load_manifest
from pipelines.shards.format.shard_place import shard_place
from pipelines.shards.format.storage import Storage, storage_of

__all__ = ["FolderSummary", "GroupSummary", "describe"]

FORMAT_NAMES = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "webp": "webp"}
PAPER_CANVAS_PX = 256
MAX_MEDIAN_SAMPLES = 1_000_000
"""Medians of more samples than this are of shards spread evenly over all."""
MAX_SIDECAR_BYTES = 2**20
NUM_READERS = 16
"""Files read at a time; waiting for a far store is most of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """Summary of all samples of one kind and split. `codecs`: samples per format; `labels`: samples per class name."""

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
    folder: Path | str
    labels: tuple[str, ...]
    groups: tuple[GroupSummary, ...]
    num_rejects: int
    warnings: tuple[str, ...]


def describe(location: Path | str) -> FolderSummary:
    """Summarize a folder or URL. Raises UsageError or DataError if it has no readable manifest."""
    # 1. Shards by kind and split, images first, as a build numbers them.
    manifest, storage = load_manifest(location), storage_of(location)
    members: dict[tuple[Kind, str], list[int]] = {}
    for index, shard in enumerate(manifest.shards):
        members.setdefault((shard.kind, shard.split), []).append(index)
    order = sorted(members, key=lambda pair: (pair[0] != "image", pair[1]))
    groups = tuple(_group(manifest, storage, members[pair]) for pair in order)
    try:
        # 2. What only the store tells. After the manifest, whose absence has a message of its own.
        num_rejects, names = _num_rejects(storage), storage.names(".tar")
    except OSError as error:
        raise DataError(
            f"{location}: cannot be read ({error.strerror or error}). Check the disk or address."
        ) from error
    return FolderSummary(
        folder=location,
        labels=manifest.labels,
        groups=groups,
        num_rejects=num_rejects,
        warnings=tuple(_warnings(manifest, set(names), groups, num_rejects)),
    )


def _group(manifest: Manifest, storage: Storage, indices: Sequence[int]) -> GroupSummary:
    shards = [manifest.shards[index] for index in indices]
    num_samples = sum(shard.num_samples for shard in shards)
    # Labels are counted over all samples, sizes over some shards: a median of a sample is close, a missing class is
    # not.
    stride = -(-num_samples // MAX_MEDIAN_SAMPLES)
    labels: Counter[int] = Counter()
    sizes: list[npt.NDArray[np.int64]] = []
    for place, index in enumerate(indices):
        samples = manifest.samples_of(index)
        values, counts = np.unique(samples.column("label").to_numpy(), return_counts=True)
        labels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if place % stride == 0:
            sizes.append(np.stack([samples.column(name).to_numpy() for name in ("size", "width", "height")]))
    sample_bytes, width, height = (int(value) for value in np.median(np.concatenate(sizes, axis=1), axis=1))
    return GroupSummary(
        kind=shards[0].kind,
        split=shards[0].split,
        num_samples=num_samples,
        num_shards=len(shards),
        shard_bytes=sum(shard.shard_bytes for shard in shards),
        median_sample_bytes=sample_bytes,
        median_width_px=width,
        median_height_px=height,
        # By index files, since the manifest does not hold formats.
        codecs=_codecs(storage, shards),
        labels={_label_name(manifest, index): count for index, count in sorted(labels.items()) if index >= 0},
    )


def _label_name(manifest: Manifest, index: int) -> str:
    return manifest.labels[index] if index < len(manifest.labels) else f"class {index}, which has no name"


def _codecs(storage: Storage, shards: Sequence[Shard]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    # Threads: of a remote folder nearly all of the time is waiting for one small file after the other.
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for found in pool.map(lambda shard: _shard_codecs(storage, shard), shards):
            counts.update(found)
    return dict(counts.most_common())


def _shard_codecs(storage: Storage, shard: Shard) -> dict[str, int]:
    """Count samples per format; "unknown" where the index or the tar cannot be read."""
    try:
        content = storage.read(index_name(shard.name))
        if shard.kind == "clip":
            return {_clip_codec(storage, shard, content): shard.num_samples}
        # The first word of a line is the extension of the image; parsing all of it would take five times as long.
        found = Counter(line.partition(b" ")[0].decode() for line in content.splitlines()[1:])
        if sum(found.values()) != shard.num_samples:
            raise ValueError(f"{sum(found.values())} samples in the index")
        codecs: Counter[str] = Counter()
        for extension, count in found.items():
            # In the tars of others extensions are in any case, and may have more than one dot.
            name = extension.rpartition(".")[2].lower()
            codecs[FORMAT_NAMES.get(name, name)] += count
        return dict(codecs)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        # A summary goes on: `shards verify` is the command that fails for a damaged index.
        return {"unknown": shard.num_samples}


def _clip_codec(storage: Storage, shard: Shard, index: bytes) -> str:
    """Read the codec of a shard's first clip: one build has one codec for all clips."""
    _, offset, size, _ = next(member for member in parse_index(index)[0] if member[0] == "json")
    with storage.open(shard.name) as file:
        file.seek(offset)
        sidecar: dict[str, Any] = json.loads(file.read(min(size, MAX_SIDECAR_BYTES)))
    return str(sidecar["codec"])


def _num_rejects(storage: Storage) -> int:
    try:
        with storage.open("rejects.jsonl") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0


def _is_missing(manifest: Manifest, shard: Shard, names: set[str]) -> bool:
    """Return whether a tar is not there; of one behind a URL, only reading it tells."""
    if shard.elsewhere is None:
        return shard.name not in names
    path, url = shard_place(manifest.folder, shard)
    return url is None and not path.exists()


def _warnings(manifest: Manifest, names: set[str], groups: Sequence[GroupSummary], num_rejects: int) -> Iterator[str]:
    # In the order of harm: samples that are gone, samples that never came, then what training would notice.
    missing = [shard.name for shard in manifest.shards if _is_missing(manifest, shard, names)]
    if missing:
        yield f"{len(missing)} shards are missing: {', '.join(missing[:3])}; see `fourfold shards verify`"
    if num_rejects:
        yield f"{num_rejects} source files were rejected; rejects.jsonl says why"
    for group in groups:
        where = f"{group.kind}s in split {group.split}"
        # All or none labelled is normal; some is a mistake of the source more often than not.
        if 0 < sum(group.labels.values()) < group.num_samples:
            yield f"{where}: {group.num_samples - sum(group.labels.values())} of {group.num_samples} have no label"
        # A class without samples in one split alone: a probe's accuracy would silently leave it out.
        absent = [name for name in manifest.labels if group.kind == "image" and name not in group.labels]
        if absent:
            yield f"{where}: no sample of class {', '.join(absent[:3])}{' and others' if len(absent) > 3 else ''}"
        if group.kind == "image" and min(group.median_width_px, group.median_height_px) < PAPER_CANVAS_PX:
            size = f"{group.median_width_px} x {group.median_height_px} px"
            yield f"{where}: median size {size} is below a {PAPER_CANVAS_PX} px canvas; set canvas_px lower"
    if manifest.labels and {group.split for group in groups if group.kind == "image"} == {"train"}:
        yield "labels but no validation split: a linear probe needs one; build with val = every:N or hash:P"
