"""Tars that a user names (as tars, folders, patterns or URLs) as a list, each with its name and split.

A split comes from the names that datasets use: imagenet1k-train-0000.tar, val/00012.tar. It counts only if every tar
has one.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import filesystem, is_remote, remote_errors

__all__ = ["ListedTar", "list_tars"]

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,31}")
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MAX_RANGE = 1_000_000
MAX_STEM = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTar:
    """location: an absolute path or a URL. name: the tar's own file name, made unique among all.

    split: None if neither the user nor the names say one, so that the folders in the tar may.
    """

    location: str
    name: str
    split: str | None


def list_tars(given: Sequence[str | Path], split: str = "auto") -> list[ListedTar]:
    """List all tars that are named, in order; those of a folder or pattern sorted by name.

    `split`: "auto", or the split of all of them. Raises UsageError if something names no tar, or a tar is named twice.
    """
    if split != "auto" and not SPLIT_NAME.fullmatch(split):
        raise UsageError(f"split {split!r}: need letters, digits and _, at most 32; or auto.")
    locations = [location for one in given for location in _expanded(str(one))]
    doubled = [location for location, count in Counter(locations).items() if count > 1]
    if doubled or not locations:
        what = f"{doubled[0]} is named {locations.count(doubled[0])} times" if doubled else "no tar given"
        raise UsageError(f"shards adopt: {what}. Name each tar once.")
    splits = [_split(location) if split == "auto" else split for location in locations]
    # One tar without a split makes all of them doubtful: a word in some of the names may mean something else.
    if None in splits:
        splits = [None] * len(locations)
    names = _unique_names(locations)
    return [
        ListedTar(location=location, name=name, split=one)
        for location, name, one in zip(locations, names, splits, strict=True)
    ]


def _expanded(given: str) -> list[str]:
    """Expand number ranges such as {000..099}, as WebDataset writes them, then patterns and folders."""
    return [location for one in _ranges(given) for location in _matches(one)]


def _ranges(given: str) -> Iterator[str]:
    texts = RANGE.split(given)
    ranges = [_numbers(first, last, given) for first, last in zip(texts[1::3], texts[2::3], strict=True)]
    for numbers in product(*ranges):
        yield texts[0] + "".join(number + text for number, text in zip(numbers, texts[3::3], strict=True))


def _numbers(first: str, last: str, given: str) -> list[str]:
    if not int(first) <= int(last) < int(first) + MAX_RANGE:
        raise UsageError(f"{given}: {first} to {last} is no range of at most {MAX_RANGE} numbers.")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _matches(given: str) -> list[str]:
    """List the tars of one path, pattern, folder or URL."""
    if is_remote(given):
        return _remote_matches(given)
    path = os.path.abspath(os.path.expanduser(given.removeprefix("file://")))
    if os.path.isdir(path):
        # Hidden files are parts of unfinished copies, or what macOS puts beside a file.
        found = sorted(str(one) for one in Path(path).rglob("*.tar") if not one.name.startswith("."))
        what = "no .tar in this folder"
    elif os.path.lexists(path):
        found, what = [path], ""
    else:
        found, what = sorted(glob.glob(path)), "no such file, and no file matches"
    if not found:
        raise UsageError(f"{given}: {what}. Give tars, folders that hold some, or patterns.")
    return found


def _remote_matches(url: str) -> list[str]:
    # Without a pattern there is nothing to ask the store for; scanning says whether the tar is there.
    if "*" not in url:
        return [url]
    try:
        with remote_errors(url):
            system, path = filesystem(url)
            names = sorted(system.glob(path))
    except OSError as error:
        raise UsageError(f"{url}: cannot list it ({error.strerror}). Check the address and the rights.") from error
    if not names:
        raise UsageError(f"{url}: matches nothing. Check the pattern and the rights.")
    return [str(system.unstrip_protocol(name)) for name in names]


def _split(location: str) -> str | None:
    """Return the split by a word in the tar's name, else by its folder's whole name; None if unclear."""
    folder, _, name = location.rpartition("/")
    # A whole word: "test" in "latest-000.tar" is no split. A folder's name has to be nothing else.
    words = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_WORDS}
    if words:
        return words.pop() if len(words) == 1 else None
    return SPLIT_WORDS.get(folder.rpartition("/")[2].lower())


def _unique_names(locations: Sequence[str]) -> list[str]:
    """Return file names, safe to write; the second of a name gets its folder's name before it, or a number."""
    taken: set[str] = set()
    names = []
    for location in locations:
        # What follows "?" in a URL is a signature or a version, and no part of the name.
        folder, _, name = location.partition("?")[0].rpartition("/")
        stem = _safe(name.removesuffix(".tar"))
        wanted = [stem, f"{_safe(folder.rpartition('/')[2])}-{stem}"]
        numbered = (f"{stem}-{number}" for number in range(2, len(locations) + 2))
        free = next(one for one in [*wanted, *numbered] if one not in taken)
        taken.add(free)
        names.append(f"{free}.tar")
    return names


def _safe(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text).strip(".")[:MAX_STEM] or "_"
