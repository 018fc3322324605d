"""Tars to source items: every image and video in a tar, WebDataset or not, found by offset and never extracted.

The label of an image comes from the `.json` ("label") or `.cls` member of its own name, else from that of its
WebDataset sample, else from class folders inside the tar. Members with unsafe names, links and sparse files are
rejected by name; a damaged tar gives the members before the damage.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import is_remote, open_binary
from pipelines.shards.format.table import Kind
from pipelines.shards.format.tar_members import BLOCK_BYTES, DamagedTarError, TarMember, tar_members
from pipelines.shards.sources.items import (
    Found,
    Ignored,
    Note,
    Reject,
    SourceItem,
    kind_of,
    local_location,
    printable,
    safe_key,
)
from pipelines.shards.sources.labels import label_text, no_label_text
from pipelines.shards.sources.layout import Layout, LayoutFinder

__all__ = ["archive_items"]

LABEL_SUFFIXES = ("cls", "json")
MAX_LABEL_BYTES = 2**20
MAX_GROUP_MEMBERS = 1000
"""Members of one sample, such as 1.jpg, 1.cls, 1.json; an absurd tar must not fill the memory."""
FLAT_AFTER = 100
"""A tar that begins with so many images outside of folders has none that mean anything: most WebDataset tars. Else
the headers of each would be read twice."""
COMPRESSIONS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class _Tar(NamedTuple):
    """Tar to list. location: as in SourceItem. name: shown to people. label_field: key in .json; None: no labels.

    is_flat: so many images outside of folders come first that folders after them mean nothing.
    """

    location: str
    name: str
    modified_ns: int
    label_field: str | None
    layout: Layout = Layout()
    is_flat: bool = False


class _Group:
    """Neighbors with one name up to the first dot: a WebDataset sample, or several with dots in their names.

    media: images and videos with their names without suffix. sidecars: label members, likewise. labels: by the name
    of the label's member without its suffix.
    """

    # Millions of them are made, one after the other: no dataclass, whose factories would take longer.
    __slots__ = ("labels", "media", "name", "names", "sidecars")

    def __init__(self, name: str) -> None:
        self.name = name
        self.media: list[tuple[TarMember, str]] = []
        self.names: set[str] = set()
        self.sidecars: dict[str, str] = {}
        self.labels: dict[str, str | None] = {}

    def add(self, member: TarMember) -> None:
        self.media.append((member, _stem(member.name)))
        self.names.add(member.name)

    def ends_before(self, member: TarMember, kind: Kind | None) -> bool:
        """Return whether a member of the group's name cannot belong to it. `kind`: image, clip, or None for others."""
        if member.name in self.sidecars or len(self.sidecars) >= 4 * MAX_GROUP_MEMBERS:
            return True
        if kind is None:
            return False
        if member.name in self.names:
            return self.label_of(member.name, _stem(member.name))[0] or len(self.media) >= 2 * MAX_GROUP_MEMBERS
        # Not between an image and its label: dotted names, as of frames, make one group of a whole tar.
        return self.is_long and _stem(member.name) != self.media[-1][1]

    def next_for(self, name: str, member: TarMember) -> "_Group":
        """Return the group after this one, which begins with `member`.

        If this one was only too long, the next takes along the label that all share, and what came before `member`
        and is its own.
        """
        following = _Group(name)
        if name == self.name and self.is_long:
            own = member.name, _stem(member.name)
            following.labels = {one: self.labels[one] for one in (*own, name) if one in self.labels}
            for sidecar in [one for one, stem in self.sidecars.items() if stem in own]:
                following.sidecars[sidecar] = self.sidecars.pop(sidecar)
        return following

    @property
    def is_long(self) -> bool:
        return len(self.media) >= MAX_GROUP_MEMBERS

    def label_of(self, name: str, stem: str) -> tuple[bool, str | None]:
        """Return whether an image has a label, and which: that of its own name first, then what the sample shares.

        photo.jpg has its own in photo.jpg.json, as Google Takeout writes it, or in photo.json.
        """
        labels = self.labels
        if labels:
            for key in (name, stem, self.name):
                if key in labels:
                    return True, labels[key]
        return False, None

    def orphans(self) -> list[str]:
        """Return the label members that belong to no image or video of the group."""
        if self.media and all(stem == self.name for stem in self.sidecars.values()):
            return []
        names = {self.name} if self.media else set()
        names.update(name for member, stem in self.media for name in (member.name, stem))
        return [sidecar for sidecar, stem in self.sidecars.items() if stem not in names]


def archive_items(location: Path | str, *, with_labels: bool, label_column: str | None = None) -> Iterator[Found]:
    """Yield what one tar holds. `label_column`: the key of the label in `.json` members (default "label").

    Raises UsageError at once if the tar cannot be opened or is compressed.
    """
    try:
        tar = _describe(location, (label_column or "label") if with_labels else None)
        with open_binary(location, buffer_bytes=BLOCK_BYTES) as file:
            _check_uncompressed(file, location)
            layout = _layout(file, with_labels=with_labels)
            tar = tar._replace(layout=layout or Layout(), is_flat=layout is None)
    except OSError as error:
        raise UsageError(f"{location}: cannot read this tar ({error.strerror}). Mend it, or leave it out.") from error
    return _items(location, tar)


def _describe(location: Path | str, label_field: str | None) -> _Tar:
    name = printable(str(location).rpartition("/")[2])
    if is_remote(location):
        return _Tar(str(location), name, 0, label_field)
    path = Path(location).absolute()
    return _Tar(local_location(str(path)), name, path.stat().st_mtime_ns, label_field)


def _check_uncompressed(file: BinaryIO, location: Path | str) -> None:
    head = file.read(8)
    for magic, command in COMPRESSIONS.items():
        if head.startswith(magic):
            raise UsageError(
                f"{location}: compressed, so its members cannot be read by their offset. "
                f"Uncompress it first, for example with {command}."
            )


def _layout(file: BinaryIO, *, with_labels: bool) -> Layout | None:
    """Return which folders in the tar are splits and classes, by all its headers; None if it begins flat."""
    finder, num_flat = LayoutFinder(), 0
    try:
        for member in tar_members(file):
            kind = kind_of(member.name)
            if member.kind != "file" or kind is None or _is_hidden(member.name) or _is_unsafe(member.name):
                continue
            folders = _parts(member.name)[:-1]
            if num_flat >= 0:
                num_flat = -1 if folders else num_flat + 1
                if num_flat == FLAT_AFTER:
                    return None
            finder.add(folders, is_image=kind == "image")
    except DamagedTarError:
        # Reported when the members are listed; the folders before the damage count.
        pass
    layout = finder.layout()
    return layout if with_labels else Layout(split_level=layout.split_level, is_train_open=layout.is_train_open)


def _items(location: Path | str, tar: _Tar) -> Iterator[Found]:
    group, labels, counts = _Group(""), _LabelReader(tar.label_field), _Counts()
    try:
        with open_binary(location, buffer_bytes=BLOCK_BYTES) as file:
            for member in tar_members(file):
                if member.kind == "folder" or _is_hidden(member.name):
                    continue
                # 1. A new name ends the group before, and so does a name that stands in it already.
                name, kind = _group_name(member.name), kind_of(member.name)
                if name != group.name or group.ends_before(member, kind):
                    following = group.next_for(name, member)
                    yield from _group_items(group, tar, counts)
                    group = following
                # 2. What this member is to its sample.
                if reason := _reason_to_reject(member, kind):
                    yield _reject(tar, member, reason)
                elif kind:
                    group.add(member)
                elif _is_label(member):
                    group.sidecars[member.name] = _stem(member.name)
                    labels.read(file, member, group.labels)
                else:
                    yield Ignored(f"{tar.name}/{member.name}")
    except (DamagedTarError, OSError) as error:
        reason = f"damaged tar ({error}); the members before it are used"
        yield Reject(key=safe_key(tar.name), source=tar.name, reason=reason)
    # 3. The last group; then what is to be told of labels.
    yield from _group_items(group, tar, counts)
    if counts.num_images and not counts.num_labels and labels.json_keys:
        yield Note(tar.name, no_label_text(labels.json_keys))
    elif tar.is_flat and counts.num_in_folders:
        yield Note(
            tar.name, f"{FLAT_AFTER:,} images in no folder come first, so that folders after them are no classes"
        )


@dataclass(slots=True)
class _Counts:
    """Images of a tar, those that have a label, and those without one that lie in folders."""

    num_images: int = 0
    num_labels: int = 0
    num_in_folders: int = 0


def _group_items(group: _Group, tar: _Tar, counts: _Counts) -> list[Found]:
    found: list[Found] = []
    names: set[str] = set()
    is_single = len(group.media) == 1
    for member, stem in group.media:
        # 1. Its own label, or the sample's. Of two images of one name, nothing says which of them the label belongs
        # to.
        has_label, label = group.label_of(member.name, stem)
        if not is_single and has_label and member.name in names:
            reason = "its name stands twice before its label: which of the two it belongs to is unclear"
            found.append(_reject(tar, member, reason))
            continue
        names.add(member.name)
        # 2. Folders give the split, and the class where no member gave one.
        parts = _parts(member.name)
        folder_label, split = tar.layout.of(parts[:-1])
        kind = kind_of(member.name) or "image"
        if kind == "image":
            label = label if has_label else folder_label
            counts.num_images += 1
            counts.num_labels += label is not None
            counts.num_in_folders += label is None and len(parts) > 1
        name = "/".join(parts)
        found.append(
            SourceItem(
                tar.location,
                "tar",
                member.offset,
                member.size,
                tar.modified_ns,
                f"{tar.name}/{name}",
                safe_key(name),
                kind,
                label,
                split,
            )
        )
    # 3. Labels of nothing are counted as ignored, so that every member of the tar is accounted for.
    if group.sidecars and not (is_single and list(group.sidecars.values()) == [group.name]):
        found += [Ignored(f"{tar.name}/{name}") for name in group.orphans()]
    return found


def _reason_to_reject(member: TarMember, kind: Kind | None) -> str | None:
    if _is_unsafe(member.name):
        return "unsafe name: it is absolute or leads out of the tar"
    if member.kind == "file" or not kind:
        return None
    return {"link": "a link; its content is another file's", "sparse": "a sparse file; store it whole"}.get(
        member.kind, "not a regular file (a pipe, socket or device)"
    )


def _reject(tar: _Tar, member: TarMember, reason: str) -> Reject:
    return Reject(key=safe_key(member.name), source=f"{tar.name}/{member.name}", reason=reason)


def _is_unsafe(name: str) -> bool:
    return name.startswith("/") or (".." in name and ".." in name.split("/"))


def _is_hidden(name: str) -> bool:
    return "/." in f"/{name}" and any(part.startswith(".") for part in _parts(name))


def _parts(name: str) -> list[str]:
    if "/" not in name and name not in (".", ".."):
        return [name]  # most members of WebDataset tars
    return [part for part in name.split("/") if part not in ("", ".", "..")]


def _group_name(name: str) -> str:
    """Return the key of a sample, as WebDataset has it: the name up to the first dot after the last slash."""
    folder, slash, file_name = name.rpartition("/")
    return folder + slash + file_name.partition(".")[0]


def _stem(name: str) -> str:
    """Return the name without its suffix, which images, videos and labels have."""
    return name.rpartition(".")[0]


def _is_label(member: TarMember) -> bool:
    return member.kind == "file" and member.name.rpartition(".")[2].lower() in LABEL_SUFFIXES


class _LabelReader:
    """Labels of members. `json_keys`: those of the first .json that is a mapping."""

    def __init__(self, label_field: str | None) -> None:
        self.json_keys: list[str] = []
        self._field = label_field

    def read(self, file: BinaryIO, member: TarMember, labels: dict[str, str | None]) -> None:
        """Add the label of a member, if it has one, under the member's name without its suffix.

        A .cls of -1 says that there is none; a .json with another label, which is a name, wins over the number.
        """
        if self._field is None or member.size > MAX_LABEL_BYTES:
            return
        file.seek(member.offset)
        # Bytes that are no UTF-8 are kept apart: labels.py writes them out.
        text = file.read(member.size).decode(errors="surrogateescape")
        if member.name.lower().endswith(".cls"):
            labels.setdefault(_stem(member.name), label_text(text))
            return
        label = self._of_json(text)
        if label is not None:
            labels[_stem(member.name)] = label

    def _of_json(self, text: str) -> str | None:
        try:
            facts: Any = json.loads(text.removeprefix("\ufeff"))
            if not isinstance(facts, dict):
                return None
            self.json_keys = self.json_keys or list(facts)
            return label_text(facts.get(self._field))
        except (ValueError, RecursionError):  # sidecars of others may hold anything
            return None
