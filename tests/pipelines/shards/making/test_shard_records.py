from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.shards.format.storage import Storage, storage_of
from pipelines.shards.format.table import SAMPLE_SCHEMA
from pipelines.shards.making.shard_plan import PlannedShard
from pipelines.shards.making.shard_records import (
    ShardRecord,
    fingerprint,
    load_record,
    record_name,
    save_record,
    tar_name,
)
from pipelines.shards.sources.item_columns import Places, pack
from pipelines.shards.sources.items import Reject, SourceItem

NAME = "train-images-000000.tar"
SETTINGS = {"codec": "mjpeg"}
ROWS = [{"key": "a", "offset": 512, "size": 3, "width": 1, "height": 2, "label": -1, "num_frames": 1, "fps": 0.0}]
RECORD = ShardRecord(
    name=NAME,
    kind="image",
    split="train",
    fingerprint="f" * 64,
    num_samples=1,
    shard_bytes=5,
    sha256="a" * 64,
    is_final=True,
    rejects=(Reject(key="b", source="b.jpg", reason="bäd"),),
    dropped={"cut": 2},
    samples=pa.RecordBatch.from_pylist(ROWS, schema=SAMPLE_SCHEMA),
)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """One finished shard and its record."""
    found = storage_of(tmp_path)
    found.make()
    (tmp_path / NAME).write_bytes(b"12345")
    (tmp_path / "train-images-000000.idx").write_text("v1.2 1\n")
    save_record(found, RECORD)
    return found


def test_record_comes_back(storage: Storage) -> None:
    found = load_record(storage, NAME)
    assert found is not None
    assert found.samples.to_pylist() == ROWS
    assert replace(found, samples=RECORD.samples) == RECORD
    assert (found.shard.name, found.shard.num_samples) == (NAME, 1)


def test_names_there_and_back() -> None:
    assert record_name(NAME) == ".build/train-images-000000.arrow"
    assert tar_name(record_name(NAME)) == NAME


@pytest.mark.parametrize("name", [NAME, "train-images-000000.idx", ".build/train-images-000000.arrow"])
def test_missing_file_makes_the_record_void(storage: Storage, tmp_path: Path, name: str) -> None:
    (tmp_path / name).unlink()
    assert load_record(storage, NAME) is None


@pytest.mark.parametrize(("name", "content"), [(NAME, b"1234"), ("train-images-000000.idx", b"")])
def test_file_of_another_size_makes_the_record_void(
    storage: Storage, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert load_record(storage, NAME) is None


def test_cut_or_changed_record_is_void_or_says_the_same(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / record_name(NAME)
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        assert load_record(storage, NAME) is None
    for at in range(0, len(whole), 11):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        load_record(storage, NAME)  # damage in a number may go unseen, but nothing raises


def test_shard_without_samples_needs_no_tar(tmp_path: Path) -> None:
    storage = storage_of(tmp_path)
    storage.make()
    empty = replace(RECORD, num_samples=0, shard_bytes=0, sha256="", samples=RECORD.samples.slice(0, 0))
    save_record(storage, empty)
    found = load_record(storage, NAME)
    assert found is not None
    assert found.num_samples == 0


def planned(**changes: Any) -> PlannedShard:
    items = [SourceItem(f"/data/{n}.jpg", "file", 0, 10, 7, f"{n}.jpg", str(n), "image") for n in range(3)]
    items[1] = items[1]._replace(**changes)
    places = Places()
    rows = pack(items, [0, 1, 0], places, keep_keys=False)
    return PlannedShard(name=NAME, kind="image", split="train", num_samples=3, rows=rows, places=tuple(places.table))


def test_same_rows_and_settings_have_the_same_fingerprint() -> None:
    assert fingerprint(SETTINGS, planned()) == fingerprint(dict(SETTINGS), planned())


@pytest.mark.parametrize(
    "change",
    [{"size": 11}, {"modified_ns": 8}, {"key": "x"}, {"location": "/other/1.jpg"}, {"offset": 512}, {"via": "tar"}],
)
def test_changed_item_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(SETTINGS, planned(**change)) != fingerprint(SETTINGS, planned())


@pytest.mark.parametrize("change", [{"name": "x.tar"}, {"kind": "clip"}, {"split": "val"}])
def test_changed_shard_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(SETTINGS, replace(planned(), **change)) != fingerprint(SETTINGS, planned())


def test_other_settings_change_the_fingerprint() -> None:
    assert fingerprint({"codec": "vp9"}, planned()) != fingerprint(SETTINGS, planned())


def test_fingerprint_of_a_part_of_a_larger_batch_is_the_same() -> None:
    # Rows come from a file in one build and from the middle of a batch in memory in another.
    shard = planned()
    larger = pa.Table.from_batches([shard.rows.slice(2), shard.rows, shard.rows]).combine_chunks().to_batches()[0]
    assert fingerprint(SETTINGS, replace(shard, rows=larger.slice(1, 3))) == fingerprint(SETTINGS, shard)
