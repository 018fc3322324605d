"""Scan of one tar made by others: places, sizes and labels of its usable images. Nothing in the tar changes.

Members are found by their headers and images by their offset in the mapped file. A header check touches a few pages of
each image; sha256 reads all bytes, once.
"""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.base.errors import DataError
from pipelines.shards.adopting.tar_records import ScannedTar, save_scan
from pipelines.shards.format.columns import content_of, number_column, text_column
from pipelines.shards.format.index import VERSION, index_name
from pipelines.shards.format.locations import is_remote, open_binary
from pipelines.shards.format.storage import Storage
from pipelines.shards.format.table import SAMPLE_SCHEMA
from pipelines.shards.format.tar_members import DamagedTarError, tar_members
from pipelines.shards.media.image_bytes import ImageForm, check_as_is
from pipelines.shards.sources.archives import archive_items
from pipelines.shards.sources.items import Ignored, Reject, SourceItem, UnusableError

__all__ = ["ScanSettings", "TarToScan", "scan_tar"]

COPY_BYTES = 2**22
VIDEO_HINT = "a video; adopt takes images, and a build cuts videos into clips: fourfold shards build TAR --out DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """Settings of a scan. has_labels: whether to read labels; label_field: of .json members, None is "label"."""

    storage: Storage
    form: ImageForm
    has_labels: bool
    label_field: str | None
    is_trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TarToScan:
    """One task of a worker. name: of the shard. fingerprint: of the settings, to be kept with the record."""

    name: str
    location: str
    fingerprint: str


def scan_tar(tar: TarToScan, settings: ScanSettings) -> str:
    """Scan one tar; write its index and, last, its record. Returns the shard's name.

    Raises UsageError (no tar there, compressed) or DataError (unreadable, or changed while it was read).
    """
    try:
        with _on_this_machine(tar.location) as (path, digest):
            scanned, index = _scan(path, tar, settings, digest)
        # The record last: it stands for a tar whose index is there.
        settings.storage.write(index_name(tar.name), index)
        save_scan(settings.storage, tar.name, scanned)
    except OSError as error:
        raise DataError(
            f"{tar.location}: cannot adopt it ({error.strerror or error}). Mend it, or leave it out; tars that were "
            "read are not read again."
        ) from error
    return tar.name


@contextmanager
def _on_this_machine(location: str) -> Iterator[tuple[Path, str | None]]:
    """Give a path to read at random; a remote tar is copied for the moment, which also gives its sha256."""
    if not is_remote(location):
        yield Path(location), None
        return
    with tempfile.TemporaryDirectory(prefix="fourfold-") as folder:
        path, digest = Path(folder) / (location.partition("?")[0].rpartition("/")[2] or "shard.tar"), hashlib.sha256()
        with open_binary(location, buffer_bytes=COPY_BYTES) as source, path.open("wb") as copy:
            while chunk := source.read(COPY_BYTES):
                digest.update(chunk)
                copy.write(chunk)
        yield path, digest.hexdigest()


def _scan(path: Path, tar: TarToScan, settings: ScanSettings, digest: str | None) -> tuple[ScannedTar, bytes]:
    with path.open("rb") as file:
        # 1. Size and time first: if they are others at the end, what was read between is of no use.
        before = os.fstat(file.fileno())
        usable, rejects, num_ignored = _usable_images(path, file, settings)
        rows, labels = _rows(usable)
        index = _index(file, {item.offset for item, _, _ in usable})
        # 2. The hash last, when the pages that the scan read are still in memory.
        if digest is None:
            facts = f"{before.st_size} {before.st_mtime_ns}"
            digest = _facts_sha256(facts, rows) if settings.is_trusted else _sha256(file)
        after = os.stat(path)
    # A tar that another process still writes may pass every check of its members.
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"{tar.location}: it changed while it was read. Adopt it again when it is complete.")
    remote = is_remote(tar.location)
    scanned = ScannedTar(
        location=tar.location,
        fingerprint=tar.fingerprint,
        num_bytes=before.st_size,
        modified_ns=0 if remote else before.st_mtime_ns,
        sha256=digest,
        is_trusted=settings.is_trusted and not remote,
        labels=labels,
        splits=_splits(usable),
        rejects=tuple(rejects),
        num_ignored=num_ignored,
        rows=rows,
    )
    return scanned, index


_Usable = tuple[SourceItem, int, int]
"""An image with the width and height of the upright picture."""


def _usable_images(path: Path, file: BinaryIO, settings: ScanSettings) -> tuple[list[_Usable], list[Reject], int]:
    """Return images that both backends read, what they do not, and the number of other members."""
    usable: list[_Usable] = []
    rejects: list[Reject] = []
    num_ignored = 0
    with _mapped(file) as content:
        for found in archive_items(path, with_labels=settings.has_labels, label_column=settings.label_field):
            if isinstance(found, Ignored):
                num_ignored += 1
            elif isinstance(found, Reject):
                rejects.append(found)
            elif isinstance(found, SourceItem):
                try:
                    usable.append((found, *_size(found, content, settings.form)))
                except UnusableError as error:
                    rejects.append(Reject(key=found.key, source=found.source, reason=str(error)))
    return usable, rejects, num_ignored


@contextmanager
def _mapped(file: BinaryIO) -> Iterator[memoryview]:
    """Map the whole file into memory; an empty one, which cannot be mapped, is an empty view."""
    if os.fstat(file.fileno()).st_size == 0:
        yield memoryview(b"")
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        yield view


def _size(item: SourceItem, content: memoryview, form: ImageForm) -> tuple[int, int]:
    """Return (width, height) of the upright picture. Raises UnusableError."""
    if item.kind != "image":
        raise UnusableError(VIDEO_HINT)
    with content[item.offset : item.offset + item.size] as encoded:
        if len(encoded) < item.size:
            raise UnusableError(f"its tar ends inside it ({len(encoded)} of {item.size} bytes are there)")
        return check_as_is(encoded, form).upright_size()


def _splits(usable: list[_Usable]) -> tuple[str, ...]:
    """Return the splits that folders in the tar say, sorted; what lies beside them counts as train, as in a build."""
    found = {one.split for one, _, _ in usable}
    return () if found <= {None} else tuple(sorted({split or "train" for split in found}))


def _rows(usable: list[_Usable]) -> tuple[pa.RecordBatch, tuple[str, ...]]:
    """Make rows of SAMPLE_SCHEMA, with labels that count in the tar's own list of class names."""
    numbers: dict[str, int] = {}
    labels = [-1 if one.label is None else numbers.setdefault(one.label, len(numbers)) for one, _, _ in usable]
    columns: list[list[Any]] = [
        [one.offset for one, _, _ in usable],
        [one.size for one, _, _ in usable],
        [width for _, width, _ in usable],
        [height for _, _, height in usable],
        labels,
        [1] * len(usable),
        [0.0] * len(usable),
    ]
    kinds = [field.type for field in SAMPLE_SCHEMA][1:]
    arrays = [number_column(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    keys = text_column([one.key for one, _, _ in usable])
    return pa.record_batch([keys, *arrays], schema=SAMPLE_SCHEMA), tuple(numbers)


def _index(file: BinaryIO, offsets: set[int]) -> bytes:
    """Make DALI's index of the samples that are used, the image first; samples without one are left out."""
    lines: list[str] = []
    group, members = "", list[tuple[str, int, int, str]]()
    try:
        for member in tar_members(file):
            if member.kind != "file":
                continue
            # DALI groups neighbours of one stem, up to the first dot of the file name, and so does WebDataset.
            folder, slash, base = member.name.rpartition("/")
            stem, _, extension = base.partition(".")
            if folder + slash + stem != group:
                lines += _index_line(members, offsets)
                group, members = folder + slash + stem, []
            # The words of a line are divided by spaces, which names of others may hold.
            words = [text.replace(" ", "_") for text in (extension or "none", member.name)]
            members.append((words[0], member.offset, member.size, words[1]))
    except DamagedTarError:
        pass  # the scan has told of it; the members before it are used
    lines += _index_line(members, offsets)
    return "\n".join([f"{VERSION} {len(lines)}", *lines, ""]).encode()


def _index_line(members: list[tuple[str, int, int, str]], offsets: set[int]) -> list[str]:
    if not any(offset in offsets for _, offset, _, _ in members):
        return []
    # Readers of this index take the first member for the image.
    members = sorted(members, key=lambda member: member[1] not in offsets)
    return [" ".join(f"{extension} {offset} {size} {name}" for extension, offset, size, name in members)]


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(COPY_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _facts_sha256(facts: str, rows: pa.RecordBatch) -> str:
    """Hash what is known of a trusted tar: two of them count as one if all of this is the same."""
    digest = hashlib.sha256(facts.encode())
    for column in rows.columns:
        digest.update(content_of(column))
    return digest.hexdigest()
