"""The reader: the bytes that tarfile finds, without unpacking, and errors that name the shard."""

import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipelines.base.errors import DataError
from pipelines.read import reader as reader_module
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest


def bytes_in_tars(folder):
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {member.name.rsplit(".", 1)[0]: tar.extractfile(member).read() for member in tar}
    return found


def test_reads_the_bytes_that_tarfile_finds(small_shards):
    folder = small_shards(images=12)
    table = load_manifest(folder).select("image", "train")
    reader = SampleReader(table)
    assert {key: bytes(reader.read(row)) for row, key in enumerate(table.keys)} == bytes_in_tars(folder)


def test_nothing_is_copied(small_shards):
    reader = SampleReader(load_manifest(small_shards(images=1)).select("image", "train"))
    first, second = (np.frombuffer(reader.read(0), np.uint8) for _ in range(2))
    assert first.ctypes.data == second.ctypes.data


def test_views_outlive_the_shards_being_closed(small_shards, monkeypatch):
    monkeypatch.setattr(reader_module, "MAX_OPEN_SHARDS", 1)
    folder = small_shards(images=12, per_shard=2)
    table = load_manifest(folder).select("image", "train")
    reader = SampleReader(table)
    views = [reader.read(row) for row in range(len(table))]
    expected = bytes_in_tars(folder)
    assert [bytes(view) for view in views] == [expected[key] for key in table.keys]


def test_threads_may_share_a_reader(small_shards):
    folder = small_shards(images=12, per_shard=1)
    table = load_manifest(folder).select("image", "train")
    reader = SampleReader(table)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda row: bytes(reader.read(row % 12)), range(96)))
    expected = bytes_in_tars(folder)
    assert read == [expected[table.keys[row % 12]] for row in range(96)]


def test_a_missing_shard_is_named_before_anything_is_read(small_shards):
    folder = small_shards(images=12)
    (folder / "train-images-000001.tar").unlink()
    with pytest.raises(DataError, match=r"train-images-000001\.tar: cannot read this shard"):
        SampleReader(load_manifest(folder).select("image", "train"))


def test_a_shard_cut_short_is_named(small_shards):
    folder = small_shards(images=12)
    path = folder / "train-images-000002.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"train-images-000002\.tar: \d+ bytes, the manifest says \d+"):
        SampleReader(load_manifest(folder).select("image", "train"))


@pytest.mark.parametrize(("offset", "size"), [(10**9, 5), (-3, 5), (0, 0)])
def test_a_manifest_that_points_outside_the_tar_is_refused(small_shards, offset, size):
    table = load_manifest(small_shards(images=2)).select("image", "train")
    # The columns are cached in the instance, so these stand in for those of a file.
    vars(table).update(offset=np.array([offset, 0]), size=np.array([size, 1]))
    with pytest.raises(DataError, match="does not fit the tar"):
        SampleReader(table).read(0)
