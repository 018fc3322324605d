"""Concatenate the sample tables of several folders, for a mix: the rows of the first, then of the second, and so on.

The new table names shards by full paths, so that one reader serves all folders and a bad sample is reported with its
folder. Classes are matched by name.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.shards.format.locations import is_remote
from pipelines.shards.format.manifest import SAMPLE_SCHEMA, SampleFile, SampleTable, Shard
from pipelines.shards.format.shard_place import shard_place

__all__ = ["concat_tables"]


def concat_tables(tables: Sequence[SampleTable]) -> SampleTable:
    """Return one table of all rows, in order; a single table is returned as it is. All tables must be of one kind.

    Its labels are the classes of all tables, each once, in the order of their first appearance.
    """
    # As it is, so that a pipeline of one folder reports shards by their plain names.
    if len(tables) == 1:
        return tables[0]
    labels = tuple(dict.fromkeys(label for table in tables for label in table.labels))
    shards = [_named_in_full(shard, table.folder) for table in tables for shard in table.shards]
    return SampleTable(
        folder=Path(),
        kind=tables[0].kind,
        shards=tuple(shards),
        labels=labels,
        samples=_JoinedSamples(tables, labels),
        batch_indices=range(len(shards)),
    )


def _named_in_full(shard: Shard, folder: Path) -> Shard:
    """The same shard with a name, and a location if it has one, that does not depend on its folder."""
    elsewhere = shard.elsewhere
    if elsewhere is not None and not is_remote(elsewhere.location):
        path, url = shard_place(folder, shard)
        elsewhere = replace(elsewhere, location=url or str(path))
    return replace(shard, name=str(folder / shard.name), elsewhere=elsewhere)


class _JoinedSamples(SampleFile):
    """Sample files of several tables as one, with labels that are indices into the classes of all tables."""

    def __init__(self, tables: Sequence[SampleTable], labels: tuple[str, ...]) -> None:
        self._tables, self._labels = tables, labels
        self._places = [(table, index) for table in tables for index in table.batch_indices]

    def __reduce__(self) -> tuple[type["_JoinedSamples"], tuple[Sequence[SampleTable], tuple[str, ...]]]:  # type: ignore[override]
        return _JoinedSamples, (self._tables, self._labels)

    def batch(self, index: int) -> pa.RecordBatch:
        table, inner = self._places[index]
        batch = table.samples.batch(inner)
        if table.labels == self._labels:
            return batch
        # Index -1, "no label", finds the last entry, which is -1.
        mapped = np.array([*map(self._labels.index, table.labels), -1], np.int32)[batch.column("label").to_numpy()]
        columns = [pa.array(mapped) if name == "label" else batch.column(name) for name in SAMPLE_SCHEMA.names]
        return pa.record_batch(columns, schema=SAMPLE_SCHEMA)
