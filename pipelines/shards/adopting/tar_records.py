"""Records of scanned tars, `.build/<shard>.adopted`: what a later run takes over from a tar that has not changed.

An Arrow file: the rows as one record batch, and beside the schema a JSON of the rest. A build's records have another
suffix, so that a build never takes an adopted tar for one of its own and clears it away.
"""

import json
import os
from dataclasses import asdict, dataclass, field, fields

import pyarrow as pa

from pipelines.shards.format.index import index_name
from pipelines.shards.format.locations import filesystem, is_remote, remote_errors
from pipelines.shards.format.storage import RECORD_FOLDER, Storage
from pipelines.shards.format.table import SAMPLE_SCHEMA
from pipelines.shards.sources.items import Reject

__all__ = ["RECORD_SUFFIX", "ScannedTar", "is_unchanged", "load_scan", "record_name", "save_scan"]

RECORD_SUFFIX = ".adopted"
HEADER_KEY = b"fourfold"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedTar:
    """Findings of a scan. rows: of SAMPLE_SCHEMA; their labels are indices into `labels`, the tar's own class names.

    splits: what the folders in the tar say, sorted; empty if they say none. fingerprint: of the settings. modified_ns,
    is_trusted: as in `Elsewhere`. num_ignored: members that are neither images nor videos nor labels.
    """

    location: str
    fingerprint: str
    num_bytes: int
    modified_ns: int
    sha256: str
    is_trusted: bool
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    rejects: tuple[Reject, ...]
    num_ignored: int
    rows: pa.RecordBatch = field(repr=False)


def record_name(shard_name: str) -> str:
    """Return the name of a shard's record in a folder."""
    return f"{RECORD_FOLDER}/{shard_name.removesuffix('.tar')}{RECORD_SUFFIX}"


def save_scan(storage: Storage, shard_name: str, scanned: ScannedTar) -> None:
    """Write a record, whole or not at all. Raises OSError."""
    header = {one.name: getattr(scanned, one.name) for one in fields(scanned) if one.name not in ("rows", "rejects")}
    header["rejects"] = [asdict(reject) for reject in scanned.rejects]
    schema = SAMPLE_SCHEMA.with_metadata({HEADER_KEY: json.dumps(header).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(scanned.rows.replace_schema_metadata(schema.metadata))
    # If a power cut takes it away, its tar is read once more, and that is all.
    storage.write(record_name(shard_name), sink.getvalue().to_pybytes(), sync_name=False)


def load_scan(storage: Storage, shard_name: str) -> ScannedTar | None:
    """Read the record of a shard; None if there is none, it is damaged, or its index is missing."""
    try:
        reader = pa.ipc.open_file(pa.py_buffer(storage.read(record_name(shard_name))))
        rows = reader.get_batch(0)
        rows.validate(full=True)
        header = json.loads(reader.schema.metadata[HEADER_KEY])
        header["labels"], header["splits"] = tuple(header["labels"]), tuple(header["splits"])
        header["rejects"] = tuple(Reject(**reject) for reject in header["rejects"])
        scanned = ScannedTar(**header, rows=rows.replace_schema_metadata(None))
        return scanned if rows.schema.equals(SAMPLE_SCHEMA) and storage.size(index_name(shard_name)) else None
    # A record that cannot be used is no error: its tar is scanned again.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None


def is_unchanged(scanned: ScannedTar) -> bool:
    """Return whether the tar still has the size, and on this machine the time of change, that it had when read."""
    try:
        if not is_remote(scanned.location):
            facts = os.stat(scanned.location)
            return (facts.st_size, facts.st_mtime_ns) == (scanned.num_bytes, scanned.modified_ns)
        with remote_errors(scanned.location):
            system, path = filesystem(scanned.location)
            # Not every store has a time of change, and a copy has another one: a remote tar is judged by its size.
            return int(system.info(path)["size"]) == scanned.num_bytes
    # Gone or out of reach: the scan of it says what is wrong.
    except (OSError, KeyError, TypeError, ValueError):
        return False
