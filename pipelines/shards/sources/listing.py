"""Sources of a build to items: folders, images, videos, lists, tars and saved datasets, here or behind URLs.

No image or video is opened: kind goes by the name's suffix, and a file whose bytes disagree is rejected later. Items
come in batches, in the order of the sources and of the names in each, so that any number fits in memory.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from pipelines.base.errors import UsageError
from pipelines.shards.format.locations import as_location, filesystem, is_remote, remote_errors
from pipelines.shards.sources.archives import archive_items
from pipelines.shards.sources.folders import folder_items
from pipelines.shards.sources.hf_dataset import dataset_items, is_dataset
from pipelines.shards.sources.items import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Found,
    Ignored,
    Note,
    Reject,
    SourceItem,
    kind_of,
    local_item,
    printable,
    safe_key,
)
from pipelines.shards.sources.layout import open_train, split_of_folder
from pipelines.shards.sources.left_out import LeftOut
from pipelines.shards.sources.lists import LIST_SUFFIXES, ListColumns, list_items

__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "ListColumns", "Listing", "list_sources", "safe_key"]

BATCH_ITEMS = 10_000
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
NO_SPLITS: Mapping[str, Sequence[Path | str]] = {}


class Listing:
    """Images and videos of sources. `items`: batches of at most 10,000, to be iterated once; counts are complete then.

    num_rows = num_items + len(rejects) + num_ignored: rows of lists and datasets, files of folders and tars but for
    hidden ones and the labels in tars. num_items: images and videos, num_videos of them videos. num_ignored: files
    that are neither. rejects: what cannot be an item, such as a list's row without a path. left_out: what to warn of.
    Raises UsageError at the end if there was no item.
    """

    def __init__(self, sources: Sequence[Path | str], found: Sequence[Iterator[Found]], *, with_labels: bool) -> None:
        self.num_rows = self.num_items = self.num_videos = 0
        self.left_out = LeftOut()
        self.rejects: list[Reject] = []
        self.items: Iterator[list[SourceItem]] = self._batches(sources, found, with_labels)

    @property
    def num_ignored(self) -> int:
        return self.left_out.num_ignored

    def _batches(
        self, sources: Sequence[Path | str], found: Sequence[Iterator[Found]], with_labels: bool
    ) -> Iterator[list[SourceItem]]:
        for one_source in found:
            while batch := list(islice(one_source, BATCH_ITEMS)):
                # Nearly all are items: the others are looked at one by one only where there are some.
                items = [one for one in batch if type(one) is SourceItem]
                self.num_rows += len(batch)
                if len(items) < len(batch):
                    self._add_others(batch)
                self.num_items += len(items)
                self.num_videos += self.left_out.add_items(items, with_labels=with_labels)
                if items:
                    yield items
        # Only now: any of the sources may have had some.
        if self.num_items == 0:
            raise UsageError(self._nothing_found(sources))

    def _add_others(self, batch: Sequence[Found]) -> None:
        for one in batch:
            if isinstance(one, Ignored):
                self.left_out.add_ignored(one)
            elif isinstance(one, Reject):
                self.rejects.append(one)
            elif isinstance(one, Note):
                self.left_out.add_note(one)
                # A note is no row, but was counted with its batch.
                self.num_rows -= 1

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
    splits: Mapping[str, Sequence[Path | str]] = NO_SPLITS,
    labels: Literal["auto", "off"] = "auto",
    columns: ListColumns = ListColumns(),  # noqa: B008  (frozen)
) -> Listing:
    """List images and videos of all sources: local paths or URLs of folders, files, lists and tars, saved datasets.

    splits: more sources, all of which go into the split of that name; it wins over what they say themselves. labels
    "auto": class folders, a list's or dataset's label column, or a tar's .cls and .json members. Keys may repeat.
    Raises UsageError at once if a local path or a tar is missing or a tar is compressed; folders and lists are opened
    when their turn comes.
    """
    with_labels = labels == "auto"
    given = [(source, split) for source, split in _with_splits(sources)]
    fixed = [(source, split) for split, several in splits.items() for source in several]
    # Sources for train but none for val: then the rule of --val divides those for train.
    is_open = open_train(splits)
    found = [
        *(
            _split_if_none(_opened(pattern, columns, with_labels), split)
            for source, split in given
            for pattern in _matches(source)
        ),
        *(
            _in_split(_opened(pattern, columns, with_labels), None if split == "train" and is_open else split)
            for source, split in fixed
            for pattern in _matches(source)
        ),
    ]
    return Listing([source for source, _ in (*given, *fixed)], found, with_labels=with_labels)


def _with_splits(sources: Sequence[Path | str]) -> list[tuple[Path | str, str | None]]:
    """Return sources with the splits they are named after, such as train.csv and val.csv, if all are and in several."""
    splits = [split_of_folder(_stem_of(str(source))) for source in sources]
    named = {split for split in splits if split}
    # train.csv alone may mean anything: only several names that differ are taken for splits.
    if None in splits or len(named) < 2:
        return [(source, None) for source in sources]
    is_open = open_train(named)
    return [
        (source, None if is_open and split == "train" else split) for source, split in zip(sources, splits, strict=True)
    ]


def _stem_of(location: str) -> str:
    name = location.rstrip("/").rpartition("/")[2]
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() == ".tar" or suffix.lower() in LIST_SUFFIXES else name


def _split_if_none(found: Iterator[Found], split: str | None) -> Iterator[Found]:
    """Yield what a source gives, items without a split in this one."""
    return (
        found
        if split is None
        else (one._replace(split=split) if isinstance(one, SourceItem) and one.split is None else one for one in found)
    )


def _in_split(found: Iterator[Found], split: str | None) -> Iterator[Found]:
    """Yield what a source gives, all items in one split, whatever the source says."""
    return (one._replace(split=split) if isinstance(one, SourceItem) else one for one in found)


def _opened(source: Path | str, columns: ListColumns, with_labels: bool) -> Iterator[Found]:
    location = as_location(source)
    return (_remote if is_remote(location) else _local)(str(location), columns, with_labels)


def _matches(source: Path | str) -> list[Path | str]:
    """Return the URLs that a pattern such as s3://bucket/train-*.tar stands for; a shell does that for local paths."""
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
    opened = _list_or_tar(path, columns, with_labels)
    if opened is not None:
        return opened
    kind = kind_of(path)
    if kind is None:
        return iter([Ignored(printable(os.path.basename(path)))])
    try:
        facts = os.stat(path)
    except OSError:
        facts = None
    return iter([local_item(os.path.abspath(path), os.path.basename(path), kind, facts)])


def _remote(url: str, columns: ListColumns, with_labels: bool) -> Iterator[Found]:
    opened = _list_or_tar(url, columns, with_labels)
    if opened is not None:
        return opened
    kind = kind_of(url)
    if kind is None:
        return folder_items(url, with_labels=with_labels)
    source = printable(url.rpartition("/")[2])
    return iter([SourceItem(url, "file", 0, -1, 0, source, safe_key(source), kind)])


def _list_or_tar(location: str, columns: ListColumns, with_labels: bool) -> Iterator[Found] | None:
    """Return the items of a list or a tar; None if it is neither, by its suffix."""
    lower = location.lower()
    if lower.endswith((".tar", *COMPRESSED_SUFFIXES)):
        return archive_items(location, with_labels=with_labels, label_column=columns.label)
    if os.path.splitext(lower)[1] in LIST_SUFFIXES:
        return list_items(location, columns, with_labels=with_labels)
    return None
