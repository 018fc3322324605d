"""What a comparison is told is checked before anything starts."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.loaders import CompareOptions
from benchmarks.loaders.registry import CONTENDERS, LIMIT
from benchmarks.loaders.setting import Setting
from pipelines.base.errors import UsageError
from pipelines.base.machine import num_cores


def options(**changes: Any) -> CompareOptions:
    return CompareOptions(shards=Path("shards"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0; need an integer of at least 1"),
        ({"canvas_px": -1}, "canvas_px = -1"),
        ({"warm_repeats": 0}, "warm_repeats = 0"),
        ({"cold_repeats": -1}, "cold_repeats = -1; need an integer of at least 0"),
        ({"least_s": -1.0}, "least_s = -1.0; need a number of at least 0"),
        ({"timeout_s": float("nan")}, "timeout_s = nan"),
        ({"num_cores": num_cores() + 1}, f"this process may use {num_cores()}"),
        ({"num_samples": 63}, "num_samples = 63; need at least one batch of 64"),
        ({"names": ("ffcv",)}, "loaders .'ffcv'. are unknown; allowed: dali decode alone, fourfold opencv"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options(**changes)


@given(st.integers(0, 5000), st.integers(1, 100))
def test_samples_fill_batches_the_same_number_for_each_core(count: int, batch_size: int) -> None:
    found = options(batch_size=batch_size, num_samples=batch_size)
    whole = found.whole_batches(count)
    assert whole % batch_size == 0
    assert 0 <= count - whole < batch_size * found.num_cores
    if count >= batch_size * found.num_cores:
        assert whole % (batch_size * found.num_cores) == 0


def test_the_limit_comes_first_whether_named_or_not() -> None:
    assert options(names=("litdata", "webdataset")).all_names == (LIMIT, "webdataset", "litdata")
    assert options(names=()).all_names == (LIMIT,)
    assert options().all_names == tuple(CONTENDERS)


def test_data_that_is_mapped_by_one_loader_is_no_other_s() -> None:
    shared = [one for one in CONTENDERS.values() if one.data == "files"]
    others = [one.data for one in CONTENDERS.values() if one.data != "files"]
    assert len(set(others)) == len(others)
    assert len(shared) + len(others) == len(CONTENDERS)


def test_setting_there_and_back() -> None:
    setting = Setting(
        folder=Path("a"),
        boxes_file=Path("b"),
        reference_file=Path("c"),
        canvas_px=1,
        batch_size=2,
        num_cores=3,
    )
    assert Setting.from_json(setting.to_json()) == setting
