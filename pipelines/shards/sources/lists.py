"""List files to source items: .csv, .tsv, .jsonl, .parquet (columns) or .txt (a path or URL per line).

A relative path is relative to the list's folder. Rows are read in batches, so a list may have any length; a row
that names no image or video is rejected with its line.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.base.errors import DataError, UsageError
from pipelines.base.paths import is_file_url, path_of_file_url
from pipelines.shards.format.locations import is_remote, open_binary
from pipelines.shards.sources.items import Found, Note, Reject, SourceItem, kind_of, local_item, printable, safe_key
from pipelines.shards.sources.labels import label_text, no_label_text, split_name
from pipelines.shards.sources.layout import Layout, LayoutFinder
from pipelines.shards.sources.list_rows import LIST_SUFFIXES, ListColumns, ListFacts, Row, read_rows

__all__ = ["LIST_SUFFIXES", "ListColumns", "list_items"]


def list_items(location: Path | str, columns: ListColumns, *, with_labels: bool) -> Iterator[Found]:
    """Yield one item or reject for each row. Raises UsageError (no such column) or DataError (damaged list)."""
    name = str(location).rpartition("/")[2]
    layout = _layout(location, columns)
    # Asked once: for every row it would take longer than the rest of it.
    folder = os.path.dirname(os.path.abspath(location))
    facts, num_items, num_labels = ListFacts(), 0, 0
    for row in _rows(location, columns, facts):
        try:
            item = _item(row, str(location), folder, layout, with_labels=with_labels)
        except ValueError as error:
            source = printable(f"{name}:{row.number}" + (f" {row.path}" if row.path else ""))
            yield Reject(key=safe_key(source), source=source, reason=str(error))
            continue
        if isinstance(item, SourceItem):
            num_items, num_labels = num_items + 1, num_labels + (item.label is not None)
        yield item
    if with_labels and num_items and not num_labels and (found := facts.label_columns()):
        yield Note(name, no_label_text(found))


def _rows(location: Path | str, columns: ListColumns, facts: ListFacts) -> Iterator[Row]:
    try:
        file = open_binary(location)
    except OSError as error:
        raise UsageError(f"{location}: cannot read this list ({error.strerror}). Mend it, or leave it out.") from error
    with file:
        try:
            yield from read_rows(file, str(location), columns, facts)
        except (csv.Error, ValueError, OSError) as error:
            raise DataError(f"{location}: damaged list ({error}). Mend it, or leave it out.") from error


def _layout(location: Path | str, columns: ListColumns) -> Layout:
    """Return the level of splits, if all paths lie in folders such as train/ and test/ and no column says the split.

    The first row ends the search in nearly all lists; a list that has such folders is read twice.
    """
    finder, facts = LayoutFinder(), ListFacts()
    for row in _rows(location, columns, facts):
        if "split" in facts.chosen:
            return Layout()
        if isinstance(row.path, str) and kind_of(row.path):
            # Only the level of splits is looked for: labels come from a column, not from folders.
            finder.add(_source(row.path).split("/")[:-1], is_image=False)
            if not finder.has_split_level:
                return Layout()
    # Two at least: a list of absolute paths may well lie in a folder that is called test.
    return finder.layout(min_splits=2)


def _item(row: Row, location: str, folder: str, layout: Layout, *, with_labels: bool) -> SourceItem | Reject:
    """Return the item of a row, or a reject for what is no regular file. Raises ValueError if it is no item."""
    # 1. What no row may be.
    if row.problem:
        raise ValueError(row.problem)
    if not isinstance(row.path, str) or not row.path:
        raise ValueError("no path in this row" if not row.path else f"path {str(row.path)[:60]!r} is not a text")
    label = label_text(row.label) if with_labels else None
    split = split_name(row.split)
    if split is None and layout.split_level is not None:
        _, split = layout.of(_source(row.path).split("/")[:-1])
    # 2. Where it is: a file URL is on this machine, wherever the list is.
    item: SourceItem | Reject
    if "://" not in row.path and not is_remote(location):
        item = _local_item(row.path, folder, label, split)
    elif is_file_url(row.path):
        item = _local_item(path_of_file_url(row.path), folder, label, split)
    elif is_remote(row.path):
        item = _remote_item(row.path)._replace(label=label, split=split)
    else:
        source = _source(row.path)
        item = _remote_item(f"{location.rpartition('/')[0]}/{row.path}")
        item = item._replace(source=printable(source), key=safe_key(source), label=label, split=split)
    # 3. Its own key; the dot keeps a dot in the key from being taken for a suffix.
    if row.key not in (None, "") and isinstance(item, SourceItem):
        item = item._replace(key=safe_key(f"{printable(str(row.key))}."))
    return item


def _local_item(path: str, folder: str, label: str | None, split: str | None) -> SourceItem | Reject:
    kind = kind_of(path)
    if kind is None:
        raise ValueError("neither an image nor a video, by its suffix")
    full_path = os.path.join(folder, path)
    try:
        facts = os.stat(full_path)
    except OSError:
        facts = None
    return local_item(full_path, _source(path), kind, facts, label=label, split=split)


def _remote_item(url: str) -> SourceItem:
    """Return the item of a URL, without a look at the other side.

    One with no suffix is taken for an image: many servers of images have none.
    """
    parts = urlsplit(url)
    kind = kind_of(parts.path) or "image"
    url = printable(url)
    # Without a suffix, the query may be all that tells images apart, so it stays.
    source = _source(f"{parts.netloc}{parts.path}" if kind_of(parts.path) else url.partition("://")[2])
    return SourceItem(url, "file", 0, -1, 0, source, safe_key(source), kind)


def _source(path: str) -> str:
    if "./" not in path and "//" not in path and not path.startswith("/") and not path.endswith(("/", ".")):
        return path  # nearly all
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))
