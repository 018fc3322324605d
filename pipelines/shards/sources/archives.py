"""Tars to source items: every image and video in a tar, WebDataset or not, found by offset and never extracted.

A sample's label comes from its `.json` ("label") or `.cls` member, else from class folders inside the tar. Members
with unsafe names, links and sparse files are rejected by name; a damaged tar gives the members before the damage.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import is_remote, open_binary
from pipelines.shards.format.tar_members import BLOCK_BYTES, DamagedTarError, TarMember, tar_members
from pipelines.shards.sources.items import Found, Reject, SourceItem, kind_of, local_location, printable, safe_key
from pipelines.shards.sources.lists import label_text

__all__ = ["archive_items"]

LABEL_SUFFIXES = ("cls", "json")
MAX_LABEL_BYTES = 2**20
MAX_GROUP_MEMBERS = 1000
"""Members of one name, such as 1.jpg, 1.cls, 1.json; an absurd tar must not fill the memory."""
COMPRESSIONS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class _Tar(NamedTuple):
    """`location` as in SourceItem, `name` as shown to people."""

    location: str
    name: str
    modified_ns: int


@dataclass(slots=True)
class _Group:
    """Neighbors with one name up to the first dot: the images and videos of a sample, and its label."""

    name: str = ""
    media: list[TarMember] = field(default_factory=list)
    label: str | None = None


def archive_items(location: Path | str, *, with_labels: bool, label_column: str | None = None) -> Iterator[Found]:
    """Items of one tar. `label_column`: the key of the label in `.json` members (default "label").

    Class folders need a look at all names first, which the first image outside of a folder ends.
    Raises UsageError at once if the tar cannot be opened or is compressed.
    """
    try:
        tar = _describe(location)
        with open_binary(location, buffer_bytes=BLOCK_BYTES) as file:
            _check_uncompressed(file, location)
            class_level = _class_level(file) if with_labels else None
    except OSError as error:
        raise UsageError(f"{location}: cannot read this tar ({error.strerror}). Mend it, or leave it out.") from error
    return _items(location, tar, class_level, (label_column or "label") if with_labels else None)


def _describe(location: Path | str) -> _Tar:
    name = printable(str(location).rpartition("/")[2])
    if is_remote(location):
        return _Tar(str(location), name, 0)
    path = Path(location).absolute()
    return _Tar(local_location(str(path)), name, path.stat().st_mtime_ns)


def _check_uncompressed(file: BinaryIO, location: Path | str) -> None:
    head = file.read(8)
    for magic, command in COMPRESSIONS.items():
        if head.startswith(magic):
            raise UsageError(
                f"{location}: compressed, so its members cannot be read by their offset. "
                f"Uncompress it first, for example with {command}."
            )


def _class_level(file: BinaryIO) -> int | None:
    """The depth of the first folder level that branches, if all images lie below it; as for folders on disk."""
    common: list[str] = []
    min_depth = -1
    try:
        for member in tar_members(file):
            if member.kind != "file" or kind_of(member.name) != "image" or _is_unsafe(member.name):
                continue
            folders = _parts(member.name)[:-1]
            if not folders:
                return None
            if min_depth < 0:
                common, min_depth = folders, len(folders)
            num_equal = next((n for n, pair in enumerate(zip(common, folders)) if pair[0] != pair[1]), len(folders))  # noqa: B905
            common, min_depth = common[:num_equal], min(min_depth, len(folders))
    except DamagedTarError:
        pass
    return len(common) if min_depth > len(common) else None


def _items(location: Path | str, tar: _Tar, class_level: int | None, label_field: str | None) -> Iterator[Found]:
    group = _Group()
    try:
        with open_binary(location, buffer_bytes=BLOCK_BYTES) as file:
            for member in tar_members(file):
                if member.kind == "folder" or any(part.startswith(".") for part in _parts(member.name)):
                    continue
                name = _group_name(member.name)
                if name != group.name or len(group.media) >= MAX_GROUP_MEMBERS:
                    yield from _group_items(group, tar, class_level)
                    group = _Group(name=name)
                if reason := _reason_to_reject(member):
                    yield _reject(tar, member, reason)
                elif kind_of(member.name):
                    group.media.append(member)
                elif _is_label(member):
                    label = _read_label(file, member, label_field)
                    is_number = member.name.lower().endswith(".cls")
                    group.label = (group.label or label) if is_number else (label or group.label)
                else:
                    yield None
    except (DamagedTarError, OSError) as error:
        reason = f"damaged tar ({error}); the members before it are used"
        yield from _group_items(group, tar, class_level)
        yield Reject(key=safe_key(tar.name), source=tar.name, reason=reason)
    else:
        yield from _group_items(group, tar, class_level)


def _group_items(group: _Group, tar: _Tar, class_level: int | None) -> Iterator[SourceItem]:
    for member in group.media:
        parts = _parts(member.name)
        kind = kind_of(member.name) or "image"
        label = group.label
        if label is None and class_level is not None and kind == "image":
            label = parts[class_level]
        name = "/".join(parts)
        yield SourceItem(
            location=tar.location,
            via="tar",
            offset=member.offset,
            size=member.size,
            modified_ns=tar.modified_ns,
            source=f"{tar.name}/{name}",
            key=safe_key(name),
            kind=kind,
            label=label,
        )


def _reason_to_reject(member: TarMember) -> str | None:
    if _is_unsafe(member.name):
        return "unsafe name: it is absolute or leads out of the tar"
    if member.kind == "file" or not kind_of(member.name):
        return None
    return {"link": "a link; its content is another file's", "sparse": "a sparse file; store it whole"}.get(
        member.kind, "not a regular file (a pipe, socket or device)"
    )


def _reject(tar: _Tar, member: TarMember, reason: str) -> Reject:
    return Reject(key=safe_key(member.name), source=f"{tar.name}/{member.name}", reason=reason)


def _is_unsafe(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".", "..")]


def _group_name(name: str) -> str:
    """As WebDataset has it: up to the first dot after the last slash."""
    folder, slash, file_name = name.rpartition("/")
    return folder + slash + file_name.partition(".")[0]


def _is_label(member: TarMember) -> bool:
    return member.kind == "file" and member.name.rpartition(".")[2].lower() in LABEL_SUFFIXES


def _read_label(file: BinaryIO, member: TarMember, label_field: str | None) -> str | None:
    if label_field is None or member.size > MAX_LABEL_BYTES:
        return None
    file.seek(member.offset)
    content = file.read(member.size)
    if member.name.lower().endswith(".cls"):
        return label_text(content.decode(errors="replace").strip())
    try:
        facts = json.loads(content)
        return label_text(facts.get(label_field)) if isinstance(facts, dict) else None
    except (ValueError, RecursionError):  # sidecars of others may hold anything
        return None
