"""Contents of a folder of shards: `manifest.json` (labels, shards), `samples.arrow` (where samples' bytes are).

manifest.json: per shard name, kind, split, num_samples, shard_bytes and sha256, and of an adopted one where it lies;
bytes and sha256 of samples.arrow.
samples.arrow: an Arrow IPC file of SAMPLE_SCHEMA, one record batch per shard in the order of the shards; `offset` and
`size` are the position of the sample's jpg/mp4 bytes inside the tar, so that a sample is read without parsing the tar.
It is mapped into memory, never read whole: a folder of 100 million samples opens in a second or two.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.format.mirror import mirror
from pipelines.shards.format.storage import Storage, as_location, is_remote
from pipelines.shards.format.table import SAMPLE_SCHEMA, Elsewhere, Kind, SampleFile, SampleTable, Shard, damaged

__all__ = [
    "MANIFEST_NAME",
    "SAMPLES_NAME",
    "SAMPLE_SCHEMA",
    "Kind",
    "Manifest",
    "ManifestWriter",
    "SampleFile",
    "SampleTable",
    "Shard",
    "load_manifest",
    "shard_from_json",
    "shard_to_json",
]

MANIFEST_NAME = "manifest.json"
SAMPLES_NAME = "samples.arrow"
FORMAT_VERSION = 2
MIN_ROW_BYTES = 44
"""What a row takes in samples.arrow with an empty key."""
WRITE_BUFFER_BYTES = 4 * 2**20
# A name is joined to the folder: it must not lead out of it, nor be one that a file system refuses.
SHARD_NAME = re.compile(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,190}\.tar")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All shards of one folder. `labels`: class names; a sample's label is an index into them."""

    folder: Path
    shards: tuple[Shard, ...]
    labels: tuple[str, ...]
    samples: SampleFile = field(repr=False)
    samples_sha256: str = field(repr=False)

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    def samples_of(self, shard_index: int) -> pa.RecordBatch:
        """Return the samples of shards[shard_index], rows of SAMPLE_SCHEMA. Raises DataError if they are damaged."""
        return self.samples.batch(shard_index)

    def select(self, kind: Kind, split: str) -> SampleTable:
        """Return all samples of one kind and split, in shard order. Raises UsageError naming what there is."""
        chosen = [index for index, shard in enumerate(self.shards) if shard.kind == kind and shard.split == split]
        if not chosen:
            have = ", ".join(sorted({f"{s.kind}s in split {s.split}" for s in self.shards})) or "nothing"
            raise UsageError(
                f"{self.folder}: no {kind}s in split {split}; it holds {have}. "
                "Name another split or folder, or build shards from other sources."
            )
        return SampleTable(
            folder=self.folder,
            kind=kind,
            shards=tuple(self.shards[index] for index in chosen),
            labels=self.labels,
            samples=self.samples,
            batch_indices=chosen,
        )


class ManifestWriter:
    """Writes a folder's samples.arrow and manifest.json, shard by shard; nothing is published before `close`.

    Use as a context manager (an error publishes nothing). Memory: a buffer of 4 MiB and about 250 bytes per shard.
    """

    def __init__(self, storage: Storage, labels: Sequence[str]) -> None:
        self._storage, self._labels = storage, labels
        self._num_samples = 0
        self._lines: list[str] = []
        self._files = ExitStack()
        self._sink = _HashedFile(self._files.enter_context(storage.writing(SAMPLES_NAME)))
        # Arrow writes a column in pieces of some bytes; a call of Python for each would cost more than the writing.
        self._buffered = pa.BufferedOutputStream(pa.PythonFile(self._sink, mode="w"), WRITE_BUFFER_BYTES)
        self._arrow = pa.ipc.new_file(self._buffered, SAMPLE_SCHEMA)

    def __enter__(self) -> "ManifestWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._sink.is_abandoned = True
            self._files.__exit__(kind, error, trace)

    def add(self, shard: Shard, samples: pa.RecordBatch) -> None:
        """Add the next shard and its samples, rows of SAMPLE_SCHEMA (metadata is dropped)."""
        if not 0 < samples.num_rows == shard.num_samples or not samples.schema.equals(SAMPLE_SCHEMA):
            raise ValueError(f"{shard.name}: {samples.num_rows} rows of {samples.schema.names}, not as promised")
        self._arrow.write_batch(_compact(samples))
        self._num_samples += samples.num_rows
        self._lines.append(json.dumps(shard_to_json(shard), ensure_ascii=False))

    def close(self) -> None:
        """Publish samples.arrow, then manifest.json. Raises OSError if the disk refuses."""
        with self._files:
            self._arrow.close()
            self._buffered.close()
            # A manifest from before must not describe the new samples, were this process to die between the two.
            self._storage.remove(MANIFEST_NAME)
        self._storage.write(MANIFEST_NAME, self._json().encode())

    def _json(self) -> str:
        head = {
            "format_version": FORMAT_VERSION,
            "num_samples": self._num_samples,
            "labels": list(self._labels),
            "samples": {"bytes": self._sink.num_bytes, "sha256": self._sink.hash.hexdigest()},
        }
        shards = ",\n".join(self._lines)
        return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "shards": [\n{shards}\n]}}\n'


def _compact(samples: pa.RecordBatch) -> pa.RecordBatch:
    """Copy rows into buffers of just their size: a slice in a file would hold bytes of what it was cut from."""
    columns = [pa.concat_arrays([column.slice(0, 0), column]) for column in samples.columns]
    return pa.record_batch(columns, schema=SAMPLE_SCHEMA)


class _HashedFile:
    """The part of a file's interface that Arrow writes to; hashes what passes."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.is_abandoned = False
        self.hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, content: bytes) -> int:
        # Arrow tries once more when it is destroyed, and would print the traceback of a second error.
        if not self.is_abandoned:
            self.is_abandoned = True
            self._file.write(content)
            self.is_abandoned = False
            self.hash.update(content)
            self.num_bytes += len(content)
        return len(content)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        """Do nothing: the storage syncs at the end."""

    def close(self) -> None:
        self.closed = True


def load_manifest(location: Path | str) -> Manifest:
    """Read and check a folder's manifest; a URL is read through its mirror.

    Raises UsageError (no such folder or manifest) or DataError (damaged, or samples.arrow is not the manifest's).
    """
    folder = mirror(str(location)) if is_remote(location) else Path(as_location(location))
    path = folder / MANIFEST_NAME
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else f"it has no {MANIFEST_NAME}"
        raise UsageError(
            f"{location}: not a folder of shards ({what}). Build one: fourfold shards build SRC --out {location}"
        )
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
        version = content["format_version"]
        if version == FORMAT_VERSION:
            return _manifest(folder, content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(damaged(path, error)) from error
    raise DataError(
        f"{path}: format_version {version!r}; this fourfold reads {FORMAT_VERSION}. Build the shards again."
    )


def _manifest(folder: Path, content: Mapping[str, Any]) -> Manifest:
    """Return the manifest. Raises ValueError, KeyError or TypeError if damaged, DataError for other samples.arrow."""
    shards = tuple(shard_from_json(item) for item in content["shards"])
    # Two of a name would be one file, and the samples of one would be read from the tar of the other.
    if len({shard.name for shard in shards}) != len(shards):
        raise ValueError("a shard is named twice")
    labels = tuple(_text(label) for label in content["labels"])
    samples_bytes = _count(content["samples"]["bytes"])
    _check_size(folder / SAMPLES_NAME, samples_bytes)
    num_samples = [shard.num_samples for shard in shards]
    # Arrays are made of the size that is claimed here: no more samples than the file can hold.
    if sum(num_samples) != content["num_samples"] or sum(num_samples) * MIN_ROW_BYTES > samples_bytes:
        raise ValueError(f"{sum(num_samples)} samples in shards of {content['num_samples']}, {samples_bytes} bytes")
    return Manifest(
        folder=folder,
        shards=shards,
        labels=labels,
        samples=SampleFile(folder / SAMPLES_NAME, num_samples),
        samples_sha256=_sha256(content["samples"]["sha256"]),
    )


def _check_size(path: Path, expected_bytes: int) -> None:
    found_bytes = path.stat().st_size if path.is_file() else None
    if found_bytes != expected_bytes:
        found = "missing" if found_bytes is None else f"{found_bytes} bytes"
        raise DataError(
            f"{path}: {found}, {MANIFEST_NAME} says {expected_bytes} bytes. "
            "Copy the folder again or build the shards again."
        )


def shard_to_json(shard: Shard) -> dict[str, Any]:
    """Return a shard's entry in the manifest."""
    entry = {
        "name": shard.name,
        "kind": shard.kind,
        "split": shard.split,
        "num_samples": shard.num_samples,
        "shard_bytes": shard.shard_bytes,
        "sha256": shard.sha256,
    }
    return entry if shard.elsewhere is None else entry | {"elsewhere": asdict(shard.elsewhere)}


def shard_from_json(item: Mapping[str, Any]) -> Shard:
    """Return the shard of one entry. Raises ValueError, KeyError or TypeError if the entry is damaged."""
    name, kind, num_samples = _text(item["name"]), item["kind"], _count(item["num_samples"])
    if kind not in ("image", "clip") or not SHARD_NAME.fullmatch(name) or num_samples < 1:
        raise ValueError(f"shard {name!r} of {num_samples} samples of kind {kind!r}")
    return Shard(
        name=name,
        kind=kind,
        split=_text(item["split"]),
        num_samples=num_samples,
        shard_bytes=_count(item["shard_bytes"]),
        sha256=_sha256(item["sha256"]),
        elsewhere=_elsewhere(item["elsewhere"]) if item.get("elsewhere") is not None else None,
    )


def _elsewhere(item: Mapping[str, Any]) -> Elsewhere:
    """Return where an adopted tar lies. Raises ValueError for a path that no file system has."""
    location = _text(item["location"])
    if not location or "\0" in location or type(item["is_trusted"]) is not bool:
        raise ValueError(f"{item!r} is no place of a tar")
    return Elsewhere(location=location, modified_ns=_count(item["modified_ns"]), is_trusted=item["is_trusted"])


def _text(value: Any) -> str:
    """Return a string that can be printed; half a surrogate pair, which JSON can hold, cannot. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    value.encode()
    return value


def _count(value: Any) -> int:
    # `type`, not isinstance: True is an int in Python, and JSON's true is no count.
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no count")
    return value


def _sha256(value: Any) -> str:
    if not SHA256.fullmatch(_text(value)):
        raise ValueError(f"{value!r} is no sha256")
    return str(value)
