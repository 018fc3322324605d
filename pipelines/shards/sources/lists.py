"""List files to source items: .csv, .tsv, .jsonl, .parquet (columns) or .txt (a path or URL per line).

A relative path is relative to the list's folder. Rows are read in batches, so a list may have any length; a row
that names no image or video is rejected with its line.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO
from urllib.parse import urlsplit

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.format.locations import is_remote, open_binary
from pipelines.shards.sources.items import Found, Reject, SourceItem, kind_of, local_item, printable, safe_key

__all__ = ["LIST_SUFFIXES", "ListColumns", "label_text", "list_items", "split_name"]

LIST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt"})
BATCH_ROWS = 10_000
GUESSES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "video", "url", "uri"),
    "label": ("label", "class", "class_name", "target"),
    "split": ("split", "subset"),
    "key": ("key", "__key__"),
}
SPLITS = {"training": "train", "validation": "val", "valid": "val", "dev": "val"}
SPLIT_PATTERN = re.compile(r"\w{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListColumns:
    """Names of columns; None takes the first one there of path, file, filename, image, url ... (see GUESSES)."""

    path: str | None = None
    label: str | None = None
    split: str | None = None
    key: str | None = None


class _Row(NamedTuple):
    number: int
    path: Any
    label: Any = None
    split: Any = None
    key: Any = None


def list_items(location: Path | str, columns: ListColumns, *, with_labels: bool) -> Iterator[Found]:
    """Items of one list. Raises UsageError (no such column) or DataError (damaged list) while it is read."""
    name = str(location).rpartition("/")[2]
    for row in _rows(location, columns):
        try:
            yield _item(row, str(location), with_labels=with_labels)
        except ValueError as error:
            source = printable(f"{name}:{row.number}" + (f" {row.path}" if row.path else ""))
            yield Reject(key=safe_key(source), source=source, reason=str(error))


def label_text(value: Any) -> str | None:
    """A label as text; None for an absent one. Raises ValueError for what is no text and no number."""
    if value is None or value == "":
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, (str, int)):
        return printable(str(value))
    raise ValueError(f"label {str(value)[:60]!r}; need a text or a number")


def split_name(value: Any) -> str | None:
    """A split by our name: train, val, or another word, such as test. Raises ValueError for anything else."""
    if value is None or value == "":
        return None
    name = str(value).lower()
    if not SPLIT_PATTERN.fullmatch(name):
        raise ValueError(f"split {name[:60]!r}; need one word of letters and digits, such as train or val")
    return SPLITS.get(name, name)


def _item(row: _Row, location: str, *, with_labels: bool) -> SourceItem | Reject:
    if not isinstance(row.path, str) or not row.path:
        raise ValueError("no path in this row" if not row.path else f"path {str(row.path)[:60]!r} is not a text")
    label = label_text(row.label) if with_labels else None
    split = split_name(row.split)
    item: SourceItem | Reject
    if is_remote(row.path):
        item = _remote_item(row.path)
    elif is_remote(location):
        source = _source(row.path)
        url = f"{location.rpartition('/')[0]}/{row.path}"
        item = _remote_item(url)._replace(source=printable(source), key=safe_key(source))
    else:
        item = _local_item(row.path.removeprefix("file://"), os.path.dirname(os.path.abspath(location)))
    if isinstance(item, SourceItem):
        # The dot keeps a dot in the key from being taken for a suffix.
        key = item.key if row.key in (None, "") else safe_key(f"{printable(str(row.key))}.")
        item = item._replace(key=key, label=label, split=split)
    return item


def _local_item(path: str, folder: str) -> SourceItem | Reject:
    kind = kind_of(path)
    if kind is None:
        raise ValueError("neither an image nor a video, by its suffix")
    full_path = os.path.join(folder, path)
    try:
        facts = os.stat(full_path)
    except OSError:
        facts = None
    return local_item(full_path, _source(path), kind, facts)


def _remote_item(url: str) -> SourceItem:
    """Without a look at the other side. A URL with no suffix is taken for an image: many image servers have none."""
    parts = urlsplit(url)
    kind = kind_of(parts.path) or "image"
    url = printable(url)
    source = _source(f"{parts.netloc}{parts.path}" if kind_of(parts.path) else url.partition("://")[2])
    return SourceItem(url, "file", 0, -1, 0, source, safe_key(source), kind)


def _source(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def _rows(location: Path | str, columns: ListColumns) -> Iterator[_Row]:
    suffix = os.path.splitext(str(location))[1].lower()
    read = {".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows, ".txt": _text_rows}.get(suffix, _json_rows)
    try:
        file = open_binary(location)
    except OSError as error:
        raise UsageError(f"{location}: cannot read this list ({error.strerror}). Mend it, or leave it out.") from error
    with file:
        try:
            yield from read(file, str(location), columns)
        except (csv.Error, ValueError, OSError) as error:
            raise DataError(f"{location}: damaged list ({error}). Mend it, or leave it out.") from error


def _lines(file: BinaryIO) -> TextIO:
    # Bytes that are no UTF-8 are kept, because they may be a file's name.
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _text_rows(file: BinaryIO, where: str, columns: ListColumns) -> Iterator[_Row]:
    for number, line in enumerate(_lines(file), start=1):
        if path := line.rstrip("\r\n"):
            yield _Row(number, path)


def _csv_rows(file: BinaryIO, where: str, columns: ListColumns) -> Iterator[_Row]:
    reader = csv.reader(_lines(file), delimiter="\t" if where.lower().endswith(".tsv") else ",")
    header = [name.strip() for name in next(reader, [])]
    if not header:
        return
    chosen = _choose(header, columns, where)
    indices = [None if name is None else header.index(name) for name in chosen]
    for row in reader:
        if row:
            yield _Row(reader.line_num, *(row[i] if i is not None and i < len(row) else None for i in indices))


def _json_rows(file: BinaryIO, where: str, columns: ListColumns) -> Iterator[_Row]:
    is_checked = False
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = {}
        row = row if isinstance(row, dict) else {}
        if row and not is_checked:
            _choose(list(row), columns, where)
            is_checked = True
        # Unlike in a table, each row may have columns of its own.
        yield _Row(number, *(row.get(_column(role, list(row), columns) or "") for role in GUESSES))


def _parquet_rows(file: BinaryIO, where: str, columns: ListColumns) -> Iterator[_Row]:
    import pyarrow.parquet as pq
    from pyarrow import types

    table = pq.ParquetFile(file)
    chosen = _choose(table.schema_arrow.names, columns, where)
    path_type = table.schema_arrow.field(chosen[0]).type
    if not (types.is_string(path_type) or types.is_large_string(path_type) or types.is_dictionary(path_type)):
        raise UsageError(
            f"{where}: column {chosen[0]} holds {str(path_type)[:60]}; need paths or URLs. Name another path_column; "
            "pictures inside of Parquet: load it with Hugging Face datasets, save_to_disk, and give that folder."
        )
    number = 0
    for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=[name for name in chosen if name is not None]):
        values = [batch.column(name).to_pylist() if name is not None else repeat(None) for name in chosen]
        for row in zip(*values):  # noqa: B905  (`repeat` has no end)
            number += 1
            yield _Row(number, *row)


def _choose(names: Sequence[str], columns: ListColumns, where: str) -> list[str | None]:
    """The columns for path, label, split, key. Raises UsageError if one that is asked for, or the path, is missing."""
    shown = ", ".join(names)[:300]
    for role in GUESSES:
        asked = getattr(columns, role)
        if asked is not None and asked not in names:
            raise UsageError(f"{where}: no column {asked}; it has {shown}. Set {role}_column to one of them.")
    chosen = [_column(role, names, columns) for role in GUESSES]
    if chosen[0] is None:
        hint = "It seems to have no header line; add one" if any(map(kind_of, names)) else "Set path_column to one"
        raise UsageError(f"{where}: no column of paths or URLs among {shown}. {hint}.")
    return chosen


def _column(role: str, names: Sequence[str], columns: ListColumns) -> str | None:
    asked: str | None = getattr(columns, role)
    return asked or next((name for name in GUESSES[role] if name in names), None)
