"""One training step: the gradients of its tasks' batches, and how they change the weights.

Three ways. "per_task": each task in turn takes a step with its own optimizer, and the next task starts from the changed
trunk. "summed", the paper's wording (section 3.1, 4): all gradients are taken at the same weights, each is scaled by
its task's own second moments, and their sum is one update of the trunk. "joint", the usual multi-task training: one
optimizer over the sum of the gradients.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from pipelines.base.rng import rng_for
from pipelines.tasks.base import TaskBatch, TaskConfig
from training.model import Model
from training.parallel import Ranks
from training.ranks.gradient_buckets import GradientBuckets
from training.ranks.shared_batch import shared_batch
from training.ranks.trunk_exchange import TrunkExchange
from training.updates.balance import Balance, LossUncertainty, without_conflicts
from training.updates.losses import Loss
from training.updates.optimizer import OptimizerConfig, build_optimizer, is_decayed, parameter_groups, set_lr
from training.updates.trunk_average import EmaConfig, TrunkAverage

__all__ = ["UpdateCounts", "Updater", "Way"]

Way = Literal["per_task", "summed", "joint"]
JOINT = "all tasks"
"""Name of the one optimizer of "joint"."""

Gradients = list[torch.Tensor | None]


@dataclass(slots=True, kw_only=True)
class UpdateCounts:
    """Counts of a run so far. `heads`: by task, updates of its head. `decay`: sum of learning rate x weight decay over
    updates, for "trunk" and by task for the heads."""

    trunk: int = 0
    heads: dict[str, int] = field(default_factory=dict)
    decay: dict[str, float] = field(default_factory=dict)


class Updater:
    """Optimizers of a run. Per step: `take` each task's batch, then `finish`.

    watch: called with a task's name, gives a context manager around the part of an update that moves the trunk for
    this task; diagnostics look at it.
    """

    def __init__(
        self,
        model: Model,
        tasks: Mapping[str, TaskConfig],
        *,
        optimizer: OptimizerConfig,
        way: Way = "per_task",
        balance: Balance = "none",
        ema: EmaConfig | None = None,
        seed: int = 0,
        ranks: Ranks | None = None,
        exchange: TrunkExchange | None = None,
    ) -> None:
        """`model` is on its device already: optimizers keep references to its parameters. `ranks` share the
        batches. `exchange`: with "summed", adds the trunk updates of ranks that train other tasks."""
        self._model, self._tasks, self._config = model, dict(tasks), optimizer
        self._way, self._balance, self._seed = way, balance, seed
        self._ranks, self._exchange = ranks or Ranks(), exchange
        self._lrs: list[float] = []
        device = next(model.trunk.parameters()).device
        self.uncertainty = LossUncertainty(list(tasks)).to(device) if balance == "uncertainty" else None
        self._trunk = list(model.trunk.parameters())
        self._parameters = {task: self._parameters_of(task) for task in tasks}
        self._buckets = GradientBuckets(self._parameters, self._ranks)
        self.optimizers = self._build_optimizers()
        self.average = None if ema is None else TrunkAverage(ema, model.trunk)
        self.counts = UpdateCounts(
            heads=dict.fromkeys(tasks, 0), decay=dict.fromkeys(("trunk", *tasks) if tasks else (), 0.0)
        )
        self.forward: Callable[[TaskBatch], Loss] = model
        """What gives a batch's loss: the model, or its compiled form."""
        self.watch: Callable[[str], AbstractContextManager[object]] = lambda task: nullcontext()
        # Gradients that wait: for the task's other batches (`accumulate`), and for the other tasks of the step.
        self._held: dict[str, tuple[int, Gradients]] = {}
        self._ready: dict[str, Gradients] = {}

    def take(self, batch: TaskBatch, lr: float) -> Loss:
        """Take the gradient of one task's batch, on the model's device; "per_task" also updates the weights.

        lr: the learning rate of the step, before the task's `lr_scale`.
        """
        # 1. Forward and backward. The loss that is returned, for the log, is the task's own. Gradients are averaged
        # over ranks as they come, so that every rank updates alike, and resumes with the same.
        task = batch.task
        with shared_batch(self._ranks), self._buckets.averaging(task):
            loss = self.forward(batch)
            total = loss.total if self.uncertainty is None else self.uncertainty.weigh(task, loss.total)
            total.backward()  # type: ignore[no-untyped-call]
        # 2. A task that accumulates waits until its gradient is the mean over all its batches.
        if self._tasks[task].accumulate > 1 and not self._accumulate(task):
            return loss
        # 3. Update, or leave the gradients for `finish`.
        if self._way == "per_task":
            self._update(task, lr)
            self.counts.trunk += 1
            self._count_decay("trunk", lr * self._tasks[task].lr_scale)
        else:
            self._ready[task] = self._taken_off(task)
        return loss

    def finish(self, step: int, lr: float, *, is_exchange_due: bool = True) -> None:
        """End a step: update the weights with the gradients that `take` left for it. `is_exchange_due`: let ranks that
        train other tasks add their trunk updates, of all steps since they last did."""
        if self._exchange is not None:
            self._exchange.note(bool(self._ready))
            self._lrs.append(lr)
            self._update_by_tasks(lr)
            if is_exchange_due:
                self._combine()
            return
        if self._ready:
            if self._balance == "pcgrad":
                self._take_out_conflicts(step)
            if self._way == "summed":
                self._update_summed(lr)
            else:
                self._update_jointly(lr)
            self._ready = {}
            self.counts.trunk += 1
            self._count_decay("trunk", lr)
        if self.average is not None:
            self.average.update()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return everything that later updates depend on, between two steps."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "held": {task: {"count": count, "gradients": held} for task, (count, held) in self._held.items()},
            "uncertainty": {} if self.uncertainty is None else dict(self.uncertainty.state_dict()),
            "average": {} if self.average is None else self.average.state_dict(),
            "counts": asdict(self.counts),
        }

    def task_state(self, task: str) -> dict[str, Any]:
        """Return the part of the state that only ranks which train a task have."""
        count, held = self._held.get(task, (0, []))
        return {
            "optimizer": self.optimizers[task].state_dict(),
            "held": {"count": count, "gradients": held},
            "updates": self.counts.heads[task],
            "decay": self.counts.decay[task],
        }

    def load_task_state(self, task: str, state: Mapping[str, Any]) -> None:
        self.optimizers[task].load_state_dict(state["optimizer"])
        if state["held"]["count"]:
            self._held[task] = (state["held"]["count"], state["held"]["gradients"])
        else:
            self._held.pop(task, None)
        self.counts.heads[task], self.counts.decay[task] = state["updates"], state["decay"]

    def load_state_dict(self, state: Mapping[str, dict[str, Any]]) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        device = self._trunk[0].device
        self._held = {
            task: (held["count"], [None if one is None else one.to(device) for one in held["gradients"]])
            for task, held in state["held"].items()
        }
        if self.uncertainty is not None:
            self.uncertainty.load_state_dict(state["uncertainty"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.counts = UpdateCounts(**state["counts"])
        if self._exchange is not None:
            self._exchange.restart()

    def _parameters_of(self, task: str) -> list[nn.Parameter]:
        """Return what a task's gradient is for: the trunk's parameters first, then the task's own."""
        own = [] if self.uncertainty is None else [self.uncertainty.log_variances[task]]
        return [*self._model.parameters_of(task), *own]

    def _build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        decay, num_shared = self._config.weight_decay, len(self._trunk)
        if self._way == "joint":
            groups = parameter_groups(self._trunk, decay)
            for task, parameters in self._parameters.items():
                groups += parameter_groups(parameters[num_shared:], decay, self._tasks[task].lr_scale)
            return {JOINT: build_optimizer(self._config, groups)} if self._tasks else {}
        optimizers = {}
        for task, parameters in self._parameters.items():
            scale = self._tasks[task].lr_scale
            if self._way == "per_task":
                groups = parameter_groups(parameters, decay, scale)
            else:
                # No decay of the trunk here: every task's optimizer would apply it again.
                groups = parameter_groups(parameters[:num_shared], 0.0, scale)
                groups += parameter_groups(parameters[num_shared:], decay, scale)
            optimizers[task] = build_optimizer(self._config, groups)
        return optimizers

    def _accumulate(self, task: str) -> bool:
        """Add the gradients of the task's earlier batches; return whether the mean over all of them is there."""
        count, held = self._held.pop(task, (0, []))
        for parameter, earlier in zip(self._parameters[task], held, strict=bool(held)):
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else parameter.grad.add_(earlier)
        if count + 1 < self._tasks[task].accumulate:
            self._held[task] = (count + 1, self._taken_off(task))
            return False
        torch._foreach_div_(self._gradients(task), count + 1)
        return True

    def _gradients(self, task: str) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self._parameters[task] if parameter.grad is not None]

    def _taken_off(self, task: str) -> Gradients:
        """Return the task's gradients, and leave none: other tasks' would add to those of the trunk."""
        gradients: Gradients = [parameter.grad for parameter in self._parameters[task]]
        for parameter in self._parameters[task]:
            parameter.grad = None
        return gradients

    def _update(self, task: str, lr: float) -> None:
        """Let the task's own optimizer step, and drop the gradients that it used."""
        # The order matters: gradients are dropped last so that the next task's do not add to them.
        self._clip(self._parameters[task])
        set_lr(self.optimizers[task], lr)
        with self.watch(task):
            self.optimizers[task].step()
        self.optimizers[task].zero_grad(set_to_none=True)
        self.counts.heads[task] += 1
        self._count_decay(task, lr * self._tasks[task].lr_scale)

    def _update_summed(self, lr: float) -> None:
        self._decay_trunk(1 - lr * self._config.weight_decay)
        self._update_by_tasks(lr)

    @torch.no_grad()
    def _decay_trunk(self, factor: float) -> None:
        if factor != 1.0:
            torch._foreach_mul_([one for one in self._trunk if is_decayed(one)], factor)

    def _update_by_tasks(self, lr: float) -> None:
        # An optimizer's step does not depend on the weights when they do not decay, so that steps one after the other,
        # with gradients of the same weights, are one update by their sum.
        for task, gradients in self._ready.items():
            for parameter, gradient in zip(self._parameters[task], gradients, strict=True):
                parameter.grad = gradient
            self._update(task, lr)
        self._ready = {}

    def _combine(self) -> None:
        """Exchange trunk updates with the other groups. The trunk decays here, once for each step that moved it."""
        assert self._exchange is not None
        lrs, self._lrs = self._lrs, []

        def decay(has_moved: list[bool]) -> None:
            for lr in (lr for lr, moved in zip(lrs, has_moved, strict=True) if moved):
                self._decay_trunk(1 - lr * self._config.weight_decay)
                self.counts.trunk += 1
                self._count_decay("trunk", lr)

        self._exchange.combine(decay)
        if self.average is not None:
            self.average.update()

    def _update_jointly(self, lr: float) -> None:
        optimizer, num_shared = self.optimizers[JOINT], len(self._trunk)
        for task, gradients in self._ready.items():
            scale = self._tasks[task].lr_scale
            for index, (parameter, gradient) in enumerate(zip(self._parameters[task], gradients, strict=True)):
                if gradient is None:
                    continue
                # The head's share of the learning rate is its group's; in the trunk it is the weight of the gradient.
                if index < num_shared and scale != 1.0:
                    gradient = gradient * scale
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            self.counts.heads[task] += 1
            self._count_decay(task, lr * scale)
        self._clip([parameter for group in optimizer.param_groups for parameter in group["params"]])
        set_lr(optimizer, lr)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _take_out_conflicts(self, step: int) -> None:
        num_shared = len(self._trunk)
        flat = {}
        for task, gradients in self._ready.items():
            pairs = zip(self._trunk, gradients, strict=False)
            flat[task] = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])
        sizes = [parameter.numel() for parameter in self._trunk]
        for task, projected in without_conflicts(flat, rng_for(self._seed, step, "updates", "pcgrad")).items():
            parts = torch.split(projected, sizes)
            shared = [part.view_as(parameter) for part, parameter in zip(parts, self._trunk, strict=True)]
            self._ready[task] = [*shared, *self._ready[task][num_shared:]]

    def _clip(self, parameters: list[nn.Parameter]) -> None:
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self._config.clip_norm)

    def _count_decay(self, group: str, lr: float) -> None:
        self.counts.decay[group] += lr * self._config.weight_decay
