"""Write files atomically: under a temporary name, synced, then renamed. A file under its final name is complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_file", "write_atomically"]


@contextmanager
def atomic_file(path: Path, *, sync_name: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file to write. It is renamed to `path` when the block ends, and deleted if the block raises.

    sync_name False leaves syncing the folder to the next file that does: a power cut before that may undo the rename.
    A file named `path` is complete in any case.
    """
    # The process id, so that two processes that write the same file do not write into each other's.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            # The order: 1. bytes on the disk, 2. the name, 3. the folder's list of names. After a power cut a file that
            # was renamed before it was synced can be empty.
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        if sync_name:
            _sync_folder(path.parent)
    except BaseException:  # Ctrl-C, too, must leave no temporary file
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file at once."""
    with atomic_file(path) as file:
        file.write(content)


def _sync_folder(folder: Path) -> None:
    """Sync a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
