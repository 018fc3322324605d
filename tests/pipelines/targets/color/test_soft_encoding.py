"""Soft encoding against brute force, the table of places against the search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from pipelines.targets.color import soft_encoding
from pipelines.targets.color.lab import ab_bins
from pipelines.targets.color.soft_encoding import MAX_LISTED_NEIGHBORS, soft_encode


def brute_force(ab: np.ndarray, num_neighbors: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    distance = cdist(ab, ab_bins())
    bins = np.argsort(distance, axis=1, kind="stable")[:, :num_neighbors]
    weights = np.exp(-(np.take_along_axis(distance, bins, 1) ** 2) / (2 * sigma**2))
    return bins, weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("num_neighbors", [1, 5, 10, 32])
def test_soft_encoding_is_that_of_brute_force(num_neighbors: int) -> None:
    ab = np.random.default_rng(1).uniform(-110, 110, (4000, 2)).astype(np.float32)
    bins, weights = soft_encode(torch.from_numpy(ab), num_neighbors, 5.0)
    expected_bins, expected_weights = brute_force(ab, num_neighbors, 5.0)
    np.testing.assert_array_equal(bins, expected_bins)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1040, 1040), st.integers(-1040, 1040)), min_size=1, max_size=50))
def test_soft_encoding_is_exact_on_ties_and_cell_borders(eighths: list[tuple[int, int]]) -> None:
    ab = np.array(eighths, np.float32) / 8
    bins, _ = soft_encode(torch.from_numpy(ab), 5, 5.0)
    np.testing.assert_array_equal(bins, brute_force(ab, 5, 5.0)[0])


def test_a_bin_centre_is_its_own_nearest_bin() -> None:
    bins, weights = soft_encode(torch.tensor(ab_bins()), 1)
    assert bins.flatten().tolist() == list(range(313))
    assert (weights == 1).all()


def test_soft_encoding_keeps_leading_axes_and_sums_to_1() -> None:
    bins, weights = soft_encode(torch.zeros(2, 3, 4, 2), 5, 5.0)
    assert (bins.shape, bins.dtype) == ((2, 3, 4, 5), torch.int64)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))
    centre, neighbour = 1, float(np.exp(-2))
    torch.testing.assert_close(weights[0, 0, 0, :2], torch.tensor([centre, neighbour]) / (1 + 4 * neighbour))


def test_soft_encoding_of_nothing_is_empty() -> None:
    bins, weights = soft_encode(torch.empty(0, 4, 4, 2))
    assert bins.shape == weights.shape == (0, 4, 4, 5)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many colors were searched for in each call, because the table did not have them."""
    found, search = list[int](), soft_encoding._nearest_by_sorting
    monkeypatch.setattr(soft_encoding, "_nearest_by_sorting", lambda ab, k: found.append(len(ab)) or search(ab, k))
    return found


@pytest.mark.parametrize("num_neighbors", range(1, MAX_LISTED_NEIGHBORS + 1))
def test_the_table_of_places_agrees_with_the_search_to_the_bit(num_neighbors: int, searched: list[int]) -> None:
    steps = np.random.default_rng(3).integers(-127 * 64, 130 * 64, (20000, 2))
    steps[::2] = steps[::2] // 160 * 160  # on bins and on the lines where two of them are equally near
    ab = torch.from_numpy((steps / 64).astype(np.float32))
    listed = soft_encoding._nearest_by_table(ab, num_neighbors)
    assert sum(searched) < 15000  # the others are far from all bins
    for ours, expected in zip(listed, soft_encoding._nearest_by_sorting(ab, num_neighbors), strict=True):
        assert torch.equal(ours, expected)


def test_no_grid_point_outside_the_listed_ones_is_among_the_nearest() -> None:
    place = np.stack(np.meshgrid(*[np.linspace(0, 10, 41)] * 2), -1).reshape(-1, 2)
    distance = np.sort(cdist(place, soft_encoding.CORNERS * 10), axis=1)
    assert distance[:, MAX_LISTED_NEIGHBORS - 1].max() < 20  # the nearest that is not listed is 20 away


@pytest.mark.parametrize("value", [1 / 128, 130.0, -130.0])
def test_colors_between_steps_and_at_the_limit_are_searched(value: float, searched: list[int]) -> None:
    ab = torch.tensor([[0.0, 0.0], [value, 5.0]])
    np.testing.assert_array_equal(soft_encode(ab)[0], brute_force(ab.numpy(), 5, 5.0)[0])
    assert searched == [1]
