"""Tars made by others in, a folder of shards that pipelines read out: `fourfold shards adopt`.

The tars are listed, worker processes scan them, and the manifest is put together from the records of the scans. Not a
byte of a tar is copied or changed. A run that was killed, or is run again, scans only tars that are new or have another
size or time than before.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from pipelines.base.errors import DataError, UsageError
from pipelines.base.interrupt import sigterm_as_interrupt
from pipelines.base.machine import num_cores
from pipelines.base.progress import progress_bar
from pipelines.shards.adopting.tar_list import ListedTar, list_tars
from pipelines.shards.adopting.tar_records import ScannedTar, is_unchanged, load_scan
from pipelines.shards.adopting.tar_scan import ScanSettings, TarToScan, scan_tar
from pipelines.shards.adopting.unique_keys import UniqueKeys
from pipelines.shards.format.columns import number_column, numbers_of, text_column
from pipelines.shards.format.locations import is_remote
from pipelines.shards.format.manifest import MANIFEST_NAME, ManifestWriter
from pipelines.shards.format.storage import RECORD_FOLDER, Storage, storage_of
from pipelines.shards.format.table import SAMPLE_SCHEMA, Elsewhere, Shard
from pipelines.shards.making.engine_local import LocalEngine
from pipelines.shards.making.shard_plan import sorted_labels
from pipelines.shards.media.image_bytes import ImageForm
from pipelines.shards.sources.items import Reject

__all__ = ["AdoptSummary", "adopt_tars"]

NOTE_NAME = f"{RECORD_FOLDER}/adopted.json"
REJECTS_NAME = "rejects.jsonl"
# Raise it when a scan of the same tar finds something else than before.
SCAN_VERSION = 2
PRELOADED = ("pipelines.shards.adopting.tar_scan",)
RESUME_HINT = "Make room or mend it, then run the same command again: tars that were read are not read again."


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptSummary:
    """Counts of an adoption. num_reused: tars that a run before had read. num_unlabelled: images without a label.

    num_renamed: samples whose key another tar has, too. num_empty: tars in which nothing is usable.
    """

    num_tars: int
    num_reused: int
    num_empty: int
    num_images: int
    num_unlabelled: int
    num_renamed: int
    num_rejects: int
    num_ignored: int
    bytes: int
    seconds: float
    samples: dict[str, int]
    """Images by split."""
    labels: tuple[str, ...]


def adopt_tars(
    tars: Sequence[str | Path],
    out: Path | str,
    *,
    split: str = "auto",
    labels: Literal["auto", "off"] = "auto",
    label_field: str | None = None,
    check: Literal["header", "decode"] = "header",
    trust: bool = False,
    num_workers: int = 0,
    max_reject_ratio: float = 0.5,
) -> AdoptSummary:
    """Write manifest, samples.arrow and indices for WebDataset tars into the folder or URL `out`.

    tars: paths, folders, patterns ("*", "{000..099}") or URLs. split: see `list_tars`. labels, label_field: from .cls
    and .json members, as in a build. check: "header" reads the structure of each image, "decode" all its pixels.
    trust: believe the size and time of tars on this machine in place of reading them whole for their sha256.
    num_workers: processes, 0 is one per core. Memory: the rows of a tar per worker, and 16 bytes per image.

    Raises UsageError (no such tar, a compressed one, `out` holds a build) or DataError (nothing usable, more rejects
    than max_reject_ratio of the items, a full disk). Killed at any moment, the same call resumes.
    """
    start_s = time.monotonic()
    listed = list_tars(tars, split)
    storage = storage_of(out)
    settings = ScanSettings(
        storage=storage,
        form=ImageForm(check=check),
        has_labels=labels == "auto",
        label_field=label_field,
        is_trusted=trust,
    )
    with sigterm_as_interrupt(), storage.lock():
        _claim(storage)
        try:
            # 1. Scan what no earlier run has scanned. 2. Number labels and keys over all tars. 3. Publish.
            num_reused = _scan_all(listed, settings, num_workers or num_cores())
            summary = _publish(listed, storage, max_reject_ratio)
        except OSError as error:
            raise DataError(f"{error.filename or out}: {error.strerror or error}. {RESUME_HINT}") from error
    return AdoptSummary(**summary, num_reused=num_reused, seconds=time.monotonic() - start_s)  # type: ignore[arg-type]


def _claim(storage: Storage) -> None:
    """Refuse a folder with a build in it; note that it is one of adopted tars."""
    # A folder of adopted tars has a manifest, too: only the note tells it from a build, whose tars lie in the folder.
    if storage.size(NOTE_NAME) is None and storage.size(MANIFEST_NAME) is not None:
        raise UsageError(f"{storage.location}: holds shards that were built. Give --out another folder.")
    storage.write(NOTE_NAME, b"{}")


def _scan_all(listed: Sequence[ListedTar], settings: ScanSettings, num_workers: int) -> int:
    """Make the records of all tars. Returns how many were there already."""
    fingerprint = _fingerprint(settings)
    with progress_bar("adopting tars", total=len(listed), unit="tars") as bar:
        todo = []
        for tar in listed:
            scanned = load_scan(settings.storage, tar.name)
            is_same = scanned is not None and (scanned.location, scanned.fingerprint) == (tar.location, fingerprint)
            if scanned is not None and is_same and is_unchanged(scanned):
                bar.skip(1)
                continue
            todo.append(TarToScan(name=tar.name, location=tar.location, fingerprint=fingerprint))
        for _ in _scan_in_workers(todo, settings, min(num_workers, len(todo))):
            bar.advance(1)
    return len(listed) - len(todo)


def _scan_in_workers(todo: Sequence[TarToScan], settings: ScanSettings, num_workers: int) -> Iterator[str]:
    work = partial(scan_tar, settings=settings)
    # No process for a single tar: starting it would take as long as many a scan.
    if num_workers <= 1:
        yield from map(work, todo)
        return
    with LocalEngine(num_workers, preload=PRELOADED) as engine:
        yield from engine.run(todo, work)


def _fingerprint(settings: ScanSettings) -> str:
    """Hash of all that decides what a scan finds in a tar."""
    facts = [SCAN_VERSION, asdict(settings.form), settings.has_labels, settings.label_field, settings.is_trusted]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _publish(listed: Sequence[ListedTar], storage: Storage, max_reject_ratio: float) -> dict[str, object]:
    # 1. One pass over the records for what concerns all tars: class names and keys.
    names: set[str] = set()
    keys = UniqueKeys()
    num_images = num_rejects = 0
    for _, scanned in _records(listed, storage):
        names.update(scanned.labels)
        keys.add(scanned.rows.column("key").to_pylist())
        num_images += scanned.rows.num_rows
        num_rejects += len(scanned.rejects)
    # Written even if the next step ends the run, since its message points to this file.
    _write_rejects(storage, (reject for _, one in _records(listed, storage) for reject in one.rejects))
    # 2. Too many rejects, or tars of several splits, end it here, before a manifest of yesterday is replaced.
    _check_rejects(listed, storage, num_images, num_rejects, max_reject_ratio)
    splits = {tar.name: _split(tar, scanned) for tar, scanned in _records(listed, storage)}
    # 3. A second pass writes the rows with those numbers and names. The manifest comes last.
    labels = sorted_labels(names)
    numbers = {label: number for number, label in enumerate(labels)}
    counts: Counter[str] = Counter()
    samples: Counter[str] = Counter()
    with ManifestWriter(storage, labels) as manifest:
        for tar, scanned in _records(listed, storage):
            rows, num_renamed = _published_rows(scanned, keys, numbers)
            counts["renamed"] += num_renamed
            counts["unlabelled"] += int(np.count_nonzero(numbers_of(rows.column("label")) < 0))
            counts["ignored"] += scanned.num_ignored
            counts["bytes"] += scanned.num_bytes
            counts["empty"] += rows.num_rows == 0
            samples[splits[tar.name]] += rows.num_rows
            if rows.num_rows:
                manifest.add(_shard(tar, splits[tar.name], scanned, storage), rows)
    return {
        "num_tars": len(listed),
        "num_empty": counts["empty"],
        "num_images": num_images,
        "num_unlabelled": counts["unlabelled"],
        "num_renamed": counts["renamed"],
        "num_rejects": num_rejects,
        "num_ignored": counts["ignored"],
        "bytes": counts["bytes"],
        "samples": dict(samples),
        "labels": labels,
    }


def _split(tar: ListedTar, scanned: ScannedTar) -> str:
    """Return the split of a tar: the user's or its name's, else that of the folders in it, else train."""
    if tar.split is not None:
        return tar.split
    # Validation images under the name of train would be trained on.
    if len(scanned.splits) > 1:
        raise DataError(
            f"{tar.location}: its folders are splits ({', '.join(scanned.splits)}), but a tar that is adopted is one "
            "split. Build it: fourfold shards build TAR --out DIR; or take it as one: --split NAME."
        )
    return scanned.splits[0] if scanned.splits else "train"


def _records(listed: Sequence[ListedTar], storage: Storage) -> Iterator[tuple[ListedTar, ScannedTar]]:
    for tar in listed:
        scanned = load_scan(storage, tar.name)
        if scanned is None or scanned.location != tar.location:
            raise DataError(
                f"{storage.location}: the record of {tar.name} is missing or not what was written. "
                "Something else changes this folder; mend that and adopt again."
            )
        yield tar, scanned


def _published_rows(scanned: ScannedTar, keys: UniqueKeys, numbers: dict[str, int]) -> tuple[pa.RecordBatch, int]:
    """Return rows with unique keys and with the folder's label numbers, and how many keys are new."""
    rows = scanned.rows
    before = rows.column("key").to_pylist()
    after = keys.renamed(before)
    # The last entry is for label -1, which stays: NumPy counts it from the end.
    mapped = np.array([*(numbers[label] for label in scanned.labels), -1], np.int32)
    new_labels = number_column(mapped[numbers_of(rows.column("label"))], pa.int32())
    columns = {"key": text_column(after), "label": new_labels}
    arrays = [columns.get(name, rows.column(name)) for name in SAMPLE_SCHEMA.names]
    return pa.record_batch(arrays, schema=SAMPLE_SCHEMA), sum(map(str.__ne__, before, after))


def _shard(tar: ListedTar, split: str, scanned: ScannedTar, storage: Storage) -> Shard:
    return Shard(
        name=tar.name,
        kind="image",
        split=split,
        num_samples=scanned.rows.num_rows,
        shard_bytes=scanned.num_bytes,
        sha256=scanned.sha256,
        elsewhere=Elsewhere(
            location=_seen_from(storage, tar.location),
            modified_ns=scanned.modified_ns,
            is_trusted=scanned.is_trusted,
        ),
    )


def _seen_from(storage: Storage, location: str) -> str:
    """Return the location for the manifest: a path below the folder is relative, so that both can be moved."""
    folder = storage.path(".")
    if folder is None or is_remote(location):
        return location
    relative = os.path.relpath(location, os.path.abspath(folder))
    return location if relative.startswith("..") else relative


def _write_rejects(storage: Storage, rejects: Iterable[Reject]) -> None:
    lines = [json.dumps(asdict(reject), ensure_ascii=False, sort_keys=True).encode() + b"\n" for reject in rejects]
    if not lines:
        # The list of an earlier run would name tars that are mended by now.
        storage.remove(REJECTS_NAME)
        return
    with storage.writing(REJECTS_NAME) as file:
        file.writelines(lines)


def _check_rejects(
    listed: Sequence[ListedTar], storage: Storage, num_images: int, num_rejects: int, max_ratio: float
) -> None:
    """Raise DataError if nothing is usable, or more is not than allowed."""
    if num_images and num_rejects <= max_ratio * (num_images + num_rejects):
        return
    first = [reject for _, one in _records(listed, storage) for reject in one.rejects][:3]
    shown = "".join(f"; {reject.source}: {reject.reason}" for reject in first)
    what = f"{num_rejects} of {num_images + num_rejects} images cannot be used" if num_rejects else "no image in them"
    raise DataError(
        f"{storage.location}: {what} (max_reject_ratio = {max_ratio:g}){shown}. Rejects are listed in {REJECTS_NAME} "
        "there. Mend the tars, or raise max_reject_ratio."
    )
