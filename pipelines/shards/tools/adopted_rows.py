"""An adopted shard on its way into a merged folder: its tar stays, its rows get new labels and keys.

Labels and keys of an adopted tar are those of the manifest, not of its members, so nothing in the tar needs to change.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.shards.format.columns import number_column, numbers_of, text_column
from pipelines.shards.format.locations import is_remote
from pipelines.shards.format.shard_place import shard_place
from pipelines.shards.format.table import Shard

__all__ = ["in_full", "renumbered"]


def in_full(shard: Shard, old: Shard, folder: Path) -> Shard:
    """Return `shard` with the place of `old`, an adopted shard of `folder`, by a path or URL that holds anywhere."""
    assert old.elsewhere is not None
    location = old.elsewhere.location
    if not is_remote(location):
        path, url = shard_place(folder, old)
        location = url or os.path.abspath(path)
    return replace(shard, elsewhere=replace(old.elsewhere, location=location))


def renumbered(samples: pa.RecordBatch, label_numbers: Sequence[int], prefix: str) -> pa.RecordBatch:
    """Return the samples with `prefix` before their keys and label n as label_numbers[n]; -1 stays."""
    # The last entry is for label -1: NumPy counts it from the end.
    labels = np.array([*label_numbers, -1], np.int32)[numbers_of(samples.column("label"))]
    changed = {
        "key": text_column([prefix + key for key in samples.column("key").to_pylist()]),
        "label": number_column(labels, pa.int32()),
    }
    columns = [changed.get(name, samples.column(name)) for name in samples.schema.names]
    return pa.record_batch(columns, schema=samples.schema)
