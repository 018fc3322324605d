"""DALI's index beside each tar: `train-images-000000.idx` lists where every member of every sample is.

Text, format v1.2 of DALI's `wds2idx`: a line "v1.2 N", then one line per sample of "extension offset size name"
groups, offset and size in bytes. With it `fn.readers.webdataset` opens a shard without scanning it.
"""

import tarfile
from pathlib import Path

from pipelines.atomic import write_atomically
from pipelines.errors import DataError

__all__ = ["index_path", "index_text", "read_index", "write_index"]

VERSION = "v1.2"
Member = tuple[str, int, int, str]


def index_path(tar: Path) -> Path:
    return tar.with_suffix(".idx")


def write_index(tar: Path) -> Path:
    """Write the index of a tar beside it, whole or not at all. Raises DataError if the tar is damaged."""
    path = index_path(tar)
    write_atomically(path, index_text(tar).encode())
    return path


def index_text(tar: Path) -> str:
    """The index of a tar, from its headers. Raises DataError."""
    samples: dict[str, list[Member]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                folder, slash, name = info.name.rpartition("/")
                stem, _, extension = name.partition(".")
                member = (extension, info.offset_data, info.size, info.name)
                samples.setdefault(folder + slash + stem, []).append(member)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{tar}: not a readable tar ({error}). Build the shards again.") from error
    lines = [" ".join(f"{e} {offset} {size} {name}" for e, offset, size, name in one) for one in samples.values()]
    return "\n".join([f"{VERSION} {len(samples)}", *lines, ""])


def read_index(path: Path) -> list[list[Member]]:
    """Members (extension, offset, size, name) of every sample. Raises DataError if the file is damaged."""
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        version, num_samples = header.split()
        if version != VERSION or int(num_samples) != len(lines):
            raise ValueError(f"header {header!r} over {len(lines)} samples")
        return [_members(line.split(" ")) for line in lines]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable DALI index ({error}). Build the shards again.") from error


def _members(words: list[str]) -> list[Member]:
    if len(words) % 4:
        raise ValueError(f"{len(words)} words in a line; need groups of 4")
    groups = zip(words[0::4], words[1::4], words[2::4], words[3::4], strict=True)
    return [(extension, int(offset), int(size), name) for extension, offset, size, name in groups]
