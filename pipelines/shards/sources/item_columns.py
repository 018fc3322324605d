"""Items as columns: source items in, Arrow record batches of half their size out, and items again.

Text that repeats itself is left out: the location is a number into a table of places where it is place + source,
and the key is empty where it is the source without its suffix.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from pipelines.shards.format.columns import number_column, numbers_of, text_column
from pipelines.shards.format.table import Kind
from pipelines.shards.sources.items import SourceItem, Via

__all__ = ["ROW_SCHEMA", "VIAS", "Place", "Places", "items_of", "key_hash", "keys_of", "pack", "renumbered"]

VIAS: tuple[Via, ...] = ("file", "tar", "dataset")
ROW_SCHEMA = pa.schema(
    [
        ("place", pa.int32()),
        ("via", pa.int8()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("modified_ns", pa.int64()),
        ("source", pa.string()),
        ("key", pa.string()),
        ("label", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
    ]
)
"""via: index into VIAS. label: index of the class, -1 for none. start_s, end_s: part of a video; -1 for its end."""


class Place(NamedTuple):
    """Part of a location before the source; or, if `is_whole`, all of the location."""

    text: str
    is_whole: bool


class Places:
    """A table of places, each once: folders, tars, hosts."""

    def __init__(self) -> None:
        self.table: list[Place] = []
        self._numbers: dict[Place, int] = {}

    def number(self, location: str, source: str) -> int:
        """Return the place of an item, added if it is new."""
        is_whole = not location.endswith(source)
        place = Place(location if is_whole else location[: len(location) - len(source)], is_whole)
        number = self._numbers.setdefault(place, len(self.table))
        if number == len(self.table):
            self.table.append(place)
        return number


def key_hash(key: str) -> int:
    """Return 64 bits that depend on the key alone: the order of a shuffled plan."""
    return xxhash.xxh3_64_intdigest(key.encode())


def pack(items: Sequence[SourceItem], labels: Iterable[int], places: Places, *, keep_keys: bool) -> pa.RecordBatch:
    """Return items and their labels' numbers as rows; `keep_keys` writes out every key, for sorting by it."""
    location, via, offset, size, modified_ns, source, key, *_ = zip(*items, strict=True)
    number_of = {name: number for number, name in enumerate(VIAS)}
    # The key is nearly always the source without its suffix: leaving it out halves a row.
    short_keys = key if keep_keys else ["" if _stem(s) == k else k for s, k in zip(source, key, strict=True)]
    columns = [
        number_column(map(places.number, location, source), pa.int32()),
        number_column(map(number_of.__getitem__, via), pa.int8()),
        number_column(offset, pa.int64()),
        number_column(size, pa.int64()),
        number_column(modified_ns, pa.int64()),
        text_column(source),
        text_column(short_keys),
        number_column(labels, pa.int32()),
        number_column(np.zeros(len(items)), pa.float64()),
        number_column(np.full(len(items), -1.0), pa.float64()),
    ]
    return pa.record_batch(columns, schema=ROW_SCHEMA)


def keys_of(rows: pa.RecordBatch) -> list[str]:
    """Return the keys of rows, those left out filled in."""
    pairs = zip(rows.column("key").to_pylist(), rows.column("source").to_pylist(), strict=True)
    return [key or _stem(source) for key, source in pairs]


def renumbered(rows: pa.RecordBatch, table: Sequence[Place]) -> tuple[pa.RecordBatch, tuple[Place, ...]]:
    """Return the rows with a table of the places that they need, in the order in which they need them."""
    numbers = numbers_of(rows.column("place"))
    if not numbers.any():  # one folder, the first in the table: nothing changes
        return rows, tuple(table[:1])
    used, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    # In the order of use, so that a shard does not depend on what else the sources hold.
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    at = rows.schema.get_field_index("place")
    renamed = rows.set_column(at, rows.schema.field(at), number_column(rank[inverse], pa.int32()))
    return renamed, tuple(table[number] for number in used[order].tolist())


def items_of(rows: pa.RecordBatch, table: Sequence[Place], kind: Kind) -> Iterator[SourceItem]:
    """Return the items of rows, without their labels' names and their splits."""
    columns = [rows.column(name).to_pylist() for name in ("place", *SourceItem._fields[1:6])]
    for place, via, offset, size, modified_ns, source, key in zip(*columns, keys_of(rows), strict=True):
        text, is_whole = table[place]
        location = text if is_whole else text + source
        yield SourceItem(location, VIAS[via], offset, size, modified_ns, source, key, kind)


def _stem(source: str) -> str:
    """Return the source without its suffix; of one without a suffix nothing, which no key is."""
    return source[: source.rfind(".")] if "." in source else ""
