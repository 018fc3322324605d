"""A local folder that stands for a remote one: small files at once, shards when `shard_place` fetches them."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from pipelines.base.atomic import atomic_file, write_atomically
from pipelines.base.errors import DataError, UsageError
from pipelines.shards.format.storage import Storage, storage_of

__all__ = ["CACHE_HINT", "PRIOR_NAME", "cache_folder", "is_mirror", "mirror", "mirrored_url"]

MIRROR_NOTE = "mirror.json"
PRIOR_NAME = "color_prior.json"


def mirror(url: str) -> Path:
    """Make or refresh the local folder that stands for a remote one: its manifest and counted colors, not its shards.

    It lies in $FOURFOLD_CACHE (default ~/.cache/fourfold), and grows to the size of the shards that are read.
    Raises UsageError if there are no shards at the URL, DataError if they cannot be fetched.
    """
    from filelock import FileLock  # commands on local shards should not wait for the import

    url = url.rstrip("/")
    name = f"{url.rpartition('/')[2] or 'shards'}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    folder = cache_folder() / name
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
            raise DataError(f"{url}: cannot fetch it ({error.strerror or error}). {CACHE_HINT}") from error
    return folder


CACHE_HINT = "Check the address, the credentials, and the room in $FOURFOLD_CACHE (default ~/.cache/fourfold)."


def cache_folder() -> Path:
    """Return the folder for copies of remote files: $FOURFOLD_CACHE, or ~/.cache/fourfold."""
    return Path(os.environ.get("FOURFOLD_CACHE") or Path.home() / ".cache" / "fourfold")


def is_mirror(folder: Path) -> bool:
    """Return whether a folder stands for a remote one."""
    return (folder / MIRROR_NOTE).is_file()


def mirrored_url(folder: Path) -> str | None:
    """Return the URL of the remote folder that a folder stands for; None if it stands for none."""
    if not is_mirror(folder):
        return None
    return str(json.loads((folder / MIRROR_NOTE).read_bytes())["url"])


def _refresh(folder: Path, storage: Storage) -> None:
    """Copy the manifest again if it changed, and drop the shards that are no longer what they were."""
    manifest, copy = storage.read("manifest.json"), folder / "manifest.json"
    before = copy.read_bytes() if copy.is_file() else b""
    if manifest == before and (folder / "samples.arrow").is_file():
        return
    # Name and content: a rebuilt shard of the same name must be fetched again.
    kept = _checksums(manifest).items() & _checksums(before).items()
    for path in folder.glob("*.tar"):
        if path.name not in {name for name, _ in kept}:
            path.unlink()
    # The manifest last: with it, the folder is what it says. Killed before, the next call copies again.
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
