"""Is a folder of shards what its manifest says? Every byte is read once; the answer is a list of problems."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.errors import DataError
from pipelines.machine import num_cores
from pipelines.progress import progress_bar
from pipelines.shards.index import index_path, index_text, read_index
from pipelines.shards.manifest import Shard, load_manifest

__all__ = ["verify_shards"]

SAMPLE_EXTENSIONS = {"image": frozenset({"jpg", "png", "webp"}), "clip": frozenset({"mp4"})}


def verify_shards(folder: Path) -> list[str]:
    """One line per problem, each with the shard's name first; an empty list if all is well.

    Checks that every shard is there with its size and sha256, that its .idx fits it, that the manifest's keys,
    offsets and sizes are those of the tar, and that no other shard lies beside them.
    Raises UsageError or DataError if there is no readable manifest.
    """
    manifest = load_manifest(folder)
    with (
        ThreadPoolExecutor(num_cores()) as pool,
        progress_bar("verifying", total=len(manifest.shards), unit="shards") as bar,
    ):
        problems: list[str] = []
        for found in pool.map(lambda shard: list(_shard_problems(folder, shard)), manifest.shards):
            problems += found
            bar.advance()
    seen = [key for shard in manifest.shards for key in shard.keys]
    if len(set(seen)) != len(seen):
        problems.append(f"{folder}: {len(seen) - len(set(seen))} keys are there more than once")
    known = {shard.name for shard in manifest.shards}
    others = sorted(path.name for path in folder.glob("*.tar") if path.name not in known)
    return problems + [
        f"{name}: not in the manifest; another build left it, or copying mixed folders" for name in others
    ]


def _shard_problems(folder: Path, shard: Shard) -> Iterator[str]:
    path = folder / shard.name
    if not path.is_file():
        yield f"{shard.name}: missing; copy it here again, or run the build again"
        return
    shard_bytes = path.stat().st_size
    if shard_bytes != shard.shard_bytes:
        yield f"{shard.name}: {shard_bytes} bytes, the manifest says {shard.shard_bytes}; it was cut off or changed"
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
            yield f"{shard.name}: sha256 differs from the manifest; its bytes were changed or damaged"
            return
    yield from _index_problems(path, shard)


def _index_problems(path: Path, shard: Shard) -> Iterator[str]:
    index = index_path(path)
    if not index.is_file():
        yield f"{shard.name}: its index {index.name} is missing; run the build again"
        return
    try:
        if index.read_text(encoding="utf-8") != index_text(path):
            yield f"{shard.name}: {index.name} does not fit the tar; run the build again"
            return
        samples = read_index(index)
    except (DataError, OSError, UnicodeDecodeError) as error:
        yield f"{shard.name}: {error}"
        return
    if len(samples) != shard.num_samples:
        yield f"{shard.name}: {len(samples)} samples, the manifest says {shard.num_samples}"
        return
    rows = zip(shard.keys, shard.columns["offset"].tolist(), shard.columns["size"].tolist(), strict=True)
    for (key, offset, size), members in zip(rows, samples, strict=True):
        extensions = SAMPLE_EXTENSIONS[shard.kind]
        if not any(
            extension in extensions and (at, length, name) == (offset, size, f"{key}.{extension}")
            for extension, at, length, name in members
        ):
            yield f"{shard.name}: sample {key} is not where the manifest says"
