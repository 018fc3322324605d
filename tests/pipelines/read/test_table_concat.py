"""Joined tables: all rows of all folders, read through one reader, classes matched by name."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from pipelines.read.reader import SampleReader
from pipelines.read.table_concat import concat_tables
from pipelines.shards.format.manifest import ManifestWriter, load_manifest
from pipelines.shards.format.storage import storage_of


@pytest.fixture
def tables(small_shards):
    return [
        load_manifest(small_shards(images=count, name=name, per_shard=4)).select("image", "train")
        for name, count in (("first", 7), ("second", 5))
    ]


def relabelled(table, labels):
    """The same folder with other class names."""
    manifest = load_manifest(table.folder)
    batches = [(shard, manifest.samples_of(index)) for index, shard in enumerate(manifest.shards)]
    with ManifestWriter(storage_of(table.folder), labels) as writer:
        for shard, batch in batches:
            writer.add(shard, batch)
    return load_manifest(table.folder).select("image", "train")


def test_one_table_is_itself(tables):
    assert concat_tables(tables[:1]) is tables[0]


def test_rows_come_one_table_after_the_other(tables):
    table = concat_tables(tables)
    assert len(table) == 12
    assert [*table.keys] == [*tables[0].keys, *tables[1].keys]
    for name in ("offset", "size", "width", "height", "label", "num_frames"):
        expected = np.concatenate([getattr(one, name) for one in tables])
        np.testing.assert_array_equal(getattr(table, name), expected)
    assert table.shard_index.tolist() == [0] * 4 + [1] * 3 + [2] * 4 + [3]


def test_the_bytes_are_those_of_the_folders(tables):
    reader, readers = SampleReader(concat_tables(tables)), [SampleReader(one) for one in tables]
    expected = [bytes(one.read(row)) for one, table in zip(readers, tables, strict=True) for row in range(len(table))]
    assert [bytes(reader.read(row)) for row in range(12)] == expected


def test_shards_are_named_with_their_folder(tables):
    names = [shard.name for shard in concat_tables(tables).shards]
    assert names[0] == str(tables[0].folder / "train-images-000000.tar")
    assert len(set(names)) == 4


def test_classes_are_matched_by_name(tables):
    second = relabelled(tables[1], ("plant", "stone", "bird"))
    table = concat_tables([tables[0], second])
    assert table.labels == ("bird", "fish", "plant", "stone")
    before, after = second.label, table.label[7:]
    assert [second.labels[index] for index in before] == [table.labels[index] for index in after]


def test_no_label_stays_no_label(tables):
    folder = tables[1].folder
    manifest = load_manifest(folder)
    batches = [(shard, manifest.samples_of(index)) for index, shard in enumerate(manifest.shards)]
    with ManifestWriter(storage_of(folder), ()) as writer:
        for shard, batch in batches:
            none = np.full(batch.num_rows, -1, np.int32)
            writer.add(shard, batch.set_column(5, batch.schema.field(5), pa.array(none)))
    table = concat_tables([tables[0], load_manifest(folder).select("image", "train")])
    assert set(table.label[7:].tolist()) == {-1}


def test_it_can_be_pickled(tables):
    table = pickle.loads(pickle.dumps(concat_tables(tables)))
    assert [*table.keys] == [*tables[0].keys, *tables[1].keys]
