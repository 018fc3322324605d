"""DALI's index beside each tar: `train-images-000000.idx` lists where every member of every sample is.

Text, format v1.2 of DALI's `wds2idx`: a line "v1.2 N", then one line per sample of "extension offset size name"
groups, offset and size in bytes. With it `fn.readers.webdataset` opens a shard without scanning it.
A build writes it from what it knows (`tar_writer.py`); here it is read.
"""

from pathlib import Path

from pipelines.base.errors import DataError

__all__ = ["VERSION", "Member", "index_name", "index_path", "parse_index", "read_index"]

VERSION = "v1.2"
Member = tuple[str, int, int, str]
"""Extension, offset, size, name."""


def index_name(tar_name: str) -> str:
    return f"{tar_name.removesuffix('.tar')}.idx"


def index_path(tar: Path) -> Path:
    return tar.with_suffix(".idx")


def read_index(path: Path) -> list[list[Member]]:
    """Read the members of every sample. Raises DataError if the file is damaged."""
    try:
        return parse_index(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable DALI index ({error}). Build the shards again.") from error


def parse_index(content: bytes) -> list[list[Member]]:
    """Return the members of every sample of an index's content. Raises ValueError."""
    # A line break ends the last line, so that a rest means an index which was cut off.
    header, *lines, rest = content.decode("utf-8").split("\n")
    if rest or header != f"{VERSION} {len(lines)}":
        raise ValueError(f"header {header[:40]!r} over {len(lines)} samples")
    return [_members(line.split(" ")) for line in lines]


def _members(words: list[str]) -> list[Member]:
    if len(words) % 4:
        raise ValueError(f"{len(words)} words in a line; need groups of 4")
    groups = zip(words[0::4], words[1::4], words[2::4], words[3::4], strict=True)
    return [(extension, _number(offset), _number(size), name) for extension, offset, size, name in groups]


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 20):
        raise ValueError(f"{word[:40]!r} is no number of bytes")
    return int(word)
