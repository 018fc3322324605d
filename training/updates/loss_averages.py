"""Losses and metrics of the steps between two lines of the log, averaged over steps and ranks.

S steps, N names: "loss" and the task's metrics.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from pipelines.base.errors import FourfoldError
from training.parallel import Ranks
from training.updates.losses import Loss

__all__ = ["LossAverages"]

CHECK_EVERY_S = 2.0
"""Longest time between two looks at whether losses are finite, each of which waits for the device."""


class LossAverages:
    """Losses and metrics of the steps since the last `take`, on the device: reading them waits for it.

    A step's value is the mean over the rows of all ranks, so the log says what one rank with the whole batch would.
    """

    def __init__(self, ranks: Ranks, merged: Callable[[dict[str, Any]], dict[str, Any]] = lambda own: own) -> None:
        """`ranks` share the batches. `merged`: adds the values, by task, of ranks that train other tasks."""
        self._ranks, self._merged = ranks, merged
        self._checked_s = time.monotonic()
        self._start()

    def _start(self) -> None:
        self._names: dict[str, tuple[str, ...]] = {}
        self._rows: dict[str, list[torch.Tensor]] = {}
        self._steps: dict[str, list[int]] = {}

    def add(self, task: str, step: int, loss: Loss, weight: torch.Tensor) -> None:
        """Remember one batch's loss. `weight`: the batch's."""
        values = {"loss": loss.total.detach(), **loss.metrics}
        values_N = torch.stack([value.double() for value in values.values()])
        weights_N = torch.ones_like(values_N)
        if self._ranks.world_size > 1:
            weight_sum = weight.sum()
            # Of the loss, each rank has its part already: the plain mean of the parts is the loss of all rows.
            over = [torch.ones_like(weight_sum), *(loss.weight_sums.get(name, weight_sum) for name in loss.metrics)]
            # Never 0: where no rank has any weight, the plain mean of their zeros is left, not 0 / 0.
            weights_N = torch.stack([one.double() for one in over]).clamp_min(1e-12)
        # Kept on the device, whether finite or not: asking now would wait for every step.
        row = torch.stack([values_N * weights_N, weights_N])
        self._names[task] = tuple(values)
        self._rows.setdefault(task, []).append(row)
        self._steps.setdefault(task, []).append(step)

    @property
    def is_check_due(self) -> bool:
        """Whether the last look at the losses is long ago, by this rank's clock."""
        return time.monotonic() - self._checked_s > CHECK_EVERY_S

    def check(self) -> None:
        """Raise FourfoldError if a loss was not finite on any rank, naming the task and the step of the first.

        All ranks must call it after the same step; all of them raise the same error.
        """
        self._checked_means()

    def take(self) -> Mapping[str, dict[str, float]]:
        """Per task, the mean of "loss" and of each metric; starts anew. Otherwise like `check`."""
        means = {
            task: dict(zip(names, values_SN.mean(0).tolist(), strict=True))
            for task, (names, _, values_SN) in self._checked_means().items()
        }
        self._start()
        return means

    def _checked_means(self) -> dict[str, tuple[tuple[str, ...], list[int], torch.Tensor]]:
        """Names, steps, and means over ranks by task: float64 (S, N) on the CPU. Raises FourfoldError."""
        own = {task: (self._names[task], self._steps[task], values_SN) for task, values_SN in self._means().items()}
        self._checked_s = time.monotonic()
        means: dict[str, tuple[tuple[str, ...], list[int], torch.Tensor]] = self._merged(own)
        bad = [
            (steps[int(is_bad_S.nonzero()[0])], task)
            for task, (_, steps, values_SN) in means.items()
            if (is_bad_S := ~torch.isfinite(values_SN[:, 0])).any()
        ]
        if bad:
            step, task = min(bad)
            raise FourfoldError(
                f"{task}: the loss is not a finite number at step {step}. "
                "Lower optimizer.lr, add schedule.lr_warmup_steps, or use precision fp32."
            )
        return means

    def _means(self) -> dict[str, torch.Tensor]:
        if not self._rows:
            return {}
        stacked = {task: torch.stack(rows) for task, rows in self._rows.items()}
        joined = torch.cat([rows_S2N.flatten() for rows_S2N in stacked.values()])
        # One message for all tasks and steps. A loss that is not finite on one rank makes the sum so on all ranks.
        self._ranks.add_up(joined)
        parts = torch.split(joined.cpu(), [rows_S2N.numel() for rows_S2N in stacked.values()])
        sums = [part.view_as(rows_S2N) for part, rows_S2N in zip(parts, stacked.values(), strict=True)]
        return {task: sums_S2N[:, 0] / sums_S2N[:, 1] for task, sums_S2N in zip(stacked, sums, strict=True)}
