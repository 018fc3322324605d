import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.shards.adopting.tar_records import ScannedTar, is_unchanged, load_scan, record_name
from pipelines.shards.adopting.tar_scan import ScanSettings, TarToScan, scan_tar
from pipelines.shards.format.storage import storage_of
from pipelines.shards.media.image_bytes import ImageForm
from tests.made.foreign_tars import write_tar, write_tars


def scanned(folder: Path) -> tuple[ScannedTar, Path]:
    tar = write_tars(folder / "tars", "timm", num_tars=1)[0]
    storage = storage_of(folder / "out")
    storage.make()
    settings = ScanSettings(
        storage=storage, form=ImageForm(check="header"), has_labels=True, label_field=None, is_trusted=False
    )
    assert scan_tar(TarToScan(name="t.tar", location=str(tar), fingerprint="f"), settings) == "t.tar"
    record = load_scan(storage, "t.tar")
    assert record is not None
    return record, tar


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record, tar = scanned(tmp_path)
    assert (record.location, record.fingerprint, record.num_bytes) == (str(tar), "f", tar.stat().st_size)
    assert record.rows.column("key").to_pylist()[0] == "n00000000_0"
    assert record.labels == ("0", "2", "4", "1")
    assert record.rows.column("label").to_pylist() == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", ["cut off", "no index", "gone", "text"])
def test_damaged_records_are_none(tmp_path: Path, damage: str) -> None:
    scanned(tmp_path)
    storage = storage_of(tmp_path / "out")
    path = tmp_path / "out" / record_name("t.tar")
    if damage == "no index":
        (tmp_path / "out" / "t.idx").unlink()
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"text" if damage == "text" else path.read_bytes()[:-200])
    assert load_scan(storage, "t.tar") is None


def test_a_tar_is_unchanged_while_size_and_time_are(tmp_path: Path) -> None:
    record, tar = scanned(tmp_path)
    assert is_unchanged(record)
    assert not is_unchanged(replace(record, location="memory://nothing/t.tar"))
    os.utime(tar, ns=(0, record.modified_ns + 1))
    assert not is_unchanged(record)
    write_tar(tar, [("a.txt", b"")])
    os.utime(tar, ns=(0, record.modified_ns))
    assert not is_unchanged(record)
    tar.unlink()
    assert not is_unchanged(record)
