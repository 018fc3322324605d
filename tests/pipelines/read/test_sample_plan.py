"""Plans: each sample once per epoch, ranks as slices of one order, the same for ever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.base.errors import UsageError
from pipelines.read.sample_plan import Order, SamplePlan

SIZES = st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any).map(tuple)


def epoch_order(sizes, seed, epoch, stream, window_shards=16):
    total = sum(sizes)
    order = Order(sizes, seed=seed, stream=stream, window_shards=window_shards)
    picks = order.locate(np.arange(epoch * total, (epoch + 1) * total))
    assert set(picks.epochs.tolist()) == {epoch}
    return picks.rows


def make_plan(sizes=(3, 2, 4), stream="image", **options):
    orders = (Order(sizes, seed=0, stream=stream),)
    return SamplePlan(**{"orders": orders, "seed": 0, "stream": stream, "global_batch_size": 4} | options)


def make_mix(*tables, weights, **options):
    orders = tuple(Order(sizes, seed=0, stream=f"image {index}") for index, sizes in enumerate(tables))
    return SamplePlan(
        **{"orders": orders, "weights": weights, "seed": 0, "stream": "image", "global_batch_size": 4} | options
    )


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


def test_rows_can_be_asked_for_in_any_order():
    order, fresh = (Order((5, 0, 3, 7, 1), seed=2, stream="image", window_shards=2) for _ in range(2))
    indices = np.random.default_rng(0).permutation(64)
    scattered, straight = order.locate(indices), fresh.locate(np.arange(64))
    np.testing.assert_array_equal(scattered.rows, straight.rows[indices])
    np.testing.assert_array_equal(scattered.epochs, straight.epochs[indices])


def test_without_shuffling_it_is_the_tables_order_and_always_epoch_0():
    picks = Order((2, 1), seed=0, stream="image", is_shuffled=False).locate(np.arange(2, 8))
    assert picks.rows.tolist() == [2, 0, 1, 2, 0, 1]
    assert not picks.epochs.any()


@given(SIZES, st.integers(1, 4), st.integers(0, 60))
def test_shards_ahead_are_those_that_the_next_samples_come_from(sizes, window, index):
    order = Order(sizes, seed=0, stream="image", window_shards=window)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    windows = order.shards_from(index)
    coming = shard_of[order.locate(np.arange(index, index + 40)).rows].tolist()
    shards = set(next(windows).tolist())
    for shard in coming:
        # Windows of empty shards may end one epoch and begin the next: fewer than two epochs of windows.
        for _ in range(2 * len(sizes)):
            if shard in shards:
                break
            shards = set(next(windows).tolist())
        assert shard in shards


@given(SIZES, st.sampled_from([1, 2, 4]), st.integers(0, 6))
def test_ranks_take_slices_of_the_same_batch(sizes, world_size, batch_index):
    whole = make_plan(sizes, global_batch_size=8).picks(batch_index)
    parts = [
        make_plan(sizes, global_batch_size=8, rank=rank, world_size=world_size).picks(batch_index)
        for rank in range(world_size)
    ]
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
    np.testing.assert_array_equal(np.concatenate([part.epochs for part in parts]), whole.epochs)


@pytest.mark.parametrize("num_taken", [1, 2, 3, 5, 8, 12, 24, 99])
def test_the_rows_of_a_smaller_batch_are_evenly_spaced_and_do_not_depend_on_ranks(num_taken):
    whole = make_plan(global_batch_size=24).rows_taken(num_taken).tolist()
    assert len(whole) == min(num_taken, 24)
    gaps = np.diff([-1, *whole])
    assert gaps.max() - gaps.min() <= 1
    for world_size in (2, 3, 4):
        plans = [make_plan(global_batch_size=24, rank=rank, world_size=world_size) for rank in range(world_size)]
        parts = [(plan.rows_taken(num_taken) + plan.rank * plan.local_batch_size).tolist() for plan in plans]
        assert [row for part in parts for row in part] == whole
        if num_taken % world_size == 0:
            assert len({len(part) for part in parts}) == 1


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


def test_one_by_one_is_the_same_stream_on_any_rank():
    plan = make_plan(global_batch_size=8, rank=1, world_size=2)
    single = plan.one_by_one()
    for batch_index in range(4):
        first = plan.first_position(batch_index)
        rows = [int(single.picks(first + step).rows[0]) for step in range(plan.local_batch_size)]
        assert rows == plan.picks(batch_index).rows.tolist()


@given(st.lists(SIZES, min_size=2, max_size=3), st.sampled_from([1, 2, 4]), st.integers(0, 30))
def test_a_mix_over_ranks_is_the_mix_of_one(tables, world_size, batch_index):
    weights = tuple(float(1 + index) for index in range(len(tables)))
    whole = make_mix(*tables, weights=weights).picks(batch_index)
    parts = [
        make_mix(*tables, weights=weights, rank=rank, world_size=world_size).picks(batch_index)
        for rank in range(world_size)
    ]
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), whole.rows)


@given(st.lists(SIZES, min_size=2, max_size=3))
def test_in_a_mix_every_source_has_whole_epochs_of_its_own(tables):
    plan = make_mix(*tables, weights=tuple(float(1 + index) for index in range(len(tables))), global_batch_size=400)
    picks, first = plan.picks(0), 0
    for sizes in tables:
        mine = (picks.rows >= first) & (picks.rows < first + sum(sizes))
        seen = list(zip(picks.epochs[mine].tolist(), (picks.rows[mine] - first).tolist(), strict=True))
        expected = [(epoch, row) for epoch in range(len(seen) // sum(sizes)) for row in range(sum(sizes))]
        assert sorted(seen[: len(expected)]) == expected
        first += sum(sizes)


def test_the_sources_of_a_mix_have_their_shares():
    plan = make_mix((10,), (300, 300), weights=(3.0, 1.0), global_batch_size=20_000)
    assert (plan.picks(0).rows < 10).sum() == 15_000


def test_shards_ahead_of_a_mix_count_through_its_sources():
    now, then = make_mix((1,) * 40, (5, 5), weights=(1.0, 1.0)).shards_ahead(0)
    assert (len(now), len(then)) == (18, 18)
    assert {40, 41} <= set(now.tolist()) & set(then.tolist())
    assert not set(now.tolist()) & set(then.tolist()) - {40, 41}


def test_an_empty_table_is_refused():
    with pytest.raises(UsageError, match="No clip samples"):
        make_plan((0, 0), stream="clip")
