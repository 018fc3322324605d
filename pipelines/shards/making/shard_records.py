"""Records of made shards, `.build/<shard>.arrow`: what a shard was made of, so that a later build can keep it.

An Arrow file: the shard's samples as one record batch, and beside the schema a JSON of the rest. It is written last,
so that a record stands for a whole tar and a whole index. A shard of rejects only has a record and no tar.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

from pipelines.shards.format.columns import content_of
from pipelines.shards.format.index import index_name
from pipelines.shards.format.storage import Storage
from pipelines.shards.format.table import SAMPLE_SCHEMA, Kind, Shard
from pipelines.shards.making.shard_plan import PlannedShard
from pipelines.shards.sources.items import Reject

__all__ = ["RECORD_FOLDER", "ShardRecord", "fingerprint", "load_record", "record_name", "save_record", "tar_name"]

RECORD_FOLDER = ".build"
HEADER_KEY = b"fourfold"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """A made shard. `num_samples` 0: all its items are rejected or dropped, and there is no tar.

    `dropped`: clips left out, by reason. `is_final`: False if an item could not be read at all, which may be better
    next time, so that a later build makes the shard again. `samples`: rows of SAMPLE_SCHEMA.
    """

    name: str
    kind: Kind
    split: str
    fingerprint: str
    num_samples: int
    shard_bytes: int
    sha256: str
    is_final: bool
    rejects: tuple[Reject, ...]
    dropped: dict[str, int]
    samples: pa.RecordBatch = field(repr=False)

    @property
    def shard(self) -> Shard:
        """The shard's entry in the manifest."""
        # A built shard lies in its folder, so nothing is known of an elsewhere.
        return Shard(**{one.name: getattr(self, one.name) for one in fields(Shard) if one.name != "elsewhere"})


def record_name(shard_name: str) -> str:
    return f"{RECORD_FOLDER}/{shard_name.removesuffix('.tar')}.arrow"


def tar_name(name: str) -> str:
    """Return the name of the shard of a record."""
    return name.removeprefix(f"{RECORD_FOLDER}/").removesuffix(".arrow") + ".tar"


def fingerprint(settings: Mapping[str, Any], shard: PlannedShard) -> str:
    """Return the hash of all that decides a shard's bytes: settings, and rows with sizes and times of change."""
    content = json.dumps([settings, shard.name, shard.kind, shard.split, shard.places], sort_keys=True)
    digest = hashlib.sha256(content.encode())
    for column in shard.rows.columns:
        digest.update(content_of(column))
    return digest.hexdigest()


def save_record(storage: Storage, record: ShardRecord) -> None:
    """Write a record into the storage. Raises OSError."""
    header = {one.name: getattr(record, one.name) for one in fields(record) if one.name not in ("samples", "rejects")}
    header["rejects"] = [asdict(reject) for reject in record.rejects]
    schema = SAMPLE_SCHEMA.with_metadata({HEADER_KEY: json.dumps(header).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(record.samples.replace_schema_metadata(schema.metadata))
    # Not synced: if a power cut takes it away, its shard is only made once more.
    storage.write(record_name(record.name), sink.getvalue().to_pybytes(), sync_name=False)


def load_record(storage: Storage, shard_name: str) -> ShardRecord | None:
    """Return the record of a shard; None if it is missing or damaged, or if tar and index are not what it says."""
    try:
        record = _read(storage.read(record_name(shard_name)))
        index_bytes = storage.size(index_name(shard_name))
        is_whole = storage.size(shard_name) == record.shard_bytes and bool(index_bytes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None
    return record if record.name == shard_name and (is_whole or record.num_samples == 0) else None


def _read(content: bytes) -> ShardRecord:
    reader = pa.ipc.open_file(pa.py_buffer(content))
    samples = reader.get_batch(0)
    samples.validate(full=True)
    header = json.loads(reader.schema.metadata[HEADER_KEY])
    rejects = tuple(Reject(**reject) for reject in header.pop("rejects"))
    # Of an older format, or damaged: either way its shard is made again.
    if not samples.schema.equals(SAMPLE_SCHEMA) or samples.num_rows != header["num_samples"]:
        raise ValueError(f"{samples.num_rows} rows of {samples.schema.names}, the header says {header['num_samples']}")
    return ShardRecord(**header, rejects=rejects, samples=samples)
