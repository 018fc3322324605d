"""A local folder that stands for a remote folder of shards: small files now, each shard when it is first needed."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipelines.base.atomic import atomic_file, write_atomically
from pipelines.base.errors import DataError, UsageError
from pipelines.shards.format.locations import filesystem, remote_errors
from pipelines.shards.format.storage import Storage, storage_of

if TYPE_CHECKING:
    from pipelines.shards.format.table import Shard

__all__ = ["PRIOR_NAME", "fetch", "is_mirror", "mirror"]

MIRROR_NOTE = "mirror.json"
PRIOR_NAME = "color_prior.json"


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
    with FileLock(folder / ".lock"):  # the ranks of one machine start at once
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
    # Whoever has the lock downloads; the others, threads or processes, wait and find the file. The lock file stays:
    # were it removed, one process could hold the removed file and another a new one of that name.
    locks = folder / ".locks"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / f"{shard.name}.lock"):
        if path.exists():
            return path
        try:
            with remote_errors(url):
                system, remote = filesystem(url)
                system.get_file(remote, str(temporary))
            _check_sha256(temporary, url, shard.sha256)
            temporary.replace(path)
        except OSError as error:
            raise DataError(f"{url}: cannot fetch it ({error.strerror or error}). {_CACHE_HINT}") from error
        finally:
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
