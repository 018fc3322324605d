"""Sources of a build to items: folders, images, videos, lists, tars and saved datasets, here or behind URLs.

No image or video is opened: kind goes by the name's suffix, and a file whose bytes disagree is rejected later. Items
come in batches, in the order of the sources and of the names in each, so that any number fits in memory.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import filesystem, is_remote, remote_errors
from pipelines.shards.sources.archives import archive_items
from pipelines.shards.sources.folders import folder_items
from pipelines.shards.sources.hf_dataset import dataset_items, is_dataset
from pipelines.shards.sources.items import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Found,
    Reject,
    SourceItem,
    kind_of,
    local_item,
    printable,
    safe_key,
)
from pipelines.shards.sources.lists import LIST_SUFFIXES, ListColumns, list_items

__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "ListColumns", "Listing", "list_sources", "safe_key"]

BATCH_ITEMS = 10_000
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Listing:
    """`items`: batches of at most 10,000 items, to be gone through once. The counts are complete after that.

    num_items, num_ignored: files that are neither image nor video (hidden ones are not counted). rejects: what
    cannot be an item, such as a list's row without a path. Raises UsageError at the end if there was no item.
    """

    def __init__(self, sources: Sequence[Path | str], found: Sequence[Iterator[Found]]) -> None:
        self.num_items = 0
        self.num_ignored = 0
        self.rejects: list[Reject] = []
        self.items: Iterator[list[SourceItem]] = self._batches(sources, found)

    def _batches(self, sources: Sequence[Path | str], found: Sequence[Iterator[Found]]) -> Iterator[list[SourceItem]]:
        for one_source in found:
            while batch := list(islice(one_source, BATCH_ITEMS)):
                items = [one for one in batch if type(one) is SourceItem]
                if len(items) < len(batch):
                    self.num_ignored += batch.count(None)
                    self.rejects += [one for one in batch if isinstance(one, Reject)]
                self.num_items += len(items)
                if items:
                    yield items
        if self.num_items == 0:
            raise UsageError(self._nothing_found(sources))

    def _nothing_found(self, sources: Sequence[Path | str]) -> str:
        where = ", ".join(str(source) for source in sources) or "(no source given)"
        what = f"{self.num_ignored} files, but no image and no video" if self.num_ignored else "no files"
        bad = f" ({len(self.rejects)} rejected, first {_shown(self.rejects[0])})" if self.rejects else ""
        allowed = " ".join(sorted(IMAGE_SUFFIXES)), " ".join(sorted(VIDEO_SUFFIXES))
        return (
            f"{where}: {what} found{bad}. Allowed: {allowed[0]} and {allowed[1]}. Give another folder, "
            f"or name tars and lists ({' '.join(sorted(LIST_SUFFIXES))}) themselves: those in folders are not opened."
        )


def _shown(reject: Reject) -> str:
    return f"{reject.source}: {reject.reason}"


def list_sources(
    sources: Sequence[Path | str],
    *,
    labels: Literal["auto", "off"] = "auto",
    columns: ListColumns = ListColumns(),  # noqa: B008  (frozen)
) -> Listing:
    """Images and videos of all sources: local paths or URLs of folders, files, lists and tars, and saved datasets.

    labels "auto": class folders, a list's or dataset's label column, or a tar's .cls and .json members. Keys may
    repeat. Raises UsageError at once if a local path or a tar is missing or a tar is compressed; folders and lists
    are opened when their turn comes.
    """
    with_labels = labels == "auto"
    found = [
        (_remote if is_remote(source) else _local)(str(source), columns, with_labels)
        for pattern in sources
        for source in _matches(pattern)
    ]
    return Listing(sources, found)


def _matches(source: Path | str) -> list[Path | str]:
    """The URLs that a pattern such as s3://bucket/train-*.tar stands for; a shell does that for local paths."""
    if not (isinstance(source, str) and is_remote(source) and "*" in source):
        return [source]
    try:
        with remote_errors(source):
            system, path = filesystem(source)
            names = sorted(system.glob(path))
    except OSError as error:
        raise UsageError(f"{source}: cannot list it ({error.strerror}). Check the address and the rights.") from error
    if not names:
        raise UsageError(f"{source}: matches nothing. Check the pattern and the rights.")
    return [system.unstrip_protocol(name) for name in names]


def _local(path: str, columns: ListColumns, with_labels: bool) -> Iterator[Found]:
    if os.path.isdir(path):
        if is_dataset(Path(path)):
            return dataset_items(Path(path), columns, with_labels=with_labels)
        return folder_items(path, with_labels=with_labels)
    if not os.path.lexists(path):
        raise UsageError(
            f"{path}: no such file or folder. Give an image, a video, a list, a tar, or a folder that holds some."
        )
    opened = _opened(path, columns, with_labels)
    if opened is not None:
        return opened
    kind = kind_of(path)
    if kind is None:
        return iter([None])
    try:
        facts = os.stat(path)
    except OSError:
        facts = None
    return iter([local_item(os.path.abspath(path), os.path.basename(path), kind, facts)])


def _remote(url: str, columns: ListColumns, with_labels: bool) -> Iterator[Found]:
    opened = _opened(url, columns, with_labels)
    if opened is not None:
        return opened
    kind = kind_of(url)
    if kind is None:
        return folder_items(url, with_labels=with_labels)
    source = printable(url.rpartition("/")[2])
    return iter([SourceItem(url, "file", 0, -1, 0, source, safe_key(source), kind)])


def _opened(location: str, columns: ListColumns, with_labels: bool) -> Iterator[Found] | None:
    """Items of a list or a tar; None if it is neither, by its suffix."""
    lower = location.lower()
    if lower.endswith((".tar", *COMPRESSED_SUFFIXES)):
        return archive_items(location, with_labels=with_labels, label_column=columns.label)
    if os.path.splitext(lower)[1] in LIST_SUFFIXES:
        return list_items(location, columns, with_labels=with_labels)
    return None
