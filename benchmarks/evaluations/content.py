"""Content of data as a sha256: what the keys of records and of kept features are made of.

Moving or copying data changes no key; changing it does.
"""

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import MANIFEST_NAME, Kind, Manifest, load_manifest

__all__ = ["file_content", "folder_content", "split_content", "text_content"]

HEAD_BYTES = 64 * 2**10


def split_content(folder: Path, kind: Kind, split: str) -> str:
    """Return the sha256 of the sha256s of all shards of one kind and split, in order."""
    path = folder / MANIFEST_NAME
    # With its time of change: a folder that was built again under the same name must be read again.
    manifest = _manifest_at(folder, path.stat().st_mtime_ns if path.is_file() else 0)
    table = manifest.select(kind, split)
    return text_content("\n".join(shard.sha256 for shard in table.shards))


def file_content(path: Path) -> str:
    """Return the sha256 of a file's bytes. Raises UsageError where there is none."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file.")
    state = path.stat()
    return _file_at(path, state.st_size, state.st_mtime_ns)


def folder_content(folder: Path) -> str:
    """Return a sha256 over all files below a folder: relative name, size and first 64 KiB of each.

    Links to folders are followed. Not all bytes: a data set of 100 GB would take minutes. Raises UsageError where there
    is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder.")
    total = hashlib.sha256()
    for path in sorted(_files_below(folder)):
        total.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            total.update(hashlib.sha256(file.read(HEAD_BYTES)).digest())
    return total.hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield all files, those behind links too. A folder that links reach again is entered once, so that loops end."""
    entered = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        if here.resolve() in entered:
            folders.clear()
            continue
        entered.add(here.resolve())
        # In order: which of two ways to a folder is the first must not depend on the disk.
        folders.sort()
        yield from (path for name in names if (path := here / name).is_file())


def text_content(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=8)
def _manifest_at(folder: Path, modified_ns: int) -> Manifest:
    """Read a manifest once per change: every cell needs it, and a large one takes seconds."""
    return load_manifest(folder)


@lru_cache(maxsize=64)
def _file_at(path: Path, size_bytes: int, modified_ns: int) -> str:
    """Read a file once per change: every evaluation of a trunk asks for the same weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
