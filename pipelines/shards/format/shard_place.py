"""Places of shards' tars on this machine, and how they get there: in their folder, elsewhere, or behind a URL.

built here                     FOLDER/NAME
adopted, on this machine       the path that the manifest names, used where it lies
of a remote folder (mirror)    MIRROR/NAME, downloaded from the folder's URL
adopted, behind a URL          $FOURFOLD_CACHE/tars-.../NAME, downloaded from there
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pipelines.base.errors import DataError
from pipelines.shards.format.locations import filesystem, is_remote, remote_errors
from pipelines.shards.format.mirror import CACHE_HINT, cache_folder, mirrored_url
from pipelines.shards.format.table import Shard

__all__ = ["ADOPT_AGAIN", "ShardPlace", "check_whole", "fetch", "shard_place", "shard_places"]

ADOPT_AGAIN = "Adopt it again: fourfold shards adopt TARS --out DIR reads again only what changed."


class ShardPlace(NamedTuple):
    """path: where the tar is, or will be once it is fetched. url: where it comes from; None if it is there already."""

    path: Path
    url: str | None


def shard_place(folder: Path, shard: Shard) -> ShardPlace:
    """Return the place of one shard of a folder. A name or location that is an absolute path stays as it is."""
    return shard_places(folder, [shard])[0]


def shard_places(folder: Path, shards: Sequence[Shard]) -> list[ShardPlace]:
    """Return the places of some shards of a folder, in order."""
    # Thousands of shards have a few folders, and each look for a mirror's note is a call to the system.
    url_of = cache(mirrored_url)
    places = []
    for shard in shards:
        location = shard.name if shard.elsewhere is None else shard.elsewhere.location
        if is_remote(location):
            places.append(ShardPlace(_cached(location), location))
            continue
        path = folder / location
        # A joined table has no folder; its shards are named in full.
        is_inside = folder != Path() and not Path(location).is_absolute()
        url = url_of(folder if is_inside else path.parent)
        inside = location if is_inside else path.name
        places.append(ShardPlace(path, None if url is None else f"{url}/{inside}"))
    return places


def _cached(url: str) -> Path:
    """Return the path of a remote tar's copy; tars of one name from different URLs have different ones."""
    # The readable name and a hash: names alone collide, a hash alone does not show what fills the cache.
    name = unquote(urlsplit(url).path).rpartition("/")[2].removesuffix(".tar") or "shard"
    digest = hashlib.sha256(url.encode()).hexdigest()
    return (
        cache_folder()
        / f"tars-{hashlib.sha256(url.rpartition('/')[0].encode()).hexdigest()[:12]}"
        / (f"{name[:100]}-{digest[:8]}.tar")
    )


def check_whole(path: Path, shard: Shard, *, is_copy: bool = False) -> None:
    """Raise DataError if a tar on this machine is missing, or of another size or time than the manifest says.

    `is_copy`: it was downloaded, so that its time says nothing.
    """
    fix = "Restore it or build again." if shard.elsewhere is None else ADOPT_AGAIN
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot read this shard ({error.strerror}). {fix}") from error
    # Size and time, and no hash: every open of a pipeline checks all of its shards.
    if facts.st_size != shard.shard_bytes:
        fix = "Copy it again or build the shards again." if shard.elsewhere is None else ADOPT_AGAIN
        raise DataError(f"{path}: {facts.st_size} bytes, the manifest says {shard.shard_bytes}. {fix}")
    if shard.elsewhere is not None and not is_copy and facts.st_mtime_ns != shard.elsewhere.modified_ns:
        raise DataError(f"{path}: it was changed or replaced after it was adopted (its time differs). {ADOPT_AGAIN}")


def fetch(folder: Path, shard: Shard) -> Path:
    """Return the path of a shard's tar; a remote one is downloaded if it is not there yet, and its sha256 checked.

    Raises DataError if the download fails or has other bytes than the manifest says.
    """
    from filelock import FileLock  # commands that never download should not wait for the import

    path, url = shard_place(folder, shard)
    if url is None or path.exists():
        return path
    temporary, locks = path.parent / f".{path.name}.tmp", path.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    # Whoever has the lock downloads; the others, threads or processes, wait and find the file. The lock file stays:
    # were it removed, one process could hold the removed file and another a new one of that name.
    with FileLock(locks / f"{path.name}.lock"):
        if path.exists():
            return path
        try:
            with remote_errors(url):
                system, remote = filesystem(url)
                system.get_file(remote, str(temporary))
            # Before it gets its name: a tar under its final name is never checked again.
            _check_sha256(temporary, url, shard)
            temporary.replace(path)
        except OSError as error:
            raise DataError(f"{url}: cannot fetch it ({error.strerror or error}). {CACHE_HINT}") from error
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _check_sha256(path: Path, url: str, shard: Shard) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != shard.sha256:
        fix = ADOPT_AGAIN
        if shard.elsewhere is None:
            fix = "Start again if the shards were rebuilt meanwhile; else build them again."
        raise DataError(f"{url}: sha256 {found}, the manifest says {shard.sha256}; it was damaged or replaced. {fix}")
