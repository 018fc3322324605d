"""One training step of one task: forward, backward, the task's own optimizer; and its losses for the log."""

from collections.abc import Mapping

import torch

from pipelines.base.errors import FourfoldError
from pipelines.tasks.base import TaskBatch
from training.losses import Loss
from training.model import Model
from training.parallel import average_gradients

__all__ = ["LossAverages", "train_step"]


def train_step(model: Model, optimizer: torch.optim.Optimizer, batch: TaskBatch, world_size: int = 1) -> Loss:
    """Train on one task's batch. The next task starts from the changed trunk and from no gradients."""
    # The order matters: averaging after backward lets every rank step alike, and gradients are dropped last so that the
    # next task's do not add to them.
    loss: Loss = model(batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    average_gradients(model.parameters_of(batch.task), world_size)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


class LossAverages:
    """Means of losses and metrics since the last `take`, kept on the device: looking at them waits for it."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._sums: dict[str, dict[str, torch.Tensor]] = {}
        self._counts: dict[str, int] = {}
        self._bad_step: dict[str, torch.Tensor] = {}

    def add(self, task: str, step: int, loss: Loss) -> None:
        values = {"loss": loss.total.detach(), **loss.metrics}
        sums = self._sums.setdefault(task, {name: torch.zeros_like(value) for name, value in values.items()})
        for name, value in values.items():
            sums[name] = sums[name] + value
        self._counts[task] = self._counts.get(task, 0) + 1
        # Kept on the device as well: asking now whether a loss is finite would wait for every step.
        first_bad = self._bad_step.get(task, torch.full_like(values["loss"], -1.0, dtype=torch.float64))
        is_first = ~torch.isfinite(values["loss"]) & (first_bad < 0)
        self._bad_step[task] = torch.where(is_first, float(step), first_bad)

    def check(self) -> None:
        """Raise FourfoldError if a loss was not finite, naming the task and the step it happened in first."""
        for task, bad_step in self._bad_step.items():
            if bad_step >= 0:
                raise FourfoldError(
                    f"{task}: the loss is not a finite number at step {int(bad_step)}. "
                    "Lower optimizer.lr, add schedule.lr_warmup_steps, or use precision fp32."
                )

    def take(self) -> Mapping[str, dict[str, float]]:
        """Per task, the mean of "loss" and of each metric; starts anew."""
        self.check()
        means = {
            task: {name: float(total) / self._counts[task] for name, total in sums.items()}
            for task, sums in self._sums.items()
        }
        self._start()
        return means
