"""Loaders are compared only if they make the same canvases: every planted difference is found, and no other."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.loaders.agreement import check_pass
from benchmarks.loaders.setting import Batch, Setting
from pipelines.base.errors import DataError
from tests.made.loader_settings import made_setting, right_batches

Change = Callable[[list[Batch]], list[Batch]]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return made_setting(tmp_path / "data")


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), [3, 1, 0, 6, 2, 7, 5, 4]])
def test_the_same_samples_in_any_order_are_the_same(setting: Setting, order: list[int]) -> None:
    found = check_pass(right_batches(setting, order), setting)
    assert found == {"mean": 0, "sample": 0, "value": 0}


def test_samples_under_each_other_s_number_are_another_order(setting: Setting) -> None:
    batches = [Batch(batch.rows[::-1], batch.canvases) for batch in right_batches(setting)]
    with pytest.raises(DataError, match=r"difference .*; at most .* is allowed"):
        check_pass(batches, setting)


def test_one_value_off_is_found(setting: Setting) -> None:
    batches = right_batches(setting)
    pixel = batches[1].canvases[2, 5, 7]
    pixel[1] = (int(pixel[1]) + 128) % 256
    with pytest.raises(DataError, match=r"value difference 128; at most 96 is allowed"):
        check_pass(batches, setting)


def test_one_sample_a_little_off_is_found(setting: Setting) -> None:
    batches = right_batches(setting)
    sample = batches[0].canvases[3]
    sample += torch.where(sample < 128, 4, -4).to(torch.uint8)
    with pytest.raises(DataError, match=r"sample difference 4; at most 2.5 is allowed"):
        check_pass(batches, setting)


def test_all_samples_a_little_off_are_found(setting: Setting) -> None:
    batches = right_batches(setting)
    for batch in batches:
        batch.canvases.bitwise_xor_(torch.tensor(1, dtype=torch.uint8))  # a level up or down
    with pytest.raises(DataError, match=r"mean difference 1; at most 0.75 is allowed"):
        check_pass(batches, setting)


def test_differences_within_the_tolerance_are_those_of_numpy(setting: Setting) -> None:
    rng, batches = np.random.default_rng(1), right_batches(setting, [5, 2, 7, 0, 1, 3, 6, 4])
    for batch in batches:
        noise = rng.integers(0, 2, batch.canvases.shape).astype(np.uint8)
        batch.canvases.bitwise_xor_(torch.from_numpy(noise))
    found = check_pass(batches, setting)
    rows = np.concatenate([batch.rows for batch in batches])
    pixels = np.concatenate([batch.canvases.numpy() for batch in batches]).astype(int)
    absolute = np.abs(pixels - setting.reference()[rows])
    assert found["mean"] == pytest.approx(absolute.mean())
    assert found["sample"] == pytest.approx(absolute.mean((1, 2, 3)).max())
    assert found["value"] == absolute.max() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batches: batches[:-1], "a pass gave 4 samples, 4 of 8 exactly once"),
        (lambda batches: [batches[0], batches[0]], "a pass gave 8 samples, 0 of 8 exactly once"),
        (lambda batches: [], "a pass gave 0 samples, 0 of 8"),
        (lambda batches: [Batch([0, 1, 2, 8], batches[0].canvases)], r"gave samples \[0, 1, 2, 8\]; there are 8"),
        (lambda batches: [Batch([0, 1, 2, -1], batches[0].canvases)], "gave samples"),
    ],
)
def test_missing_doubled_and_unknown_samples_are_refused(setting: Setting, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_pass(change(right_batches(setting)), setting)


@pytest.mark.parametrize(
    ("canvases", "message"),
    [
        (torch.zeros(4, 32, 32, 3), "float32 on cpu; need .* torch.uint8"),
        (torch.zeros(4, 3, 32, 32, dtype=torch.uint8), r"\(4, 3, 32, 32\)"),
    ],
)
def test_other_canvases_are_refused(setting: Setting, canvases: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_pass([Batch([0, 1, 2, 3], canvases)], setting)


def test_a_loader_without_end_is_left_after_one_pass(setting: Setting) -> None:
    assert check_pass(cycle(right_batches(setting)), setting)["value"] == 0
