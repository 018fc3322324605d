"""Several folders of shards into one: shards numbered anew, labels united, no sample read that need not be changed.

A shard whose labels keep their numbers is hard-linked (or copied, to another disk); one whose labels do not is written
anew with other `.cls` members, and so are all if keys get a prefix. Its images, clips and sidecars stay as they are.
"""

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.base.errors import DataError, UsageError
from pipelines.base.interrupt import sigterm_as_interrupt
from pipelines.base.machine import num_cores
from pipelines.base.progress import progress_bar
from pipelines.shards.format.index import Member, index_name
from pipelines.shards.format.manifest import MANIFEST_NAME, Manifest, ManifestWriter, Shard, load_manifest
from pipelines.shards.format.storage import Storage, storage_of
from pipelines.shards.format.tar_members import DamagedTarError
from pipelines.shards.format.tar_writer import Sample, TarWriter
from pipelines.shards.making.shard_records import RECORD_FOLDER, ShardRecord, load_record, save_record
from pipelines.shards.sources.items import safe_key
from pipelines.shards.tools.adopted_rows import in_full, renumbered
from pipelines.shards.tools.duplicate_keys import KeyCheck
from pipelines.shards.tools.shard_check import CHUNK_BYTES, SAMPLE_EXTENSIONS, on_this_machine, read_groups, sha256_of

__all__ = ["MergeSummary", "merge_shards"]

MERGE_NAME = f"{RECORD_FOLDER}/merge.json"
REJECTS_NAME = "rejects.jsonl"
RESUME_HINT = "Make room or mend it, then merge again: finished shards are kept."
How = Literal["linked", "copied", "rewritten", "reused", "adopted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSummary:
    """Counts of a merge. num_linked share bytes with old shards, num_reused were there, num_adopted lie elsewhere."""

    num_folders: int
    num_images: int
    num_clips: int
    shards: int
    num_linked: int
    num_copied: int
    num_rewritten: int
    num_reused: int
    num_adopted: int
    bytes: int
    seconds: float
    labels: tuple[str, ...]


class _Source(NamedTuple):
    """A folder to merge. label_numbers: the new number of each of its labels. prefix: goes before its keys."""

    storage: Storage
    manifest: Manifest
    label_numbers: tuple[int, ...]
    prefix: str


class _Move(NamedTuple):
    """One shard on its way. place: among the shards of its folder. shard: with its new name."""

    source: _Source
    place: int
    shard: Shard

    @property
    def old(self) -> Shard:
        return self.source.manifest.shards[self.place]

    @property
    def samples(self) -> pa.RecordBatch:
        return self.source.manifest.samples_of(self.place)

    @property
    def is_changed(self) -> bool:
        """Whether its tar must be written anew."""
        labels, numbers = np.unique(self.samples.column("label").to_numpy()), self.source.label_numbers
        return bool(self.source.prefix) or any(numbers[label : label + 1] != (label,) for label in labels if label >= 0)

    @property
    def fingerprint(self) -> str:
        facts = [self.old.sha256, self.shard.name, self.source.label_numbers, self.source.prefix]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def merge_shards(folders: Sequence[Path | str], out: Path | str, *, prefix_keys: bool = False) -> MergeSummary:
    """Merge folders (or URLs) of shards into the new folder `out`; the same folders give the same bytes.

    Shards come in the order of the folders, images first; labels are the sorted union of all. `prefix_keys`: put each
    folder's name before its keys ("photos/0001"), for folders that use the same keys; every tar is then written anew.
    Memory: 8 bytes per sample and a sample or so per core. Interrupted, the same call resumes. Raises UsageError (fewer
    than two folders, `out` holds something else, a key occurs twice) or DataError (a damaged folder, a full disk).
    """
    start_s = time.monotonic()
    sources, labels = _sources(folders, out, prefix_keys)
    _check_keys(sources)
    moves = _moves(sources)
    storage = storage_of(out)
    with storage.lock(), sigterm_as_interrupt():
        _claim(storage, sources)
        try:
            _write_rejects(storage, sources)
            shards, how = _move_all(moves, storage, labels)
        except OSError as error:
            raise DataError(f"{error.filename or out}: {error.strerror or error}. {RESUME_HINT}") from error
    return MergeSummary(
        num_folders=len(sources),
        num_images=sum(shard.num_samples for shard in shards if shard.kind == "image"),
        num_clips=sum(shard.num_samples for shard in shards if shard.kind == "clip"),
        shards=len(shards),
        num_linked=how["linked"],
        num_copied=how["copied"],
        num_rewritten=how["rewritten"],
        num_reused=how["reused"],
        num_adopted=how["adopted"],
        bytes=sum(shard.shard_bytes for shard in shards),
        seconds=time.monotonic() - start_s,
        labels=labels,
    )


def _sources(
    folders: Sequence[Path | str], out: Path | str, prefix_keys: bool
) -> tuple[list[_Source], tuple[str, ...]]:
    names = [safe_key(f"{str(folder).rstrip('/').rpartition('/')[2]}.") for folder in folders]
    if len(folders) < 2 or len(set(map(str, [*folders, out]))) <= len(folders):
        given = f"merge {', '.join(map(str, folders))} into {out}"
        raise UsageError(f"{given}: need two different folders or more, and another to put them in.")
    if prefix_keys and len(set(names)) < len(names):
        raise UsageError(f"merge with a prefix: folders are called {', '.join(names)}; need different names.")
    manifests = [load_manifest(folder) for folder in folders]
    labels = tuple(sorted(set(chain.from_iterable(manifest.labels for manifest in manifests))))
    numbers = {label: number for number, label in enumerate(labels)}
    sources = [
        _Source(
            storage=storage_of(folder),
            manifest=manifest,
            label_numbers=tuple(numbers[label] for label in manifest.labels),
            prefix=f"{name}/" if prefix_keys else "",
        )
        for folder, manifest, name in zip(folders, manifests, names, strict=True)
    ]
    return sources, labels


def _check_keys(sources: Sequence[_Source]) -> None:
    """Refuse keys that occur twice: two samples would be taken for one, or one image be in train and val."""
    parts = [(source, index) for source in sources for index in range(len(source.manifest.shards))]

    def keys_of(part: int) -> list[str]:
        source, index = parts[part]
        return [source.prefix + key for key in source.manifest.samples_of(index).column("key").to_pylist()]

    check = KeyCheck()
    for part in range(len(parts)):
        check.add(keys_of(part))
    if doubled := check.duplicates(keys_of):
        raise UsageError(
            f"{len(doubled)} keys are there more than once: {', '.join(doubled[:3])}. Merge folders of different "
            "samples, or merge with --prefix-keys to put each folder's name before its keys."
        )


def _moves(sources: Sequence[_Source]) -> list[_Move]:
    """List all shards in their new order, with their new names."""
    found = [(source, index, shard) for source in sources for index, shard in enumerate(source.manifest.shards)]
    splits = {split: place for place, split in enumerate(dict.fromkeys(shard.split for *_, shard in found))}
    found.sort(key=lambda one: (one[2].kind != "image", splits[one[2].split]))
    numbers: Counter[str] = Counter()
    moves = []
    for source, index, shard in found:
        stem = f"{shard.split}-{shard.kind}s"
        moves.append(_Move(source, index, replace(shard, name=f"{stem}-{numbers[stem]:06d}.tar")))
        numbers[stem] += 1
    return moves


def _claim(storage: Storage, sources: Sequence[_Source]) -> None:
    """Refuse a folder that holds something else than this merge, finished or not; else note that it is this one's."""
    facts = [[s.manifest.samples_sha256, [shard.sha256 for shard in s.manifest.shards], s.prefix] for s in sources]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    note = json.dumps({"sha256": digest, "folders": [str(source.storage.location) for source in sources]}).encode()
    try:
        is_same = json.loads(storage.read(MERGE_NAME))["sha256"] == digest
    except FileNotFoundError:
        is_same = not storage.names(".tar") and storage.size(MANIFEST_NAME) is None
    except (ValueError, KeyError, TypeError):
        is_same = False
    if not is_same:
        raise UsageError(f"{storage.location}: holds other shards. Merge into a new folder.")
    storage.write(MERGE_NAME, note)


def _move_all(moves: Sequence[_Move], storage: Storage, labels: Sequence[str]) -> tuple[list[Shard], Counter[How]]:
    shards, how = list[Shard](), Counter[How]()
    pool = ThreadPoolExecutor(num_cores())
    try:
        with (
            progress_bar("merging", total=sum(move.shard.num_samples for move in moves), unit="samples") as bar,
            ManifestWriter(storage, labels) as manifest,
        ):
            for shard, samples, done in pool.map(lambda move: _move(move, storage), moves):
                manifest.add(shard, samples)
                shards.append(shard)
                how[done] += 1
                bar.advance(shard.num_samples)
    finally:
        pool.shutdown(cancel_futures=True)
    return shards, how


def _move(move: _Move, storage: Storage) -> tuple[Shard, pa.RecordBatch, How]:
    if move.old.elsewhere is not None:
        _link_or_copy(move, storage, index_name(move.old.name), index_name(move.shard.name))
        rows = renumbered(move.samples, move.source.label_numbers, move.source.prefix)
        return in_full(move.shard, move.old, move.source.manifest.folder), rows, "adopted"
    if move.is_changed:
        record = load_record(storage, move.shard.name)
        if record is not None and record.fingerprint == move.fingerprint:
            return record.shard, record.samples, "reused"
        record = _rewrite(move, storage)
        save_record(storage, record)
        return record.shard, record.samples, "rewritten"
    names = [(move.old.name, move.shard.name), (index_name(move.old.name), index_name(move.shard.name))]
    if storage.size(move.shard.name) == move.shard.shard_bytes and storage.size(names[1][1]) is not None:
        return move.shard, move.samples, "reused"
    _check_there(move)
    done = {_link_or_copy(move, storage, old, new) for old, new in names}
    return move.shard, move.samples, "copied" if "copied" in done else "linked"


def _check_there(move: _Move) -> None:
    found_bytes = move.source.storage.size(move.old.name)
    if found_bytes != move.old.shard_bytes:
        raise _not_whole(move, f"{found_bytes or 'no'} bytes, the manifest says {move.old.shard_bytes}")


def _not_whole(move: _Move, what: Any) -> DataError:
    where = move.source.storage.location
    return DataError(f"{where}/{move.old.name}: {what}. See what is wrong: fourfold shards verify {where}")


def _link_or_copy(move: _Move, storage: Storage, old: str, new: str) -> How:
    """Link a file, or copy it; a link is there or not, so it needs no temporary name."""
    source, target = move.source.storage.path(old), storage.path(new)
    if source is not None and target is not None:
        target.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), target)
            return "linked"
        except OSError:
            pass  # another disk, or one without links
    digest = hashlib.sha256()
    with move.source.storage.open(old) as file, storage.writing(new) as copy:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            copy.write(chunk)
        if new == move.shard.name and digest.hexdigest() != move.shard.sha256:
            raise _not_whole(move, "sha256 differs from the manifest")
    return "copied"


def _rewrite(move: _Move, storage: Storage) -> ShardRecord:
    with on_this_machine(move.source.storage, move.old.name) as file:
        # A new sha256 over damaged bytes would make them look whole for ever.
        if sha256_of(file) != move.old.sha256:
            raise _not_whole(move, "sha256 differs from the manifest")
        with storage.writing(move.shard.name) as target:
            writer = TarWriter(target)
            for sample in _changed_samples(move, file):
                _add(writer, sample, move)
            tar = writer.finish()
    storage.write(index_name(move.shard.name), tar.index_content)
    return ShardRecord(
        name=move.shard.name,
        kind=move.shard.kind,
        split=move.shard.split,
        fingerprint=move.fingerprint,
        num_samples=move.shard.num_samples,
        shard_bytes=tar.num_bytes,
        sha256=tar.sha256,
        is_final=True,
        rejects=(),
        dropped={},
        samples=tar.samples,
    )


def _add(writer: TarWriter, sample: Sample, move: _Move) -> None:
    try:
        writer.add(sample)
    except ValueError as error:
        location = move.source.storage.location
        raise DataError(f"{location}: {error}. Give the folder a shorter name, or merge without a prefix.") from error


def _changed_samples(move: _Move, file: BinaryIO) -> Iterator[Sample]:
    """Yield the samples of a shard with their new labels and keys. Raises DataError if tar and manifest differ."""

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    rows = move.samples.to_pylist()
    try:
        groups = read_groups(file)
        if [key for key, _ in groups] != [row["key"] for row in rows]:
            raise ValueError("its samples are not those of the manifest")
        for row, (_, members) in zip(rows, groups, strict=True):
            yield _changed(move, row, members, read)
    except (DamagedTarError, ValueError) as error:
        raise _not_whole(move, error) from error


def _changed(move: _Move, row: dict[str, Any], members: Sequence[Member], read: Callable[[int, int], bytes]) -> Sample:
    if row["label"] >= len(move.source.label_numbers):
        raise ValueError(f"sample {row['key']} has label {row['label']} of {len(move.source.label_numbers)}")
    label = move.source.label_numbers[row["label"]] if row["label"] >= 0 else -1
    contents = [
        (extension, b"%d" % label if extension == "cls" else read(offset, size))
        for extension, offset, size, _ in members
    ]
    # The writer takes the first member for the image or clip.
    contents.sort(key=lambda member: member[0] not in SAMPLE_EXTENSIONS[move.shard.kind])
    facts = {name: row[name] for name in ("width", "height", "num_frames", "fps")}
    return Sample(key=move.source.prefix + row["key"], members=contents, label=label, **facts)


def _write_rejects(storage: Storage, sources: Sequence[_Source]) -> None:
    """Write the rejects of all folders, for `shards info` to count."""
    found = [source for source in sources if source.storage.size(REJECTS_NAME)]
    if found:
        with storage.writing(REJECTS_NAME) as target:
            for source in found:
                with source.storage.open(REJECTS_NAME) as file:
                    shutil.copyfileobj(file, target, CHUNK_BYTES)
