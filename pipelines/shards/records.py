"""Records of finished shards, `.build/<shard>.json`: what a shard was made of, so that a later build can keep it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.atomic import write_atomically
from pipelines.shards.index import index_path
from pipelines.shards.manifest import Shard, shard_from_json, shard_to_json
from pipelines.shards.samples import Position, Reject
from pipelines.shards.sources import SourceFile

__all__ = ["RECORD_FOLDER", "ShardRecord", "fingerprint", "load_record", "remove_stale", "save_record"]

RECORD_FOLDER = ".build"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """A finished shard, the position after it, and the files rejected on the way."""

    shard: Shard
    end: Position
    rejects: tuple[Reject, ...]


def fingerprint(settings: Mapping[str, Any], files: Sequence[SourceFile], start: Position, end: Position) -> str:
    """Hash of all that decides a shard's bytes: the settings, and the files from `start` to `end`."""
    read = files[start.file_index : end.file_index + 1]
    rows = [[f.source, f.key, f.label, f.file_bytes, f.modified_ns] for f in read]
    is_last = end.file_index >= len(files)
    content = json.dumps([settings, start, end, is_last, rows], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def save_record(folder: Path, record: ShardRecord, mark: str) -> None:
    content = {
        "fingerprint": mark,
        "end": list(record.end),
        "rejects": [asdict(reject) for reject in record.rejects],
        "shard": shard_to_json(record.shard),
    }
    write_atomically(_record_path(folder, record.shard.name), json.dumps(content).encode())


def load_record(
    folder: Path, name: str, settings: Mapping[str, Any], files: Sequence[SourceFile], start: Position
) -> ShardRecord | None:
    """The record of a shard that is there, whole, and made of just these files; else None."""
    tar = folder / name
    try:
        content = json.loads(_record_path(folder, name).read_text(encoding="utf-8"))
        end = Position(*content["end"])
        record = ShardRecord(
            shard=shard_from_json(content["shard"]),
            end=end,
            rejects=tuple(Reject(**reject) for reject in content["rejects"]),
        )
        is_same = content["fingerprint"] == fingerprint(settings, files, start, end)
        is_whole = tar.stat().st_size == record.shard.shard_bytes and index_path(tar).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if is_same and is_whole else None


def remove_stale(folder: Path, keep: Sequence[Shard]) -> None:
    """Delete shards that an earlier build left here and this one has no use for. Files of others stay."""
    names = {shard.name for shard in keep}
    for path in (folder / RECORD_FOLDER).glob("*-*s-*.json"):
        name = f"{path.stem}.tar"
        if name not in names:
            (folder / name).unlink(missing_ok=True)
            index_path(folder / name).unlink(missing_ok=True)
            path.unlink()


def _record_path(folder: Path, name: str) -> Path:
    return folder / RECORD_FOLDER / f"{Path(name).stem}.json"
