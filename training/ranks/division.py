"""Division of a run's ranks among its tasks, from its configuration."""

from pipelines.base.progress import print_line
from pipelines.tasks import TASKS
from training.config import PretrainConfig
from training.diagnostics.task_costs import task_costs
from training.parallel import Ranks
from training.ranks.task_groups import TaskGroup, divide, divide_as_given
from training.ranks.task_parallel import TaskParallel

__all__ = ["divided_ranks"]


def divided_ranks(config: PretrainConfig, ranks: Ranks) -> TaskParallel:
    """Return how ranks are divided among tasks. All ranks must call it. Raises UsageError where they cannot be."""
    if config.ranks is None or ranks.world_size == 1 or len(config.pipeline.tasks) == 1:
        return TaskParallel.undivided(config.pipeline.tasks, ranks)
    if config.ranks.tasks == "auto":
        groups = _by_cost(config, ranks.world_size)
    else:
        groups = divide_as_given(config.ranks.tasks, list(config.pipeline.tasks), ranks.world_size)
    if ranks.is_first:
        shares = (f"{' and '.join(group.tasks)} on {group.num_ranks}" for group in groups)
        print_line(f"ranks are divided among tasks: {', '.join(shares)}")
    return TaskParallel(groups, ranks, local_steps=config.ranks.local_steps)


def _by_cost(config: PretrainConfig, world_size: int) -> list[TaskGroup]:
    tasks = config.pipeline.tasks
    # A task that is not active in every step costs less on average.
    costs = {
        cost.task: cost.gflop_per_sample * cost.samples_per_step * tasks[cost.task].task_weight / tasks[cost.task].every
        for cost in task_costs(config)
    }
    # Each rank takes an equal part of what is read, and of what the task takes of it.
    sizes = {
        task: (config.pipeline.batch_size_of(TASKS[task].source), config.pipeline.batch_size_of_task(task))
        for task in tasks
    }
    return divide(costs, sizes, world_size)
