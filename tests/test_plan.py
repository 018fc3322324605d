"""Plans: each sample once per epoch, ranks as slices of one order, the same for ever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UsageError
from pipelines.plan import Plan, epoch_order

SIZES = st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any).map(tuple)


def make_plan(sizes=(3, 2, 4), **options):
    return Plan(**{"shard_sizes": sizes, "seed": 0, "stream": "image", "global_batch_size": 4} | options)


@given(SIZES, st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_an_epoch_is_a_permutation_of_all_samples(sizes, seed, epoch, window):
    order = epoch_order(sizes, seed, epoch, "image", window)
    assert sorted(order.tolist()) == list(range(sum(sizes)))


@given(st.integers(1, 4), st.integers(0, 20))
def test_samples_move_only_within_their_window_of_shards(window, seed):
    sizes = (4,) * 8
    shard_of = epoch_order(sizes, seed, 0, "image", window) // 4
    per_window = 4 * window
    groups = [set(shard_of[first : first + per_window].tolist()) for first in range(0, 32, per_window)]
    assert all(len(group) <= window for group in groups)
    assert sum(len(group) for group in groups) == 8


def test_samples_of_a_window_are_mixed():
    shard_of = epoch_order((50,) * 4, 0, 0, "image", 4) // 50
    assert len(set(shard_of[:50].tolist())) == 4


def test_seeds_epochs_and_streams_give_different_orders():
    orders = {
        tuple(epoch_order((10, 10), seed, epoch, stream).tolist())
        for seed in range(3)
        for epoch in range(5)
        for stream in ("image", "clip")
    }
    assert len(orders) == 30


def test_golden_order():
    # A change here changes every run's data order: bump the version in the CHANGELOG if it is meant.
    assert epoch_order((3, 2, 4), 0, 0, "image").tolist() == [7, 3, 0, 1, 6, 5, 2, 8, 4]
    assert epoch_order((3, 2, 4), 7, 3, "clip", 2).tolist() == [8, 4, 5, 3, 7, 6, 2, 1, 0]


def test_the_order_cannot_be_changed_by_a_caller():
    with pytest.raises(ValueError, match="read-only"):
        epoch_order((3, 2), 0, 0, "image")[0] = 5


@given(SIZES, st.sampled_from([1, 2, 4]), st.integers(0, 6))
def test_ranks_take_slices_of_the_same_batch(sizes, world_size, batch_index):
    whole = make_plan(sizes, global_batch_size=8).picks(batch_index)
    parts = [
        make_plan(sizes, global_batch_size=8, rank=rank, world_size=world_size).picks(batch_index)
        for rank in range(world_size)
    ]
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
    np.testing.assert_array_equal(np.concatenate([part.epochs for part in parts]), whole.epochs)


@given(SIZES, st.integers(1, 9))
def test_no_sample_is_lost_or_doubled_across_epoch_borders(sizes, batch_size):
    total = sum(sizes)
    plan = make_plan(sizes, global_batch_size=batch_size)
    picks = [plan.picks(index) for index in range(3 * total)]
    seen = [(e, r) for pick in picks for e, r in zip(pick.epochs.tolist(), pick.rows.tolist(), strict=True)]
    expected = [(epoch, row) for epoch in range(len(seen) // total) for row in range(total)]
    assert sorted(seen[: len(expected)]) == expected


def test_a_batch_may_be_larger_than_an_epoch():
    picks = make_plan((2, 1), global_batch_size=7).picks(0)
    assert picks.epochs.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert sorted(picks.rows[:3].tolist()) == [0, 1, 2]


def test_a_far_batch_costs_no_walk_through_the_near_ones():
    assert make_plan().picks(10**12).rows.shape == (4,)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(UsageError, match="batch of 6 image samples over 4 ranks; need a multiple of 4, such as 4 or 8"):
        make_plan(global_batch_size=6, world_size=4)


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(UsageError, match="rank 2 of world_size 2"):
        make_plan(rank=2, world_size=2)


def test_an_empty_table_is_refused():
    with pytest.raises(UsageError, match="No clip samples"):
        make_plan((0, 0), stream="clip")
