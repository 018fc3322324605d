"""Rows of list files, format by format: an open file in; path, label, split and key of every row out, with its line.

No row is lost: what cannot be read as a row comes out with its problem, and an open quotation mark, after which csv
would take the lines that follow for one value, takes its own line along and no other.
"""

import csv
import io
import json
import os
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import Any, BinaryIO, Literal, NamedTuple, TextIO

from pipelines.base.errors import UsageError
from pipelines.base.paths import is_file_url
from pipelines.shards.format.locations import is_remote
from pipelines.shards.sources.items import kind_of
from pipelines.shards.sources.labels import LABEL_COLUMNS, find_column

__all__ = ["LIST_SUFFIXES", "ListColumns", "ListFacts", "Row", "read_rows"]

LIST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt"})
BATCH_ROWS = 10_000
MOST_SHOWN = 300
MAX_COLUMN_SETS = 100
"""Rows of a .jsonl may each have columns of their own; so many sets of them are remembered."""
FILE_NAME = re.compile(r"\S*\w\.\w{1,10}")
GUESSES: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "video", "url", "uri"),
    "label": LABEL_COLUMNS,
    "split": ("split", "subset"),
    "key": ("key", "__key__"),
}
STRAY_QUOTE = "a value goes on behind its closing quotation mark: quote all of it, and double the marks in it"
OPEN_QUOTE = "a quotation mark opens in this line and is not closed before the next row: close it, or double it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListColumns:
    """Names of columns; None takes the first one there of path, file, filename, image, url ... (see GUESSES)."""

    path: str | None = None
    label: str | None = None
    split: str | None = None
    key: str | None = None


@dataclass(slots=True)
class ListFacts:
    """Columns of a list, known once its first row is read: all names, and those in use by role."""

    names: list[str] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)

    def label_columns(self) -> list[str]:
        """Return the columns in which labels were or may be."""
        others = {name for role, name in self.chosen.items() if role != "label"}
        return [name for name in self.names if name not in others]


class Row(NamedTuple):
    """One row. `number`: its (first) line, or in a .parquet its number, from 1. `problem`: why it cannot be used."""

    number: int
    path: Any
    label: Any = None
    split: Any = None
    key: Any = None
    problem: str | None = None


def read_rows(file: BinaryIO, where: str, columns: ListColumns, facts: ListFacts) -> Iterator[Row]:
    """Yield all rows of a list but blank lines, which are none. `where`: its name, the suffix of which is its format.

    Raises UsageError (no such column), or csv.Error or ValueError (damaged).
    """
    suffix = os.path.splitext(where)[1].lower()
    read = {".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows, ".txt": _text_rows}.get(suffix, _json_rows)
    return read(file, where, columns, facts)


def _lines(file: BinaryIO) -> TextIO:
    # Bytes that are no UTF-8 are kept, because they may be a file's name.
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _text_rows(file: BinaryIO, where: str, columns: ListColumns, facts: ListFacts) -> Iterator[Row]:
    for number, line in enumerate(_lines(file), start=1):
        if path := line.rstrip("\r\n"):
            yield Row(number, path)


def _csv_rows(file: BinaryIO, where: str, columns: ListColumns, facts: ListFacts) -> Iterator[Row]:
    delimiter = "\t" if where.lower().endswith(".tsv") else ","
    feed = _Lines(_lines(file))
    records = _records(feed, delimiter)
    header = next((record for record in records if record.values), None)
    if header is None:
        return
    names = [name.strip() for name in header.values]
    if header.mark == "open":
        raise UsageError(f"{where}:{header.number}: {OPEN_QUOTE}.")
    chosen = _choose(names, columns, where, facts)
    indices = [None if name is None else names.index(name) for name in chosen]
    # From here on, a record that joins several lines is judged by its column of paths.
    feed.path_index = indices[0]
    # A None behind the values stands for a column that is not there.
    pick = itemgetter(*(len(names) if i is None else i for i in indices))
    for record in records:
        values = record.values
        if len(values) == len(names) and not record.mark:  # nearly all
            yield Row(record.number, *pick([*values, None]))
            continue
        if not values:
            continue
        chosen_values = [values[i] if i is not None and i < len(values) else None for i in indices]
        if problem := _problem(record, len(names), chosen_values, delimiter):
            yield Row(record.number, chosen_values[0], problem=problem)
        else:
            yield Row(record.number, *chosen_values)


def _problem(record: "_Record", num_columns: int, used: Sequence[str | None], delimiter: str) -> str | None:
    """Return why a record is no certain row, or None. `used`: its values of path, label, split and key."""
    num_values = len(record.values)
    # In a .tsv no value holds a tab: with the right number of them, the mark is a character like others.
    if record.mark == "open" and not (delimiter == "\t" and num_values == num_columns):
        return OPEN_QUOTE
    if record.mark == "stray" and (
        num_values != num_columns or any(one and (delimiter in one or '"' in one) for one in used)
    ):
        return STRAY_QUOTE
    if any(record.values[num_columns:]):
        return f"{num_values} values for {num_columns} columns: one with a separator in it needs quotation marks"
    return None


class _Lines:
    """Lines of a file. `taken`: those of the record that is being read, some of which can be given back.

    path_index: the column of paths, as soon as it is known.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self.taken: list[str] = []
        self.number = 0
        self.path_index: int | None = None
        self._lines, self._again = lines, deque[str]()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self.taken.append(line)
        return line

    def keep_first(self) -> None:
        """Give all lines of this record back but the first."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
        del self.taken[1:]


class _Record(NamedTuple):
    """Values of one record, and its first line. `mark`: what is wrong with a quotation mark in it."""

    number: int
    values: list[str]
    mark: Literal["", "open", "stray"] = ""


def _records(feed: _Lines, delimiter: str) -> Iterator[_Record]:
    """Yield what csv makes of the lines, unless it joins lines that are rows of their own. Raises csv.Error."""
    # `strict` makes an error of a value that goes on behind its closing mark, and of one that never closes.
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.taken.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            values = None
            # A value larger than csv's limit: to read its line once more would end in the same error.
            if len(feed.taken) == 1 and "limit" in str(error):
                raise csv.Error(f"line {feed.number}: {error}") from error
        if values is not None and (len(feed.taken) == 1 or not _joins_rows(feed, delimiter)):
            yield _Record(feed.number - len(feed.taken) + 1, values)
            continue
        # 1. The lines after the first may be good rows: csv shall read them again.
        feed.keep_first()
        (line,) = feed.taken
        # 2. A mark that closes in its own line is read as csv does by default: its values may be what was meant.
        alone = csv.reader([line, ""], delimiter=delimiter)
        values = next(alone)
        if alone.line_num == 1:
            yield _Record(feed.number, values, "stray")
        else:
            yield _Record(feed.number, line.rstrip("\r\n").split(delimiter), "open")


def _joins_rows(feed: _Lines, delimiter: str) -> bool:
    """Return whether several lines of a record have a path where a row has it, as no caption of several lines has."""
    num_paths = 0
    for index, line in enumerate(feed.taken):
        # The first line ends inside of a quoted value, so that csv would not take it for a record.
        values = (
            line.rstrip("\r\n").split(delimiter) if index == 0 else next(csv.reader([line], delimiter=delimiter), [])
        )
        at = feed.path_index
        places = range(len(values)) if at is None else range(at, min(at + 1, len(values)))
        num_paths += any(_looks_like_path(values[place].strip()) for place in places)
    return num_paths > 1


def _looks_like_path(text: str) -> bool:
    return FILE_NAME.fullmatch(text) is not None or kind_of(text) is not None or is_remote(text) or is_file_url(text)


def _json_rows(file: BinaryIO, where: str, columns: ListColumns, facts: ListFacts) -> Iterator[Row]:
    # Unlike in a table, each row may have columns of its own; nearly always they are those of the row before.
    chosen_of: dict[tuple[str, ...], list[str | None]] = {}
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield Row(number, None, problem="not valid JSON")
            continue
        if not isinstance(row, dict):
            yield Row(number, None, problem="not a JSON object, such as {...}")
            continue
        names = tuple(row)
        if names and not facts.names:
            _choose(names, columns, where, facts)
        if (chosen := chosen_of.get(names)) is None:
            if len(chosen_of) >= MAX_COLUMN_SETS:
                chosen_of.clear()
            chosen = chosen_of[names] = [_column(role, names, columns) for role in GUESSES]
        yield Row(number, *(None if name is None else row.get(name) for name in chosen))


def _parquet_rows(file: BinaryIO, where: str, columns: ListColumns, facts: ListFacts) -> Iterator[Row]:
    import pyarrow.parquet as pq
    from pyarrow import types

    table = pq.ParquetFile(file)
    schema = table.schema_arrow
    nested = {name for name in schema.names if types.is_nested(schema.field(name).type)}
    chosen = _choose(schema.names, columns, where, facts, no_labels=nested)
    path_type = schema.field(chosen[0]).type
    # Bytes and structs are pictures inside of the file, to which no path leads.
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
            yield Row(number, *row)


def _choose(
    names: Sequence[str], columns: ListColumns, where: str, facts: ListFacts, no_labels: Collection[str] = ()
) -> list[str | None]:
    """Return the columns for path, label, split, key. Raises UsageError if a given one, or the path, is missing.

    no_labels: columns that cannot be labels, whatever their name.
    """
    facts.names = list(names)
    shown = ", ".join(names)[:MOST_SHOWN]
    for role in GUESSES:
        given = getattr(columns, role)
        if given is not None and given not in names:
            raise UsageError(f"{where}: no column {given}; it has {shown}. Set {role}_column to one of them.")
    usable = {"label": [name for name in names if name not in no_labels]}
    chosen = [_column(role, usable.get(role, names), columns) for role in GUESSES]
    facts.chosen = {role: name for role, name in zip(GUESSES, chosen, strict=True) if name is not None}
    if chosen[0] is None:
        hint = "It seems to have no header line; add one" if any(map(kind_of, names)) else "Set path_column to one"
        raise UsageError(f"{where}: no column of paths or URLs among {shown}. {hint}.")
    return chosen


def _column(role: str, names: Sequence[str], columns: ListColumns) -> str | None:
    given: str | None = getattr(columns, role)
    return given or find_column(GUESSES[role], names)
