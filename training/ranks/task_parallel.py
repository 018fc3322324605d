"""Ranks divided among tasks: the groups of one run, and what they tell each other."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from training.model import Model
from training.parallel import Ranks, rank_message
from training.ranks.running_statistics import running_statistics
from training.ranks.task_groups import TaskGroup
from training.ranks.trunk_exchange import TrunkExchange
from training.updates.step import Updater

__all__ = ["TaskParallel"]

T = TypeVar("T")


class TaskParallel:
    """Groups of a run; one group with all tasks where ranks are not divided. All ranks must build it.

    tasks: those that this rank trains. ranks: its group, whose ranks share their batches. everyone: all ranks.
    Methods raise FourfoldError if a rank is gone; all ranks must call them after the same step.
    """

    def __init__(self, groups: Sequence[TaskGroup], everyone: Ranks, *, local_steps: int = 1) -> None:
        self.everyone, self.local_steps, self.groups = everyone, local_steps, tuple(groups)
        place, own = next((place, group) for place, group in enumerate(groups) if everyone.rank in group.ranks)
        self.tasks = own.tasks
        self.is_divided = len(self.groups) > 1
        self.ranks = everyone
        if not self.is_divided:
            return
        with rank_message():
            # Every rank must make every group, also those that it is not in.
            made = [distributed.new_group(list(group.ranks)) for group in groups]
            self._cpu_group: Any = distributed.new_group(backend="gloo")
        self.ranks = Ranks(
            rank=everyone.rank - own.first_rank,
            world_size=own.num_ranks,
            local_rank=everyone.local_rank,
            group=made[place],  # type: ignore[arg-type]
        )

    @classmethod
    def undivided(cls, tasks: Iterable[str], ranks: Ranks) -> "TaskParallel":
        """Return the division in which every rank trains all tasks."""
        return cls([TaskGroup(tasks=tuple(tasks), first_rank=0, num_ranks=ranks.world_size)], ranks)

    def is_exchange_due(self, step: int, num_steps: int) -> bool:
        """Whether the groups have the same trunk after this many steps."""
        return step % self.local_steps == 0 or step == num_steps

    def steps_since_exchange(self, step: int) -> range:
        """Return the steps from the last exchange before `step`, excluded, to `step`."""
        return range((step - 1) // self.local_steps * self.local_steps + 1, step + 1)

    def exchange(self, model: Model) -> TrunkExchange | None:
        """Return the exchange of this rank's trunk updates; None of one group. `model` is on its device already."""
        if not self.is_divided:
            return None
        # Shared running statistics are those of all tasks; with statistics per task, each group has its tasks' own.
        means = running_statistics(model.trunk, model.trunk) if not model.trunk.tasks else []
        return TrunkExchange(
            list(model.trunk.parameters()),
            means,
            self.everyone,
            num_own=self.ranks.world_size,
            num_groups=len(self.groups),
            every=self.local_steps,
        )

    def collect(self, model: Model, updater: Updater) -> None:
        """Bring heads, lassos and optimizers of all tasks to the first rank, which saves and measures the whole."""
        if not self.is_divided:
            return
        own = {
            task: {
                "modules": [module.state_dict() for module in _modules_of(model, task)],
                "updates": updater.task_state(task),
            }
            for task in self.tasks
        }
        for task, state in self._sent_to_first(own).items():
            for module, weights in zip(_modules_of(model, task), state["modules"], strict=True):
                module.load_state_dict(weights)
            updater.load_task_state(task, state["updates"])

    def merged(self, own: Mapping[str, T]) -> dict[str, T]:
        """Return the values of all tasks, in the order of their names; `own` are those of this rank's tasks."""
        if not self.is_divided:
            return dict(own)
        parts: list[Any] = [None] * self.everyone.world_size
        with rank_message():
            distributed.all_gather_object(parts, dict(own) if self.ranks.is_first else {}, self._cpu_group)
        found = {task: value for part in parts for task, value in part.items()}
        return dict(sorted(found.items()))

    def merged_lasso(self, weights: Mapping[str, T]) -> dict[str, T]:
        """Return the lasso weights of all tasks; `weights` by task, of which only this rank's tasks are trained here.

        Empty without a lasso, on all ranks alike.
        """
        return self.merged({task: weights[task] for task in self.tasks}) if weights else {}

    def _sent_to_first(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return on the first rank the values of all other groups' tasks, on the CPU; {} on the other ranks."""
        sent = b""
        if self.ranks.is_first and not self.everyone.is_first:
            file = io.BytesIO()
            torch.save(dict(own), file)
            sent = file.getvalue()
        parts: list[Any] | None = [None] * self.everyone.world_size if self.everyone.is_first else None
        with rank_message():
            distributed.gather_object(sent, parts, group=self._cpu_group)
        found: dict[str, Any] = {}
        for part in filter(None, parts or ()):
            found |= torch.load(io.BytesIO(part), map_location="cpu", weights_only=True)
        return found


def _modules_of(model: Model, task: str) -> list[nn.Module]:
    """Return what a task has for itself: its head, and its lasso and running statistics where there are some."""
    own: list[nn.Module] = [model.heads[task]]
    own += [model.lassos[task]] if task in model.lassos else []
    return own + ([model.trunk.statistics[task]] if task in model.trunk.tasks else [])
