"""Folders to source items: every image and video below a folder, here or behind a URL, in the order of their names.

Folders are listed one at a time, so memory grows with the largest folder, not with the tree. Hidden files are left
out. `layout.py` says which folders are splits and which are classes; here the tree is searched for them.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import filesystem, is_remote, remote_errors
from pipelines.shards.format.table import Kind
from pipelines.shards.sources.items import Found, Ignored, Reject, SourceItem, kind_of, local_item, printable, safe_key
from pipelines.shards.sources.layout import Layout, open_train, split_of_folder

__all__ = ["folder_items"]

Entry = tuple[str, Any]
"""(relative name, facts) of a file or, with "/" at the end of its name, of a folder."""
Seen = set[tuple[int, int]]
"""Device and inode of folders that were listed: links may lead to one again, or in a circle."""


def folder_items(location: str, *, with_labels: bool) -> Iterator[Found]:
    """Yield what lies below a local folder or URL: images and videos, rejects, and files that are neither.

    Raises UsageError, while it runs, if a folder cannot be listed: leaving it out would lose its files silently.
    """
    tree: _Tree = _RemoteTree(location) if is_remote(location) else _LocalTree(location)
    # Before the listing: what the first folder means depends on those after it.
    layout = _Search(tree).layout(with_labels=with_labels)
    for run in _runs(tree):
        label, split = layout.of(run[0][0].split("/")[:-1])
        for name, facts in run:
            kind = kind_of(name)
            if kind is None:
                yield Ignored(printable(name))
            else:
                yield tree.item(name, kind, facts, label if kind == "image" else None, split)


class _Tree(ABC):
    @abstractmethod
    def entries(self, prefix: str, seen: Seen) -> Iterator[Entry]:
        """Yield what is in one folder (`prefix`: "" or "a/b/"); nothing if `seen` has the folder already."""

    @abstractmethod
    def item(self, name: str, kind: Kind, facts: Any, label: str | None, split: str | None) -> Found:
        """Return the item, or the reject, of one file."""


def _runs(tree: _Tree) -> Iterator[list[Entry]]:
    """Yield all files in the order of their relative names: because a folder sorts as "name/", as if sorted at once.

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


class _Search:
    """Search of a tree for the levels of splits and of classes.

    Looks no further than the first image or video of a few folders, so that it costs little beside the listing.
    """

    def __init__(self, tree: _Tree) -> None:
        self._tree = tree
        # Both searches begin at the top, and a folder of a million files should not be listed for each.
        self._listed: dict[str, tuple[list[str], Seen]] = {}

    def layout(self, *, with_labels: bool) -> Layout:
        prefixes, depth, splits, ancestors = self._split_folders()
        class_level = self._class_level(prefixes, depth, ancestors) if with_labels else None
        if not splits:
            return Layout(class_level=class_level)
        return Layout(split_level=depth, class_level=class_level, is_train_open=open_train(splits))

    def _split_folders(self) -> tuple[list[str], int, set[str], Seen]:
        """Return the folders of splits as "a/train/", how many folders are above them, their splits, and what is above.

        The root alone, if there are no splits.
        """
        prefix, depth, ancestors = "", 0, Seen()
        while True:
            folders, seen = self._inner_folders(prefix, ancestors), ancestors.copy()
            named = {folder: split_of_folder(folder.rstrip("/").rpartition("/")[2]) for folder in folders}
            # 1. Folders of other names first: one with images or videos in it means that there are no splits here.
            others = self._with_media([folder for folder in folders if not named[folder]], seen, most=2)
            split_folders = self._with_media([folder for folder in folders if named[folder]], seen)
            if others and (split_folders or len(others) > 1):
                return [""], 0, set(), Seen()
            # 2. All of them are splits; `train` alone says nothing and is a folder like others.
            splits = {str(named[folder]) for folder in split_folders}
            if splits - {"train"}:
                return split_folders, depth, splits, ancestors
            # 3. A lone folder is only wrapped around what matters.
            if not (others or split_folders):
                return [""], 0, set(), Seen()
            prefix, depth = (others or split_folders)[0], depth + 1

    def _class_level(self, prefixes: Sequence[str], depth: int, ancestors: Seen) -> int | None:
        """Return the first level that branches into folders with images, counted in all splits together."""
        while True:
            by_name: dict[str, list[str]] = {}
            for prefix in prefixes:
                for folder in self._inner_folders(prefix, ancestors):
                    by_name.setdefault(folder[len(prefix) :], []).append(folder)
            seen, found = ancestors.copy(), list[list[str]]()
            for name in sorted(by_name):
                if self._with_media(by_name[name], seen, most=1, only_images=True):
                    found.append(by_name[name])
                if len(found) == 2:
                    return depth
            if not found:
                return None
            prefixes, depth = found[0], depth + 1

    def _inner_folders(self, prefix: str, seen: Seen) -> list[str]:
        """Return the folders in a folder, sorted; `seen` then has this folder."""
        if prefix not in self._listed:
            after = seen.copy()
            folders = sorted(name for name, _ in self._tree.entries(prefix, after) if name[-1] == "/")
            self._listed[prefix] = folders, after - seen
        folders, new = self._listed[prefix]
        seen |= new
        return folders

    def _with_media(
        self, folders: Sequence[str], seen: Seen, *, most: int | None = None, only_images: bool = False
    ) -> list[str]:
        """Return the first folders, at most `most`, that have an image (or a video) somewhere below."""
        found: list[str] = []
        for folder in folders:
            if len(found) == most:
                break
            if self._has_media(folder, seen, only_images):
                found.append(folder)
        return found

    def _has_media(self, prefix: str, seen: Seen, only_images: bool) -> bool:
        # Depth first: the first file that is found ends the search, and it mostly lies in the first folder.
        folders = [prefix]
        while folders:
            for name, _ in self._tree.entries(folders.pop(), seen):
                if name[-1] == "/":
                    folders.append(name)
                elif (kind := kind_of(name)) and (kind == "image" or not only_images):
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

    def item(
        self, name: str, kind: Kind, facts: os.DirEntry[str], label: str | None, split: str | None
    ) -> SourceItem | Reject:
        try:
            found = facts.stat()
        except OSError:
            return local_item(self._root + name, name, kind, None, label=label, split=split)
        return local_item(self._root + name, name, kind, found, label=label, split=split)


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

    def item(self, name: str, kind: Kind, facts: dict[str, Any], label: str | None, split: str | None) -> SourceItem:
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
            split=split,
        )


def _modified_ns(facts: dict[str, Any]) -> int:
    """Return the time of change, which file systems call by different names; 0 if this one has none."""
    time = facts.get("LastModified") or facts.get("mtime") or facts.get("updated") or facts.get("last_modified")
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return int(time.timestamp() * 1e9)
    return int(time * 1e9) if isinstance(time, int | float) else 0
