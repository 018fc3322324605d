"""Ranks divided among tasks: by cost, as given, and what cannot be divided."""

from itertools import product

import pytest

from pipelines.base.errors import UsageError
from training.ranks.task_groups import TaskGroup, divide, divide_as_given

COSTS = {"relative_position": 29.3, "colorization": 12.4, "exemplar": 1.6, "motion_segmentation": 11.4}
SIZES = dict.fromkeys(COSTS, (32, 32))


def sizes(groups: list[TaskGroup]) -> dict[tuple[str, ...], int]:
    return {group.tasks: group.num_ranks for group in groups}


def slowest(groups: list[TaskGroup]) -> float:
    return max(sum(COSTS[task] for task in group.tasks) / group.num_ranks for group in groups)


def test_eight_ranks_of_the_paper_recipe() -> None:
    found = divide(COSTS, SIZES, 8)
    assert sizes(found) == {
        ("colorization",): 2,
        ("exemplar",): 1,
        ("motion_segmentation",): 1,
        ("relative_position",): 4,
    }


@pytest.mark.parametrize("world_size", range(1, 12))
def test_every_rank_has_a_group_and_every_task(world_size: int) -> None:
    try:
        found = divide(COSTS, SIZES, world_size)
    except UsageError:
        pytest.fail("32 has divisors enough")
    assert [rank for group in found for rank in group.ranks] == list(range(world_size))
    assert sorted(task for group in found for task in group.tasks) == sorted(COSTS)


@pytest.mark.parametrize("world_size", [2, 3, 4, 6, 9])
def test_no_division_is_faster(world_size: int) -> None:
    """Against all divisions, tried one by one: of tasks on single ranks, or of ranks on single tasks."""
    tasks = list(COSTS)
    if world_size < len(tasks):
        times = [
            max(sum(COSTS[t] for t, place in zip(tasks, places, strict=True) if place == n) for n in range(world_size))
            for places in product(range(world_size), repeat=len(tasks))
        ]
    else:
        times = [
            max(COSTS[task] / n for task, n in zip(tasks, counts, strict=True))
            for counts in product((1, 2, 4, 8), repeat=len(tasks))
            if sum(counts) == world_size
        ]
    assert slowest(divide(COSTS, SIZES, world_size)) == pytest.approx(min(times))


def test_ranks_that_cannot_divide_the_batches_are_refused() -> None:
    with pytest.raises(UsageError, match=r"auto cannot divide 5 ranks: .*a 2 and 2, b 2 and 2.*Use another number"):
        divide({"a": 1.0, "b": 1.0}, {"a": (2, 2), "b": (2, 2)}, 5)


def test_a_division_as_given() -> None:
    assert sizes(divide_as_given({"b": 1, "a": 3}, ["a", "b"], 4)) == {("a",): 3, ("b",): 1}
    with pytest.raises(UsageError, match=r"4 ranks in all, this run has 2\. Start it with torchrun --nproc-per-node 4"):
        divide_as_given({"b": 1, "a": 3}, ["a", "b"], 2)
    with pytest.raises(UsageError, match=r"names a; need each of a, b\."):
        divide_as_given({"a": 2}, ["a", "b"], 2)
