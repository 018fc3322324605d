"""Source files of a build: paths in, one `SourceFile` per image or video out, with key, label and split.

Nothing is opened here: kind goes by the name's suffix, and a file whose bytes disagree is rejected later.
The order of the result is the order of the shards, and depends on the relative paths only.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipelines.errors import UsageError
from pipelines.shards.manifest import Kind

__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "SourceFile", "Sources", "assign_splits", "find_sources", "safe_key"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp"})
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "m2ts", "ts", "vob"),
        *("wmv", "asf", "flv", "ogv", "3gp", "mjpeg", "mjpg", "gif", "y4m"),
    )
)
# A ustar name holds 100 bytes; this leaves room for "_c000012" and the longest extension.
MAX_KEY_BYTES = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file to pack. `source` is its path below the source root, "/" between parts."""

    path: Path
    source: str
    key: str
    kind: Kind
    label: str | None
    file_bytes: int
    modified_ns: int
    split: str = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All files of a build. `labels`: class names, sorted. `num_ignored`: files that are neither image nor video."""

    files: tuple[SourceFile, ...]
    labels: tuple[str, ...]
    num_ignored: int


def find_sources(paths: Sequence[Path], *, labels: Literal["auto", "off"] = "auto") -> Sources:
    """Images and videos below `paths` (folders, searched whole, or single files), each key unique.

    With labels "auto", the first folder level that branches names an image's class, if every image of that
    source lies in such a folder. Raises UsageError if a path is missing or nothing usable is found.
    """
    found: list[SourceFile] = []
    num_ignored = 0
    for path in paths:
        files, ignored = _scan(path)
        found += _with_labels(files) if labels == "auto" else files
        num_ignored += ignored
    if not found:
        raise UsageError(_nothing_found(paths, num_ignored))
    names = tuple(sorted({file.label for file in found if file.label is not None}))
    return Sources(files=tuple(_unique_keys(found)), labels=names, num_ignored=num_ignored)


def assign_splits(files: Iterable[SourceFile], rule: str) -> list[SourceFile]:
    """Each file with its split, "train" or "val"; a video goes whole into one split.

    `rule`: "none"; "every:N", every N-th file of a class in the given order, starting with the first; "hash:P",
    a share P of the files, chosen by their key alone, so that adding files moves no other file.
    """
    name, _, value = rule.partition(":")
    seen: Counter[tuple[str, str | None]] = Counter()
    result = []
    for file in files:
        group = (file.kind, file.label)
        is_val = (name == "every" and seen[group] % int(value) == 0) or (
            name == "hash" and key_hash(file.key) / 2**64 < float(value)
        )
        seen[group] += 1
        result.append(replace(file, split="val" if is_val else "train"))
    return result


def key_hash(key: str) -> int:
    """64 bits that depend on the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def safe_key(source: str) -> str:
    """A relative path as a WebDataset key: no extension, no dot, no space, at most 80 bytes of UTF-8."""
    stem = source[: -len(suffix)] if (suffix := Path(source).suffix) else source
    key = re.sub(r"[^\w/-]", "_", unicodedata.normalize("NFC", stem)).strip("/")
    encoded = key.encode()
    if len(encoded) <= MAX_KEY_BYTES:
        return key
    digest = hashlib.blake2b(encoded, digest_size=4).hexdigest()
    return f"{encoded[: MAX_KEY_BYTES - 9].decode(errors='ignore')}_{digest}"


def _scan(path: Path) -> tuple[list[SourceFile], int]:
    if path.is_file():
        one = _source_file(path, path.name)
        return ([one], 0) if one else ([], 1)
    if not path.is_dir():
        raise UsageError(f"{path}: no such file or folder. Give an image, a video, or a folder that holds some.")
    files, num_ignored = [], 0
    for name in sorted(_walk(path)):
        one = _source_file(path / name, name)
        files += [one] if one else []
        num_ignored += one is None
    return files, num_ignored


def _walk(root: Path) -> Iterator[str]:
    """Relative names of all files; follows links to folders, each real folder once, so a loop of links ends."""
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True, onerror=_raise_unreadable):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in names:
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def _raise_unreadable(error: OSError) -> None:
    raise UsageError(
        f"{error.filename}: cannot list this folder ({error.strerror}). Make it readable, or leave it out."
    )


def _source_file(path: Path, source: str) -> SourceFile | None:
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return None
    try:
        stat = path.stat()
        file_bytes, modified_ns = stat.st_size, stat.st_mtime_ns
    except OSError:  # a dangling link: keep it, so that it shows up among the rejects
        file_bytes, modified_ns = 0, 0
    return SourceFile(
        path=path,
        source=source.encode(errors="replace").decode(),
        key=safe_key(source),
        kind="image" if suffix in IMAGE_SUFFIXES else "clip",
        label=None,
        file_bytes=file_bytes,
        modified_ns=modified_ns,
    )


def _with_labels(files: list[SourceFile]) -> list[SourceFile]:
    """Class names from folders: a lone wrapping folder is skipped, and fewer than two classes are none."""
    paths = [file.source.split("/") for file in files if file.kind == "image"]
    level = 0
    while paths and all(len(parts) > level + 1 for parts in paths):
        names = {parts[level] for parts in paths}
        if len(names) > 1:
            return [
                replace(file, label=file.source.split("/")[level]) if file.kind == "image" else file for file in files
            ]
        level += 1
    return files


def _unique_keys(files: Sequence[SourceFile]) -> Iterator[SourceFile]:
    taken = {file.key for file in files}
    given: set[str] = set()
    for file in files:
        key, number = file.key, 2
        while key in given or (key != file.key and key in taken):
            key, number = f"{file.key}_{number}", number + 1
        given.add(key)
        yield replace(file, key=key)


def _nothing_found(paths: Sequence[Path], num_ignored: int) -> str:
    where = ", ".join(str(path) for path in paths) or "(no source given)"
    what = f"{num_ignored} files, but no image and no video" if num_ignored else "no files"
    allowed = f"{' '.join(sorted(IMAGE_SUFFIXES))} and {' '.join(sorted(VIDEO_SUFFIXES))}"
    return f"{where}: {what} found. Allowed: {allowed}. Give another folder, or unpack archives first."
