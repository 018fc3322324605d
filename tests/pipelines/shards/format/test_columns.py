import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.format.columns import content_of, number_column, numbers_of, text_column


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_text_is_that_of_arrow(values: list[str]) -> None:
    column = text_column(values)
    column.validate(full=True)
    assert column.equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float64()])
def test_numbers_there_and_back(kind: pa.DataType) -> None:
    column = number_column((value for value in (1, 0, 100)), kind)
    assert column.equals(pa.array([1, 0, 100], kind))
    assert numbers_of(column.slice(1)).tolist() == [0, 100]


def test_hashes_keep_all_their_bits() -> None:
    values = np.array([2**64 - 1, 2**63 + 1], np.uint64)
    assert number_column(values, pa.uint64()).to_pylist() == values.tolist()


@pytest.mark.parametrize("values", [["a", "", "bü"], [3, 1, 2]])
def test_content_is_that_of_the_values_wherever_they_lie(values: list[Any]) -> None:
    alone = pa.array(values)
    within = pa.array([*values[1:], *values, values[0]]).slice(2, 3)
    assert content_of(within) == content_of(alone)
    assert content_of(pa.array(values[::-1])) != content_of(alone)
    assert content_of(alone.slice(0, 0)) == b""


def test_content_knows_where_one_text_ends() -> None:
    assert content_of(pa.array(["ab", "c"])) != content_of(pa.array(["a", "bc"]))


def test_pandas_is_not_imported() -> None:
    pytest.importorskip("pandas")
    program = (
        "import sys, pyarrow as pa; from pipelines.shards.format.columns import *; text_column(['a']);"
        "numbers_of(number_column([1], pa.int32())); assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[4], check=True)
