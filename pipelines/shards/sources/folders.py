"""Folders to source items: every image and video below a folder, here or behind a URL, in the order of their names.

Folders are listed one at a time, so memory grows with the largest folder, not with the tree. Hidden files are left
out. With class folders, the first folder level that branches names an image's class, if every image lies below it.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime
from operator import itemgetter
from typing import Any

from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import filesystem, is_remote, remote_errors
from pipelines.shards.format.table import Kind
from pipelines.shards.sources.items import Found, SourceItem, kind_of, local_item, printable, safe_key

__all__ = ["folder_items"]

Entry = tuple[str, Any]
"""(relative name, facts) of a file or, with "/" at the end of its name, of a folder."""
Seen = set[tuple[int, int]]
"""Device and inode of folders that were listed: links may lead to one again, or in a circle."""


def folder_items(location: str, *, with_labels: bool) -> Iterator[Found]:
    """Items below a local folder or URL. `None` stands for a file that is neither image nor video.

    Raises UsageError, while it runs, if a folder cannot be listed: leaving it out would lose its files silently.
    """
    tree: _Tree = _RemoteTree(location) if is_remote(location) else _LocalTree(location)
    class_prefix = _class_prefix(tree) if with_labels else None
    for run in _runs(tree):
        label = None if class_prefix is None else printable(run[0][0][len(class_prefix) :].partition("/")[0])
        for name, facts in run:
            kind = kind_of(name)
            yield None if kind is None else tree.item(name, kind, facts, label if kind == "image" else None)


class _Tree(ABC):
    @abstractmethod
    def entries(self, prefix: str, seen: Seen) -> Iterator[Entry]:
        """All that is in one folder (`prefix`: "" or "a/b/"); nothing if `seen` has the folder already."""

    @abstractmethod
    def item(self, name: str, kind: Kind, facts: Any, label: str | None) -> Found: ...


def _runs(tree: _Tree) -> Iterator[list[Entry]]:
    """All files in the order of their relative names: because a folder sorts as "name/", as if sorted all at once.

    In runs of one folder's files, between two of its folders: a generator's step per file would cost a tenth.
    """
    seen: Seen = set()
    open_folders = [_sorted_entries(tree, "", seen)]
    while open_folders:
        run: list[Entry] = []
        for entry in open_folders[-1]:
            if entry[0][-1] == "/":
                open_folders.append(_sorted_entries(tree, entry[0], seen))
                break
            run.append(entry)
        else:
            open_folders.pop()
        if run:
            yield run


def _sorted_entries(tree: _Tree, prefix: str, seen: Seen) -> Iterator[Entry]:
    return iter(sorted(tree.entries(prefix, seen), key=itemgetter(0)))


def _class_prefix(tree: _Tree) -> str | None:
    """The folder whose folders are classes, as "a/b/"; lone wrapping folders are skipped. None: there are no classes.

    Looks no further than the first image of two folders, so that it costs little beside the listing.
    """
    prefix, ancestors = "", Seen()
    while True:
        names = sorted(name for name, _ in tree.entries(prefix, ancestors))
        if any(kind_of(name) == "image" for name in names):
            return None
        seen, with_images = ancestors.copy(), []
        for name in names:
            if name[-1] == "/" and _has_image(tree, name, seen):
                with_images.append(name)
            if len(with_images) == 2:
                return prefix
        if not with_images:
            return None
        prefix = with_images[0]


def _has_image(tree: _Tree, prefix: str, seen: Seen) -> bool:
    folders = [prefix]
    while folders:
        for name, _ in tree.entries(folders.pop(), seen):
            if name[-1] == "/":
                folders.append(name)
            elif kind_of(name) == "image":
                return True
    return False


class _LocalTree(_Tree):
    def __init__(self, folder: str) -> None:
        self._root = os.path.join(os.path.abspath(folder), "")

    def entries(self, prefix: str, seen: Seen) -> Iterator[tuple[str, os.DirEntry[str]]]:
        path = self._root + prefix
        try:
            facts = os.stat(path)
            if (facts.st_dev, facts.st_ino) in seen:
                return
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(path) as found:
                for entry in found:
                    if entry.name[0] != ".":
                        yield f"{prefix}{entry.name}/" if _is_folder(entry) else prefix + entry.name, entry
        except OSError as error:
            raise UsageError(
                f"{path}: cannot list this folder ({error.strerror}). Make it readable, or leave it out."
            ) from error

    def item(self, name: str, kind: Kind, facts: os.DirEntry[str], label: str | None) -> Found:
        try:
            found = facts.stat()
        except OSError:
            return local_item(self._root + name, name, kind, None, label=label)
        return local_item(self._root + name, name, kind, found, label=label)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


class _RemoteTree(_Tree):
    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/"
        self._system, path = filesystem(self._url)
        self._root = path.rstrip("/") + "/"

    def entries(self, prefix: str, seen: Seen) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            with remote_errors(self._url + prefix):
                found = self._system.ls(self._root + prefix, detail=True)
        except OSError as error:
            raise UsageError(
                f"{self._url}{prefix}: cannot list this folder ({error.strerror}). Check the address and the rights."
            ) from error
        for facts in found:
            name = facts["name"].rstrip("/")
            inner = name.removeprefix(self._root + prefix)
            # A web server's page also links to its parents and to itself.
            if inner and inner != name and "/" not in inner and inner[0] != ".":
                yield prefix + inner + ("/" if facts["type"] == "directory" else ""), facts

    def item(self, name: str, kind: Kind, facts: dict[str, Any], label: str | None) -> Found:
        size = facts.get("size")
        return SourceItem(
            location=printable(self._url + name),
            via="file",
            offset=0,
            size=-1 if size is None else int(size),
            modified_ns=_modified_ns(facts),
            source=printable(name),
            key=safe_key(name),
            kind=kind,
            label=label,
        )


def _modified_ns(facts: dict[str, Any]) -> int:
    """File systems have different names for the time; 0 if this one has none."""
    time = facts.get("LastModified") or facts.get("mtime") or facts.get("updated") or facts.get("last_modified")
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return int(time.timestamp() * 1e9)
    return int(time * 1e9) if isinstance(time, int | float) else 0
