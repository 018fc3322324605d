"""Mixes: shares are kept, every source's samples come in turn, and any position is found without the ones before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.base.errors import UsageError
from pipelines.read.source_mix import CYCLE, SourceMix, places_per_cycle

WEIGHTS = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=6)


@given(WEIGHTS)
def test_places_fill_a_cycle_and_miss_their_share_by_less_than_one(weights):
    places = places_per_cycle(weights)
    assert places.sum() == CYCLE
    assert np.abs(places - np.array(weights) / sum(weights) * CYCLE).max() < 1 + 1e-6


@pytest.mark.parametrize(
    ("weights", "places"), [([1], [10_000]), ([2, 1], [6667, 3333]), ([1, 1, 1], [3334, 3333, 3333])]
)
def test_places_by_hand(weights, places):
    assert places_per_cycle(weights).tolist() == places


def test_a_weight_that_would_never_be_read_is_refused():
    with pytest.raises(UsageError, match=r"sources\.1\.weight = 1e-06: of 1\.000001 in all that is less than one"):
        places_per_cycle([1.0, 1e-6])


@given(WEIGHTS, st.integers(0, 3))
def test_every_source_counts_up_without_gap_over_the_border_of_a_cycle(weights, seed):
    mix = SourceMix(weights, seed=seed, stream="image")
    sources, indices = mix.split(np.arange(CYCLE + 500))
    for source in range(len(weights)):
        np.testing.assert_array_equal(indices[sources == source], np.arange((sources == source).sum()))


@given(st.integers(0, 3 * CYCLE), st.integers(1, 40))
def test_any_positions_are_found_without_the_ones_before(start, count):
    mix, fresh = (SourceMix([3, 1, 0.5], seed=1, stream="image") for _ in range(2))
    whole = mix.split(np.arange(start + count))
    part = fresh.split(np.arange(start, start + count))
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[start:], other)
    np.testing.assert_array_equal(fresh.given_before(start), np.bincount(whole[0][:start], minlength=3))


def test_seeds_streams_and_cycles_differ():
    orders = {
        tuple(SourceMix([1, 1], seed=seed, stream=stream).split(np.arange(first, first + 60))[0].tolist())
        for seed in range(3)
        for stream in ("image", "clip")
        for first in (0, CYCLE)
    }
    assert len(orders) == 12


def test_golden_mix():
    # A change here changes every mixed run's data order: say so in the CHANGELOG if it is meant.
    sources, indices = SourceMix([2, 1], seed=0, stream="image").split(np.arange(12))
    assert sources.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert indices.tolist() == [0, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
