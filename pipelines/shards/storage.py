"""Where shards are: a local folder, or a URL that fsspec opens (s3://, gs://, memory://; http:// to read only).

A `Storage` publishes files whole or not at all. A remote folder of shards is read through a `mirror`: a local
folder into which its manifest is copied, and each of its shards when it is first needed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines.atomic import atomic_file, write_atomically
from pipelines.errors import DataError, UsageError
from pipelines.shards.locations import Location, as_location, filesystem, is_remote, open_binary, remote_errors

if TYPE_CHECKING:
    from pipelines.shards.table import Shard

__all__ = [
    "PRIOR_NAME",
    "Location",
    "Storage",
    "as_location",
    "fetch",
    "is_mirror",
    "is_remote",
    "mirror",
    "storage_of",
]

RECORD_FOLDER = ".build"
MIRROR_NOTE = "mirror.json"
PRIOR_NAME = "color_prior.json"
READ_ONLY_PROTOCOLS = ("http", "https")


def storage_of(location: Path | str) -> "Storage":
    """The storage at a local path or URL. Touches nothing yet; raises UsageError for a URL that fsspec cannot open."""
    if is_remote(location):
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
        """A file to write; it is there, whole, when the block ends, and nothing is if the block raises.

        sync_name False: a power cut may still take the whole file away, until another of its folder is written.
        """

    def write(self, name: str, content: bytes, *, sync_name: bool = True) -> None:
        """A whole file at once."""
        with self.writing(name, sync_name=sync_name) as file:
            file.write(content)

    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        with self.open(name) as file:
            return file.read()

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A file to read, seekable."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""

    @abstractmethod
    def names(self, suffix: str) -> list[str]:
        """Files that end with `suffix`, sorted: "a.tar", and ".build/a.json" for those in `.build`."""

    @abstractmethod
    def path(self, name: str) -> Path | None:
        """Where a file is on this machine; None if it is elsewhere."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """One build at a time, inside the block. Raises UsageError if another has the folder."""


@dataclass(frozen=True, slots=True)
class LocalStorage(Storage):
    """A folder of this machine (or of a network disk). Written as `.NAME.PID.tmp`, synced, then renamed."""

    location: Path

    def make(self) -> None:
        try:
            (self.location / RECORD_FOLDER).mkdir(parents=True, exist_ok=True)
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
        self.make()
        records = self.location / RECORD_FOLDER
        with (records / "lock").open("w") as file:
            if not _has_lock(file):
                raise UsageError(
                    f"{self.location}: another build is writing there. Wait for it, or give another folder."
                )
            self._remove_leftovers()  # of a build that was killed
            try:
                yield
            finally:
                self._remove_leftovers()  # of workers that were lost

    def _remove_leftovers(self) -> None:
        for left in [*self.location.glob(".*.tmp"), *(self.location / RECORD_FOLDER).glob(".*.tmp")]:
            left.unlink(missing_ok=True)


def _has_lock(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class RemoteStorage(Storage):
    """A prefix of an object store. Such a store shows an object when all of it has arrived, never a part of it.

    There is no lock: two builds to one URL at a time write over each other. Their shards are the same if their
    sources and settings are; if not, `shards verify` finds it.
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


def mirror(url: str) -> Path:
    """A local folder that stands for a remote folder of shards: its manifest and counted colors now, its shards when
    `fetch` is asked.

    It lies in $FOURFOLD_CACHE (default ~/.cache/fourfold), and grows to the size of the shards that are read.
    Raises UsageError if there are no shards at the URL, DataError if they cannot be fetched.
    """
    url = url.rstrip("/")
    name = f"{url.rpartition('/')[2] or 'shards'}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    folder = Path(os.environ.get("FOURFOLD_CACHE") or Path.home() / ".cache" / "fourfold") / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the ranks of one machine start at once
        try:
            _refresh(folder, storage_of(url))
            _refresh_colors(folder, storage_of(url))
        except FileNotFoundError as error:
            raise UsageError(
                f"{url}: not a folder of shards (no {error.filename}). Build one: fourfold shards build SRC --out {url}"
            ) from error
        except OSError as error:
            raise DataError(f"{url}: cannot fetch it ({error.strerror or error}). {_CACHE_HINT}") from error
    return folder


_CACHE_HINT = "Check the address, the credentials, and the room in $FOURFOLD_CACHE (default ~/.cache/fourfold)."


def is_mirror(folder: Path) -> bool:
    return (folder / MIRROR_NOTE).is_file()


def _refresh(folder: Path, storage: Storage) -> None:
    """Copy the manifest again if it changed, and drop the shards that are no longer what they were."""
    manifest, copy = storage.read("manifest.json"), folder / "manifest.json"
    before = copy.read_bytes() if copy.is_file() else b""
    if manifest == before and (folder / "samples.arrow").is_file():
        return
    kept = _checksums(manifest).items() & _checksums(before).items()
    for path in folder.glob("*.tar"):
        if path.name not in {name for name, _ in kept}:
            path.unlink()
    with storage.open("samples.arrow") as source, atomic_file(folder / "samples.arrow") as target:
        shutil.copyfileobj(source, target, 2**22)
    write_atomically(folder / MIRROR_NOTE, json.dumps({"url": str(storage.location)}).encode())
    write_atomically(copy, manifest)


def _refresh_colors(folder: Path, storage: Storage) -> None:
    """Copy what `shards stats` counted, which comes after the build and may change without the manifest."""
    copy = folder / PRIOR_NAME
    try:
        counted = storage.read(PRIOR_NAME)
    except (FileNotFoundError, PermissionError):  # how some object stores answer for a name that does not exist
        copy.unlink(missing_ok=True)
        return
    if not copy.is_file() or copy.read_bytes() != counted:
        write_atomically(copy, counted)


def _checksums(manifest: bytes) -> dict[str, str]:
    try:
        return {str(shard["name"]): str(shard["sha256"]) for shard in json.loads(manifest)["shards"]}
    except (ValueError, KeyError, TypeError):
        return {}


def fetch(folder: Path, shard: "Shard") -> Path:
    """The tar of a shard on this machine; in a mirror it is downloaded when it is missing, and its sha256 checked.

    Raises DataError if the download fails or has other bytes than the manifest says.
    """
    path = folder / shard.name
    if path.exists() or not is_mirror(folder):
        return path
    temporary = folder / f".{shard.name}.tmp"
    url = f"{json.loads((folder / MIRROR_NOTE).read_bytes())['url']}/{shard.name}"
    # Whoever has the lock downloads; the others, threads or processes, wait and find the file.
    with temporary.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not path.exists():
            try:
                with remote_errors(url):
                    system, remote = filesystem(url)
                    system.get_file(remote, str(temporary))
            except OSError as error:
                raise DataError(f"{url}: cannot fetch it ({error.strerror or error}). {_CACHE_HINT}") from error
            _check_sha256(temporary, url, shard.sha256)
            temporary.replace(path)
        # Opened after another had published the shard, it is a new file, and empty.
        temporary.unlink(missing_ok=True)
    return path


def _check_sha256(path: Path, url: str, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise DataError(
            f"{url}: sha256 {found}, the manifest says {expected}; it was damaged or replaced. "
            "Start again if the shards were rebuilt meanwhile; else build them again."
        )
