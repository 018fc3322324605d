"""Replacement: which sample takes a broken one's place, for stand-in sources whose content is known."""

import numpy as np
import pytest
import torch

from pipelines.read.sample_plan import Order, SamplePlan
from pipelines.run.replacement import MAX_TRIES, ReplacingSource
from pipelines.run.sample_source import Fault, TaskSamples

NUM_ROWS = 1000


class Numbers:
    """The samples of a plan are their rows, given to two tasks; those in `broken` fail."""

    def __init__(self, plan, broken, opened):
        self._plan, self._broken = plan, broken
        opened.append(plan.global_batch_size)

    def load(self, batch_index, names):
        rows = self._plan.picks(batch_index).rows
        failed = tuple(index for index, row in enumerate(rows.tolist()) if row in self._broken)
        prepared = {
            name: TaskSamples(
                pixels=torch.from_numpy(np.where(np.isin(rows, [*self._broken]), -1, rows)),
                geometry={"row": rows},
                keys=tuple(map(str, rows.tolist())),
                failed=failed,
            )
            for name in names
        }
        return prepared, [Fault(shard="s", key=str(rows[index]), reason="torn") for index in failed]


def plan_of(**options):
    order = Order((NUM_ROWS,), seed=0, stream="image")
    return SamplePlan(**{"orders": (order,), "seed": 0, "stream": "image", "global_batch_size": 4} | options)


def load(broken, batch_index, opened=None, **options):
    opened = [] if opened is None else opened
    source = ReplacingSource(lambda plan: Numbers(plan, broken, opened), plan_of(**options))
    return source.load(batch_index, ["a", "b"])


def test_without_failures_nothing_is_opened_twice():
    opened = []
    prepared, faults = load(set(), 3, opened)
    assert (opened, faults) == ([4], [])
    assert prepared["a"].pixels.tolist() == plan_of().picks(3).rows.tolist()


def test_the_same_place_of_the_next_batch_comes_in():
    rows, after = (plan_of().picks(index).rows.tolist() for index in (3, 4))
    prepared, (fault,) = load({rows[2]}, 3)
    expected = [rows[0], rows[1], after[2], rows[3]]
    for one in prepared.values():
        assert one.pixels.tolist() == one.geometry["row"].tolist() == expected
        assert one.keys == tuple(map(str, expected))
        assert one.failed == ()
    assert str(fault) == f"s: {rows[2]}: torn; {after[2]} takes its place"


def test_a_broken_one_is_not_replaced_by_a_broken_one():
    rows = [plan_of().picks(index).rows.tolist() for index in range(4)]
    prepared, faults = load({rows[0][1], rows[0][3], rows[1][1], rows[2][1]}, 0)
    assert prepared["a"].pixels.tolist() == [rows[0][0], rows[3][1], rows[0][2], rows[1][3]]
    assert [fault.key for fault in faults] == [str(rows[0][1]), str(rows[0][3])]


def test_after_some_tries_the_place_stays_failed():
    broken = {int(plan_of().picks(index).rows[0]) for index in range(MAX_TRIES + 1)}
    prepared, (fault,) = load(broken, 0)
    assert prepared["a"].failed == (0,)
    assert fault.reason == "torn"


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_replace_as_one_would(world_size):
    broken = set(range(0, NUM_ROWS, 3))
    whole, _ = load(broken, 5, global_batch_size=8)
    parts = [load(broken, 5, global_batch_size=8, rank=rank, world_size=world_size)[0] for rank in range(world_size)]
    assert [row for part in parts for row in part["a"].pixels.tolist()] == whole["a"].pixels.tolist()


def test_what_other_batches_hold_of_the_geometry_is_not_written_to():
    plan = plan_of()
    rows = plan.picks(0)
    rows.rows.setflags(write=False)
    prepared, _ = load({int(rows.rows[0])}, 0)
    assert prepared["a"].geometry is not prepared["b"].geometry
