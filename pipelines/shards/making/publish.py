"""Records of made shards in; manifest, samples and rejects out, in the order of the plan, whatever made them when.

Memory does not grow with the number of samples: records are read one after the other, ahead by a few.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from shutil import copyfileobj
from typing import BinaryIO

from pipelines.base.errors import DataError
from pipelines.shards.format.index import index_name
from pipelines.shards.format.manifest import ManifestWriter
from pipelines.shards.format.storage import Storage
from pipelines.shards.making.ordered import ordered_map
from pipelines.shards.making.shard_plan import PLAN_NAME, ShardOutline, ShardPlan
from pipelines.shards.making.shard_records import RECORD_FOLDER, ShardRecord, load_record, record_name, tar_name
from pipelines.shards.sources.items import Reject

__all__ = ["REJECTS_NAME", "Totals", "publish", "record_names", "remove_stale", "write_rejects"]

REJECTS_NAME = "rejects.jsonl"
# A remote record takes some requests of some ten milliseconds each.
NUM_REMOTE_READS = 16
REJECTS_IN_MEMORY_BYTES = 2**22


@dataclass(slots=True, kw_only=True)
class Totals:
    """Sums over all records of a build.

    num_rejects: rows, images and videos; a video that is divided among shards and rejected in several counts once.
    splits: samples by split. first_reject: one to show.
    """

    num_shards: int = 0
    num_empty_shards: int = 0
    num_images: int = 0
    num_clips: int = 0
    num_listed_rejects: int = 0
    num_rejected_images: int = 0
    num_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    rejected_videos: set[str] = field(default_factory=set)
    first_reject: Reject | None = None

    @property
    def num_rejects(self) -> int:
        return self.num_rejected_images + len(self.rejected_videos) + self.num_listed_rejects

    def add(self, record: ShardRecord) -> None:
        self.num_shards += record.num_samples > 0
        self.num_empty_shards += record.num_samples == 0
        self.num_images += record.num_samples if record.kind == "image" else 0
        self.num_clips += record.num_samples if record.kind == "clip" else 0
        if record.kind == "image":
            self.num_rejected_images += len(record.rejects)
        else:
            self.rejected_videos.update(reject.key for reject in record.rejects)
        if record.rejects and self.first_reject is None:
            self.first_reject = record.rejects[0]
        self.splits[record.split] += record.num_samples
        self.num_bytes += record.shard_bytes
        self.dropped.update(record.dropped)


def publish(storage: Storage, plan: ShardPlan, listed: Sequence[Reject]) -> Totals:
    """Write rejects, samples and manifest from the records of all shards; `listed`: rejects of the listing.

    Raises DataError if a record is not there.
    """
    totals = Totals(num_listed_rejects=len(listed), first_reject=listed[0] if listed else None)
    # In the order of the plan, whoever finished when: the same sources give the same manifest.
    with ManifestWriter(storage, plan.labels) as manifest, _rejects_file(storage) as rejects:
        _write_lines(rejects, listed)
        for record in _records(storage, plan.outlines):
            totals.add(record)
            _write_lines(rejects, record.rejects)
            if record.num_samples:
                manifest.add(record.shard, record.samples)
    return totals


def write_rejects(storage: Storage, plan: ShardPlan, listed: Sequence[Reject], made: Iterable[str]) -> list[Reject]:
    """Write the rejects of the shards made so far, for a build that stops. Returns the first few."""
    names = set(made)
    first = list(listed[:3])
    with _rejects_file(storage) as file:
        _write_lines(file, listed)
        for record in _records(storage, [outline for outline in plan.outlines if outline.name in names]):
            _write_lines(file, record.rejects)
            first += record.rejects[: 3 - len(first)]
    return first


def record_names(storage: Storage) -> set[str]:
    """Return the names of the shards that have a record."""
    names = [name for name in storage.names(".arrow") if name.startswith(f"{RECORD_FOLDER}/")]
    return {tar_name(name) for name in names if name != f"{RECORD_FOLDER}/{PLAN_NAME}"}


def remove_stale(storage: Storage, plan: ShardPlan) -> None:
    """Delete shards of an earlier build that are not part of this one. Other files stay."""
    for name in record_names(storage) - {outline.name for outline in plan.outlines}:
        # The record last: were this process to die here, the next build still finds what to remove.
        storage.remove(name)
        storage.remove(index_name(name))
        storage.remove(record_name(name))


@contextmanager
def _rejects_file(storage: Storage) -> Iterator[BinaryIO]:
    """Give a file for lines; at the end it is published, or what was there is removed if it is empty."""
    with tempfile.SpooledTemporaryFile(REJECTS_IN_MEMORY_BYTES) as lines:
        yield lines  # type: ignore[misc]
        if lines.tell() == 0:
            storage.remove(REJECTS_NAME)
            return
        lines.seek(0)
        with storage.writing(REJECTS_NAME) as file:
            copyfileobj(lines, file)


def _write_lines(file: BinaryIO, rejects: Iterable[Reject]) -> None:
    for reject in rejects:
        file.write(json.dumps(asdict(reject), ensure_ascii=False, sort_keys=True).encode() + b"\n")


def _records(storage: Storage, outlines: Sequence[ShardOutline]) -> Iterator[ShardRecord]:
    # A local read is too short to gain from threads.
    num_threads = 1 if storage.path(REJECTS_NAME) else NUM_REMOTE_READS
    names = [outline.name for outline in outlines]
    for name, record in zip(names, ordered_map(partial(load_record, storage), names, num_threads), strict=True):
        if record is None:
            raise DataError(
                f"{storage.location}: the record of {name} is missing or not what was written. Something else "
                "changes this folder, or it is not the same folder on every machine; mend that and build again."
            )
        yield record
