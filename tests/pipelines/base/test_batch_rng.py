"""Rows against the same rows drawn alone; distributions against their bounds."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.base.batch_rng import BatchRng


def draw(rng: BatchRng) -> list[np.ndarray]:
    return [rng.random(3), rng.integers(0, 8, (5, 2)), rng.uniform(-1, 1, (40,)), rng.random(), rng.integers(3, 9)]


def test_a_row_is_the_same_in_every_batch() -> None:
    epochs, keys = [0, 0, 1, 7], ["a", "b", "a", "ü"]
    together = draw(BatchRng(3, epochs, keys, "exemplar"))
    for row in range(4):
        alone = draw(BatchRng(3, epochs[row : row + 1], keys[row : row + 1], "exemplar"))
        assert all(np.array_equal(many[row], one[0]) for many, one in zip(together, alone, strict=True))


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 90), min_size=1, max_size=6))
def test_numbers_do_not_depend_on_how_many_are_asked_for_at_once(sizes: list[int]) -> None:
    parts, whole = BatchRng(0, [0, 1], ["a", "b"], "t"), BatchRng(0, [0, 1], ["a", "b"], "t")
    np.testing.assert_array_equal(np.concatenate([parts.random(size) for size in sizes], 1), whole.random(sum(sizes)))


def test_every_part_of_the_address_counts() -> None:
    addresses = list(itertools.product((0, 1, 2**40), range(4), ("a", "b", "ab", ""), ("x", "y", "a")))
    first = {tuple(BatchRng(seed, [epoch], [key], task).random(2)[0]) for seed, epoch, key, task in addresses}
    assert len(first) == len(addresses)


def test_no_two_numbers_of_many_samples_are_equal() -> None:
    numbers = BatchRng(0, [0] * 500, [str(key) for key in range(500)], "t").random(60)
    assert len(np.unique(numbers)) == numbers.size


def test_numbers_are_uniform_and_rows_and_places_unrelated() -> None:
    numbers = BatchRng(0, [0] * 2000, [str(key) for key in range(2000)], "t").random(20)
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    counts, _ = np.histogram(numbers, 50, (0, 1))
    # 40,000 draws: 800 in each of 50 parts, standard deviation 28.
    assert np.abs(counts - 800).max() < 5 * 28
    correlation = np.corrcoef(numbers.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_integers_reach_both_bounds_equally_often() -> None:
    drawn = BatchRng(0, [0] * 1000, [str(key) for key in range(1000)], "t").integers(-2, 3, (8,))
    assert drawn.dtype == np.int64
    counts = np.bincount(drawn.ravel() + 2, minlength=5)
    # 8,000 draws: 1,600 each, standard deviation 36.
    assert np.abs(counts - 1600).max() < 5 * 36


def test_bounds_may_be_arrays() -> None:
    rng = BatchRng(0, [0] * 3, ["a", "b", "c"], "t")
    high = np.array([[1, 10], [2, 20], [3, 2**40]])
    drawn = np.stack([rng.integers(0, high) for _ in range(200)])
    assert drawn.shape == (200, 3, 2)
    assert (drawn < high).all()
    assert drawn[:, 2, 1].max() > 2**38


@pytest.mark.parametrize(("size", "shape"), [((), (2,)), (4, (2, 4)), ((3, 1), (2, 3, 1)), ((0,), (2, 0))])
def test_arrays_lead_with_the_samples(size: int | tuple[int, ...], shape: tuple[int, ...]) -> None:
    rng = BatchRng(0, [0, 0], ["a", "b"], "t")
    assert rng.random(size).shape == rng.uniform(0, 2, size).shape == rng.integers(0, 2, size).shape == shape


def test_golden_numbers() -> None:
    # A change here changes every augmentation of every user: deliberate only, with a line in the CHANGELOG.
    drawn = BatchRng(0, [0, 1], ["cat/0001", "cat/0001"], "canvas").integers(0, 1000, 5)
    assert drawn.tolist() == [[898, 466, 491, 958, 593], [111, 410, 631, 532, 431]]


def test_an_empty_batch_draws_nothing() -> None:
    assert BatchRng(0, [], [], "t").random(4).shape == (0, 4)
