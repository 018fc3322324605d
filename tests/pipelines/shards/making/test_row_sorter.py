from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.shards.making import row_sorter
from pipelines.shards.making.row_sorter import RowSorter


@pytest.fixture
def _small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sorter, "RUN_ROWS", 64)
    monkeypatch.setattr(row_sorter, "FIRST_RUN_ROWS", 16)
    monkeypatch.setattr(row_sorter, "NUM_FIRST_RUNS", 3)
    monkeypatch.setattr(row_sorter, "BLOCK_ROWS", 5)


def batches(values: list[int], size: int) -> list[pa.RecordBatch]:
    """Rows (value, text of the value, position)."""
    columns = [pa.array(values, pa.uint64()), pa.array([f"k{value:03d}" for value in values])]
    columns.append(pa.array(range(len(values)), pa.int64()))
    whole = pa.record_batch(columns, ["value", "text", "position"])
    return [whole.slice(start, size) for start in range(0, len(values), size)]


def sorted_rows(folder: Path, values: list[int], by: str, size: int = 7) -> list[tuple[int, int]]:
    with RowSorter(folder, by) as sorter:
        for batch in batches(values, size):
            sorter.add(batch)
        assert sorter.num_rows == len(values)
        found = pa.Table.from_batches(list(sorter.sorted_batches()))
    return list(zip(found["value"].to_pylist(), found["position"].to_pylist(), strict=True))


@pytest.mark.usefixtures("_small_runs")
@pytest.mark.parametrize("by", ["value", "text"])
@pytest.mark.parametrize("num_rows", [1, 15, 16, 17, 500])
def test_rows_are_sorted_and_equal_ones_keep_their_order(tmp_path: Path, by: str, num_rows: int) -> None:
    values = np.random.default_rng(num_rows).integers(0, 100, num_rows).tolist()
    assert sorted_rows(tmp_path, values, by) == sorted((value, at) for at, value in enumerate(values))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_small_runs")
def test_one_value_for_all(tmp_path: Path) -> None:
    assert sorted_rows(tmp_path, [5] * 200, "value") == [(5, at) for at in range(200)]


@pytest.mark.usefixtures("_small_runs")
def test_equal_values_come_in_one_batch_and_batches_are_bounded(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 50, 2000).tolist()
    with RowSorter(tmp_path, "value") as sorter:
        for batch in batches(values, 13):
            sorter.add(batch)
        found = [set(batch.column("value").to_pylist()) for batch in sorter.sorted_batches()]
        assert all(not (one & other) for at, one in enumerate(found) for other in found[:at])
        assert len(found) > 10


@pytest.mark.usefixtures("_small_runs")
@pytest.mark.parametrize("by", ["value", "text"])
def test_contains_looks_at_all_runs(tmp_path: Path, by: str) -> None:
    values = list(range(0, 300, 3))
    with RowSorter(tmp_path, by) as sorter:
        for batch in batches(values, 9):
            sorter.add(batch)
        next(sorter.sorted_batches())
        found = [value for value in range(310) if sorter.contains(value if by == "value" else f"k{value:03d}")]
    assert found == values


def test_no_rows_no_batches(tmp_path: Path) -> None:
    with RowSorter(tmp_path, "value") as sorter:
        assert list(sorter.sorted_batches()) == []


@pytest.mark.usefixtures("_small_runs")
def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RowSorter(tmp_path, "value") as sorter:
        _add_then_fail(sorter, tmp_path)
    assert list(tmp_path.iterdir()) == []


def _add_then_fail(sorter: RowSorter, folder: Path) -> None:
    for batch in batches(list(range(100)), 10):
        sorter.add(batch)
    assert list(folder.iterdir())
    raise ZeroDivisionError
