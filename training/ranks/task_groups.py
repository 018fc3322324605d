"""Division of ranks among tasks: which tasks a rank trains, and with which other ranks. Integers in, integers out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from pipelines.base.errors import UsageError

__all__ = ["TaskGroup", "divide", "divide_as_given"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGroup:
    """Tasks that the same ranks train: `num_ranks` ranks in a row, from `first_rank` on."""

    tasks: tuple[str, ...]
    first_rank: int
    num_ranks: int

    @property
    def ranks(self) -> range:
        return range(self.first_rank, self.first_rank + self.num_ranks)


def divide(costs: Mapping[str, float], batch_sizes: Mapping[str, Sequence[int]], world_size: int) -> list[TaskGroup]:
    """Return the division in which the group that takes longest takes as short as can be.

    costs: of a step of each task. batch_sizes: by task, what its number of ranks must divide. With fewer ranks than
    tasks, a rank trains several. Raises UsageError where no division uses all ranks.
    """
    tasks = sorted(costs)
    if world_size < len(tasks):
        return _numbered([(group, 1) for group in _best_packing(tasks, costs, world_size)])
    # Few: a task's ranks must divide its batch.
    allowed = [
        [n for n in range(1, world_size + 1) if not any(size % n for size in batch_sizes[task])] for task in tasks
    ]
    best = min(
        (counts for counts in product(*allowed) if sum(counts) == world_size),
        key=lambda counts: (max(costs[task] / n for task, n in zip(tasks, counts, strict=True)), counts),
        default=None,
    )
    if best is None:
        sizes = ", ".join(f"{task} {' and '.join(map(str, batch_sizes[task]))}" for task in tasks)
        raise UsageError(
            f"ranks.tasks: auto cannot divide {world_size} ranks: a task's ranks must divide its batch over all ranks "
            f"({sizes}). Use another number of ranks, or batch sizes with more divisors."
        )
    return _numbered([((task,), n) for task, n in zip(tasks, best, strict=True)])


def divide_as_given(given: Mapping[str, int], tasks: Sequence[str], world_size: int) -> list[TaskGroup]:
    """Return the division of a configuration. Raises UsageError where it does not name all tasks and use all ranks."""
    if set(given) != set(tasks):
        raise UsageError(f"ranks.tasks: names {', '.join(sorted(given))}; need each of {', '.join(sorted(tasks))}.")
    if sum(given.values()) != world_size:
        raise UsageError(
            f"ranks.tasks: {sum(given.values())} ranks in all, this run has {world_size}. "
            f"Start it with torchrun --nproc-per-node {sum(given.values())}, or set ranks.tasks: auto."
        )
    return _numbered([((task,), given[task]) for task in sorted(given)])


def _numbered(groups: Sequence[tuple[tuple[str, ...], int]]) -> list[TaskGroup]:
    found, first = [], 0
    for tasks, num_ranks in groups:
        found.append(TaskGroup(tasks=tasks, first_rank=first, num_ranks=num_ranks))
        first += num_ranks
    return found


def _best_packing(tasks: Sequence[str], costs: Mapping[str, float], num_groups: int) -> list[tuple[str, ...]]:
    """Return tasks in groups, none empty, of which the most costly costs least."""

    def cost(groups: list[tuple[str, ...]]) -> tuple[float, list[tuple[str, ...]]]:
        return max(sum(costs[task] for task in group) for group in groups), groups

    return min(_packings(tasks, num_groups), key=cost)


def _packings(tasks: Sequence[str], num_groups: int) -> Iterator[list[tuple[str, ...]]]:
    for places in product(range(num_groups), repeat=len(tasks)):
        if len(set(places)) == num_groups:
            yield [
                tuple(task for task, place in zip(tasks, places, strict=True) if place == number)
                for number in range(num_groups)
            ]
