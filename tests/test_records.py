from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.shards.manifest import COLUMNS, Shard
from pipelines.shards.records import RECORD_FOLDER, ShardRecord, fingerprint, load_record, remove_stale, save_record
from pipelines.shards.samples import Position, Reject
from pipelines.shards.sources import SourceFile

SETTINGS = {"codec": "mjpeg", "limits": [1000, 256.0]}
START, END = Position(0), Position(2)


def files(num_files: int = 4) -> list[SourceFile]:
    return [
        SourceFile(
            path=Path(f"{index}.jpg"),
            source=f"{index}.jpg",
            key=f"{index}",
            kind="image",
            label=None,
            file_bytes=10,
            modified_ns=7,
        )
        for index in range(num_files)
    ]


def shard(name: str = "train-images-000000.tar") -> Shard:
    columns = {column: np.array([1, 2], dtype=np.int64) for column in COLUMNS}
    fps = np.zeros(2)
    return Shard(
        name=name, kind="image", split="train", shard_bytes=5, sha256="ab", keys=("0", "1"), columns=columns, fps=fps
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one finished shard and its record."""
    (tmp_path / RECORD_FOLDER).mkdir()
    (tmp_path / "train-images-000000.tar").write_bytes(b"12345")
    (tmp_path / "train-images-000000.idx").write_text("")
    record = ShardRecord(shard=shard(), end=END, rejects=(Reject(key="1", source="1.jpg", reason="bad"),))
    save_record(tmp_path, record, fingerprint(SETTINGS, files(), START, END))
    return tmp_path


def load(folder: Path, settings: dict[str, object] = SETTINGS, given: list[SourceFile] | None = None) -> object:
    return load_record(folder, "train-images-000000.tar", settings, given or files(), START)


def test_record_comes_back(folder: Path) -> None:
    record = load(folder)
    assert isinstance(record, ShardRecord)
    assert record.end == END
    assert record.rejects[0].reason == "bad"
    assert record.shard.keys == ("0", "1")


@pytest.mark.parametrize("change", [{"file_bytes": 11}, {"modified_ns": 8}, {"key": "x"}, {"label": "cat"}])
def test_changed_file_makes_the_record_void(folder: Path, change: dict[str, object]) -> None:
    assert load(folder, given=[replace(files()[0], **change), *files()[1:]]) is None  # type: ignore[arg-type]


def test_file_of_a_later_shard_does_not_matter(folder: Path) -> None:
    assert load(folder, given=[*files()[:3], replace(files()[3], file_bytes=99)]) is not None


def test_other_settings_make_the_record_void(folder: Path) -> None:
    assert load(folder, {**SETTINGS, "codec": "vp9"}) is None


@pytest.mark.parametrize(
    "name", ["train-images-000000.tar", "train-images-000000.idx", ".build/train-images-000000.json"]
)
def test_missing_file_makes_the_record_void(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert load(folder) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"end": 3}', "\ud800".encode("utf-8", "surrogatepass")])
def test_damaged_record_is_void(folder: Path, text: str | bytes) -> None:
    (folder / RECORD_FOLDER / "train-images-000000.json").write_bytes(
        text if isinstance(text, bytes) else text.encode()
    )
    assert load(folder) is None


def test_cut_tar_makes_the_record_void(folder: Path) -> None:
    (folder / "train-images-000000.tar").write_bytes(b"1234")
    assert load(folder) is None


def test_last_shard_knows_that_it_was_last() -> None:
    # Without this, images added at the end would never be packed into a last shard that has room.
    end = Position(4)
    assert fingerprint(SETTINGS, files(4), START, end) != fingerprint(SETTINGS, files(5), START, end)


def test_stale_shards_go_and_files_of_others_stay(folder: Path) -> None:
    (folder / "mine.tar").write_bytes(b"")
    remove_stale(folder, [shard()])
    assert (folder / "train-images-000000.tar").is_file()
    remove_stale(folder, [])
    assert sorted(path.name for path in folder.rglob("*")) == [".build", "mine.tar"]
