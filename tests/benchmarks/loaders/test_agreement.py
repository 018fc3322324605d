"""Loaders are compared only if they make the same tensors: every planted difference is found, and no other."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.loaders.agreement import TOLERANCES, Agreement, check_pass
from benchmarks.loaders.setting import Batch, Make, Setting
from pipelines.base.errors import DataError
from pipelines.targets.color.lab import ab_bins
from tests.made.loader_settings import made_setting, right_batches

MAKES: tuple[Make, ...] = ("canvas", "colorization")
Change = Callable[[list[Batch]], list[Batch]]


@pytest.fixture(params=MAKES)
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Setting:
    return made_setting(tmp_path / "data", make=request.param)


@pytest.fixture
def canvases(tmp_path: Path) -> Setting:
    return made_setting(tmp_path / "canvases")


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), [3, 1, 0, 6, 2, 7, 5, 4]])
def test_the_same_samples_in_any_order_are_the_same(setting: Setting, order: list[int]) -> None:
    found = check_pass(right_batches(setting, order), setting)
    assert set(found) == ({"canvas"} if setting.make == "canvas" else {"inputs", "bins", "bin_weights", "weight"})
    assert all(value == 0 for differences in found.values() for value in differences.values())


def test_samples_under_each_other_s_number_are_another_order(setting: Setting) -> None:
    batches = [Batch(batch.rows[::-1], batch.tensors) for batch in right_batches(setting)]
    with pytest.raises(DataError, match=r"difference .*; at most .* is allowed"):
        check_pass(batches, setting)


def test_one_value_off_is_found(canvases: Setting) -> None:
    batches = right_batches(canvases)
    pixel = batches[1].tensors["canvas"][2, 5, 7]
    pixel[1] = (int(pixel[1]) + 128) % 256
    with pytest.raises(DataError, match=r"canvas: value difference 128; at most 96 is allowed"):
        check_pass(batches, canvases)


def test_one_sample_a_little_off_is_found(canvases: Setting) -> None:
    batches = right_batches(canvases)
    sample = batches[0].tensors["canvas"][3]
    sample += torch.where(sample < 128, 4, -4).to(torch.uint8)
    with pytest.raises(DataError, match=r"canvas: sample difference 4; at most 2.5 is allowed"):
        check_pass(batches, canvases)


def test_all_samples_a_little_off_are_found(canvases: Setting) -> None:
    batches = right_batches(canvases)
    for batch in batches:
        batch.tensors["canvas"] ^= 1  # a level up or down
    with pytest.raises(DataError, match=r"canvas: mean difference 1; at most 0.75 is allowed"):
        check_pass(batches, canvases)


def test_differences_within_the_tolerance_are_those_of_numpy(canvases: Setting) -> None:
    rng, batches = np.random.default_rng(1), right_batches(canvases, [5, 2, 7, 0, 1, 3, 6, 4])
    for batch in batches:
        noise = rng.integers(0, 2, batch.tensors["canvas"].shape).astype(np.uint8)
        batch.tensors["canvas"] ^= torch.from_numpy(noise)
    found = check_pass(batches, canvases)["canvas"]
    rows = np.concatenate([batch.rows for batch in batches])
    pixels = np.concatenate([batch.tensors["canvas"].numpy() for batch in batches]).astype(int)
    absolute = np.abs(pixels - canvases.reference()[rows])
    assert found["mean"] == pytest.approx(absolute.mean())
    assert found["sample"] == pytest.approx(absolute.mean((1, 2, 3)).max())
    assert found["value"] == absolute.max() == 1


def test_inputs_count_in_levels_and_bins_in_color(tmp_path: Path) -> None:
    setting = made_setting(tmp_path / "data", make="colorization")
    batches = right_batches(setting)
    batches[0].tensors["inputs"] += 1 / 255
    bins = batches[0].tensors["bins"]
    bins[0, 0, 0, 0] = other = (int(bins[0, 0, 0, 0]) + 1) % 313
    found = check_pass(batches, setting)
    assert found["inputs"]["sample"] == pytest.approx(1, rel=1e-3)
    assert found["inputs"]["mean"] == pytest.approx(0.5, rel=1e-3)  # half of the batches
    distance = np.abs(ab_bins()[other] - ab_bins()[right_batches(setting)[0].tensors["bins"][0, 0, 0, 0]])
    assert found["bins"]["value"] == pytest.approx(distance.max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batches: batches[:-1], "a pass gave 4 samples, 4 of 8 exactly once"),
        (lambda batches: [batches[0], batches[0]], "a pass gave 8 samples, 0 of 8 exactly once"),
        (lambda batches: [], "a pass gave 0 samples, 0 of 8"),
        (lambda batches: [Batch([0, 1, 2, 8], batches[0].tensors)], r"gave samples \[0, 1, 2, 8\]; there are 8"),
        (lambda batches: [Batch([0, 1, 2, -1], batches[0].tensors)], "gave samples"),
    ],
)
def test_missing_doubled_and_unknown_samples_are_refused(canvases: Setting, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_pass(change(right_batches(canvases)), canvases)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, r"makes \[\]; need \['canvas'\]"),
        ({"canvas": torch.zeros(4, 32, 32, 3)}, "float32 on cpu; need .* torch.uint8"),
        ({"canvas": torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}, r"\(4, 3, 32, 32\)"),
        ({"canvas": torch.zeros(4, 32, 32, 3, dtype=torch.uint8), "more": torch.zeros(4)}, "more"),
    ],
)
def test_other_tensors_are_refused(canvases: Setting, tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_pass([Batch([0, 1, 2, 3], tensors)], canvases)


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    setting = made_setting(tmp_path / "data", make="colorization")
    batches = right_batches(setting)
    batches[0].tensors["inputs"][0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match="inputs: mean difference nan"):
        check_pass(batches, setting)


def test_a_loader_without_end_is_left_after_one_pass(canvases: Setting) -> None:
    assert check_pass(cycle(right_batches(canvases)), canvases)["canvas"]["value"] == 0


def test_every_tensor_has_a_tolerance(setting: Setting) -> None:
    agreement = Agreement()
    for batch in right_batches(setting):
        agreement.add(batch, batch.tensors)
    assert set(agreement.check(8)) <= set(TOLERANCES)
