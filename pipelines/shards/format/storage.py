"""Storage of shards: a local folder, or a URL that fsspec opens (s3://, gs://, memory://; http:// to read only).

A `Storage` publishes files whole or not at all.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.base.atomic import atomic_file
from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import Location, as_location, filesystem, is_remote, open_binary, remote_errors

__all__ = [
    "Location",
    "Storage",
    "as_location",
    "is_remote",
    "storage_of",
]

RECORD_FOLDER = ".build"
READ_ONLY_PROTOCOLS = ("http", "https")


def storage_of(location: Path | str) -> "Storage":
    """Return the storage at a path or URL. Touches nothing; raises UsageError for a URL that fsspec cannot open."""
    if is_remote(location):
        # Opened once for its errors alone: an unknown protocol should not come up after minutes of work.
        filesystem(str(location))
        return RemoteStorage(str(location).rstrip("/"))
    return LocalStorage(as_location(location))


class Storage(ABC):
    """A flat folder of files, and `.build/` in it. Can be pickled, so that workers elsewhere write to it too.

    All methods raise OSError when the disk or the other side fails; FileNotFoundError where a file is missing.
    """

    location: Path | str

    @abstractmethod
    def make(self) -> None:
        """Create the folder. Raises UsageError if it cannot be written to."""

    @abstractmethod
    def writing(self, name: str, *, sync_name: bool = True) -> AbstractContextManager[BinaryIO]:
        """Open a file to write; it is there, whole, when the block ends, and nothing is if the block raises.

        sync_name False: a power cut may still take the whole file away, until another of its folder is written.
        """

    def write(self, name: str, content: bytes, *, sync_name: bool = True) -> None:
        """Write a whole file at once."""
        with self.writing(name, sync_name=sync_name) as file:
            file.write(content)

    def read(self, name: str) -> bytes:
        """Read all bytes of a file."""
        with self.open(name) as file:
            return file.read()

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a file to read, seekable."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None if it is not there."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""

    @abstractmethod
    def names(self, suffix: str) -> list[str]:
        """List files that end with `suffix`, sorted: "a.tar", and ".build/a.json" for those in `.build`."""

    @abstractmethod
    def path(self, name: str) -> Path | None:
        """Return the path of a file on this machine; None if it is elsewhere."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Keep other builds out of the folder, inside the block. Raises UsageError if one has it."""


@dataclass(frozen=True, slots=True)
class LocalStorage(Storage):
    """A folder of this machine (or of a network disk). Written as `.NAME.PID.tmp`, synced, then renamed."""

    location: Path

    def make(self) -> None:
        try:
            (self.location / RECORD_FOLDER).mkdir(parents=True, exist_ok=True)
            # Permissions do not tell everything: a read-only or full disk shows when a file is made.
            with tempfile.TemporaryFile(dir=self.location):
                pass
        except OSError as error:
            reason = f"cannot write there ({error.strerror})"
            raise UsageError(f"{self.location}: {reason}. Give --out a folder you may write to.") from error

    def writing(self, name: str, *, sync_name: bool = True) -> AbstractContextManager[BinaryIO]:
        return atomic_file(self.location / name, sync_name=sync_name)

    def open(self, name: str) -> BinaryIO:
        return (self.location / name).open("rb")

    def size(self, name: str) -> int | None:
        try:
            return os.stat(self.location / name).st_size
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        (self.location / name).unlink(missing_ok=True)

    def names(self, suffix: str) -> list[str]:
        found = []
        for prefix in ("", f"{RECORD_FOLDER}/"):
            try:
                with os.scandir(self.location / prefix) as entries:
                    found += [prefix + entry.name for entry in entries if entry.name.endswith(suffix)]
            except FileNotFoundError:
                continue
        return sorted(name for name in found if name != RECORD_FOLDER)

    def path(self, name: str) -> Path | None:
        return self.location / name

    @contextmanager
    def lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout  # worker processes take no lock, and would wait for the import

        self.make()
        try:
            # The kernel releases it when this process dies, however it dies.
            held = FileLock(self.location / RECORD_FOLDER / "lock").acquire(blocking=False)
        except Timeout as error:
            raise UsageError(
                f"{self.location}: another build is writing there. Wait for it, or give another folder."
            ) from error
        with held:
            self._remove_leftovers()  # of a build that was killed
            try:
                yield
            finally:
                self._remove_leftovers()  # of workers that were lost

    def _remove_leftovers(self) -> None:
        for left in [*self.location.glob(".*.tmp"), *(self.location / RECORD_FOLDER).glob(".*.tmp")]:
            left.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class RemoteStorage(Storage):
    """A prefix of an object store. Such a store shows an object when all of it has arrived, never a part of it.

    There is no lock, because object stores have none in common: two builds to one URL at a time write over each other.
    Their shards are the same if their sources and settings are; if not, `shards verify` finds it.
    """

    location: str

    def make(self) -> None:
        protocol = self.location.partition("://")[0]
        if protocol in READ_ONLY_PROTOCOLS:
            raise UsageError(f"{self.location}: {protocol} can only be read. Give --out a folder, s3:// or gs:// URL.")
        try:
            self.write(f"{RECORD_FOLDER}/writable", b"")
            self.remove(f"{RECORD_FOLDER}/writable")
        except OSError as error:
            reason = f"cannot write there ({error.strerror or error})"
            raise UsageError(f"{self.location}: {reason}. Check that it exists, and the credentials.") from error

    def write(self, name: str, content: bytes, *, sync_name: bool = True) -> None:
        with remote_errors(self._url(name)):
            system, path = filesystem(self._url(name))
            system.pipe_file(path, content)

    @contextmanager
    def writing(self, name: str, *, sync_name: bool = True) -> Iterator[BinaryIO]:
        # A stream that breaks must not be closed as if it were whole, hence the detour over the local disk.
        with tempfile.NamedTemporaryFile(prefix="fourfold-") as file:
            yield file  # type: ignore[misc]
            file.flush()
            with remote_errors(self._url(name)):
                system, path = filesystem(self._url(name))
                system.put_file(file.name, path)

    def read(self, name: str) -> bytes:
        with remote_errors(self._url(name)):
            system, path = filesystem(self._url(name))
            content: bytes = system.cat_file(path)
            return content

    def open(self, name: str) -> BinaryIO:
        return open_binary(self._url(name))

    def size(self, name: str) -> int | None:
        try:
            with remote_errors(self._url(name)):
                system, path = filesystem(self._url(name))
                facts = system.info(path)
        except FileNotFoundError:
            return None
        # Some stores list a folder as an object, too.
        return int(facts["size"]) if facts["type"] == "file" else None

    def remove(self, name: str) -> None:
        try:
            with remote_errors(self._url(name)):
                system, path = filesystem(self._url(name))
                system.rm_file(path)
        except FileNotFoundError:
            pass

    def names(self, suffix: str) -> list[str]:
        found = []
        for prefix in ("", f"{RECORD_FOLDER}/"):
            try:
                with remote_errors(self.location):
                    system, path = filesystem(f"{self.location}/{prefix}")
                    listed = system.ls(path.rstrip("/"), detail=True)
            except FileNotFoundError:
                continue
            files = [facts["name"].rpartition("/")[2] for facts in listed if facts["type"] == "file"]
            found += [prefix + name for name in files if name and name.endswith(suffix)]
        return sorted(found)

    def path(self, name: str) -> Path | None:
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        self.make()
        yield

    def _url(self, name: str) -> str:
        return f"{self.location}/{name}"
