import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.base.errors import DataError
from pipelines.shards.format.table import SAMPLE_SCHEMA, SampleFile, SampleTable, Shard

KEYS = [["a", "b/ü", "日本"], [], ["d"], ["e", ""]]


def rows(keys: list[str], first: int) -> pa.RecordBatch:
    """Rows whose numbers tell row and column."""
    numbers = np.arange(first, first + len(keys))
    columns = {name: numbers + 1000 * place for place, name in enumerate(SAMPLE_SCHEMA.names[1:])}
    return pa.RecordBatch.from_pydict({"key": keys, **columns}, schema=SAMPLE_SCHEMA)


def write(path: Path, batches: list[pa.RecordBatch]) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


@pytest.fixture
def table(tmp_path: Path) -> SampleTable:
    """Shards 0, 2 and 3 of a file of four: 6 samples."""
    firsts = [0, 3, 3, 4]
    path = write(tmp_path / "samples.arrow", [rows(keys, first) for keys, first in zip(KEYS, firsts, strict=True)])
    chosen = [0, 2, 3]
    shards = [
        Shard(name=f"{i}.tar", kind="image", split="s", num_samples=len(KEYS[i]), shard_bytes=1, sha256="")
        for i in chosen
    ]
    return SampleTable(
        folder=tmp_path,
        kind="image",
        shards=tuple(shards),
        labels=(),
        samples=SampleFile(path, [len(keys) for keys in KEYS]),
        batch_indices=chosen,
    )


def test_columns_join_the_shards(table: SampleTable) -> None:
    assert len(table) == 6
    for place, name in enumerate(["offset", "size", "width", "height", "label", "num_frames"]):
        column = getattr(table, name)
        assert column.dtype == np.int64
        np.testing.assert_array_equal(column, np.arange(6) + 1000 * place)
    assert table.fps.dtype == np.float64
    np.testing.assert_array_equal(table.fps, np.arange(6) + 6000.0)
    np.testing.assert_array_equal(table.shard_index, [0, 0, 0, 1, 2, 2])


def test_keys_are_a_sequence_of_strings(table: SampleTable) -> None:
    expected = ["a", "b/ü", "日本", "d", "e", ""]
    keys = table.keys
    assert [keys[row] for row in range(6)] == list(keys) == expected
    assert [keys[np.int64(row)] for row in range(-6, 0)] == expected
    assert keys[1:4] == ("b/ü", "日本", "d")
    assert keys[::-2] == ("", "d", "b/ü")
    assert "日本" in keys
    assert "x" not in keys
    assert len(keys) == 6


@pytest.mark.parametrize("row", [6, -7, 10**12])
def test_row_outside_is_an_index_error(table: SampleTable, row: int) -> None:
    with pytest.raises(IndexError, match="of 6 samples"):
        table.keys[row]


def test_columns_cannot_be_changed_by_accident(table: SampleTable) -> None:
    with pytest.raises(ValueError, match="read-only"):
        table.width[0] = 5


def test_nothing_is_opened_before_a_column_is_read(table: SampleTable) -> None:
    table.samples.path.unlink()
    assert len(table) == 6
    with pytest.raises(DataError, match="damaged"):
        table.keys[0]


def test_file_can_be_pickled_after_use(table: SampleTable) -> None:
    before = table.samples.batch(2)
    assert pickle.loads(pickle.dumps(table.samples)).batch(2).equals(before)


def test_threads_may_share_a_table(table: SampleTable) -> None:
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda row: (table.keys[row % 6], int(table.size[row % 6])), range(96)))
    assert read == [(["a", "b/ü", "日本", "d", "e", ""][row % 6], 1000 + row % 6) for row in range(96)]


def test_all_empty_keys(tmp_path: Path) -> None:
    file = SampleFile(write(tmp_path / "f", [rows(["", ""], 0)]), [2])
    shard = Shard(name="0.tar", kind="image", split="s", num_samples=2, shard_bytes=1, sha256="")
    table = SampleTable(folder=tmp_path, kind="image", shards=(shard,), labels=(), samples=file, batch_indices=[0])
    assert table.keys[0] == table.keys[1] == ""


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        (rows(["a"], 0), "1 rows; need 2"),
        (rows(["a", "b"], 0).drop_columns(["fps"]), "need 1 of key, offset"),
        (pa.record_batch([[None, "a"], *([[1, None]] * 6), [0.0, 1.0]], schema=SAMPLE_SCHEMA), "without nulls"),
    ],
)
def test_file_of_other_content_is_a_data_error(tmp_path: Path, batch: pa.RecordBatch, match: str) -> None:
    with pytest.raises(DataError, match=match):
        SampleFile(write(tmp_path / "f", [batch]), [2]).batch(0)


@pytest.mark.parametrize("starts", [(0, 5, 10**9), (0, 9, 8), (-4, 4, 8), (0, 2**31 - 1, 8)])
def test_strings_that_point_outside_are_a_data_error_and_no_crash(tmp_path: Path, starts: tuple[int, ...]) -> None:
    path = write(tmp_path / "f", [rows(["qqqq", "wwww"], 0)])
    before, after = (np.array(numbers, np.int32).tobytes() for numbers in ((0, 4, 8), starts))
    assert path.read_bytes().count(before) == 1
    path.write_bytes(path.read_bytes().replace(before, after))
    with pytest.raises(DataError, match="damaged"):
        SampleFile(path, [2]).batch(0)
