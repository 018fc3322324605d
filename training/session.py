"""A run in memory: model, optimizers, pipeline, the number of steps, and the step it is at."""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipelines.base.errors import UsageError
from pipelines.base.progress import print_line
from pipelines.build import Pipeline, Step, active_tasks
from pipelines.tasks import Task
from training.compute import BudgetConfig, count_flop, count_steps, dummy_batch
from training.config import PretrainConfig
from training.diagnostics.diagnosis import Diagnosis, open_labelled
from training.diagnostics.held_out import HeldOut, open_held_out, problems_of
from training.diagnostics.meter import Meter
from training.heads import HeadInput
from training.model import Model, build_model, build_trunk
from training.norms import sync_norms
from training.parallel import Ranks
from training.ranks.running_statistics import average_running_statistics
from training.ranks.task_parallel import TaskParallel
from training.speed.compiled import compiled_forward, reason_not_to_compile
from training.trunk import STRIDE_PX, Trunk
from training.updates.loss_averages import LossAverages
from training.updates.schedule import lr_factor
from training.updates.step import Updater
from training.weights.checkpoint import Checkpoint, load_checkpoint
from training.weights.writer import CheckpointWriter, steps_to_keep

__all__ = ["Session", "model_of", "steps_of_budget"]

FLOP_PER_TFLOP = 1e12


class Session:
    """State of a run, built at step 0; `restore` moves it to a checkpoint."""

    def __init__(
        self,
        config: PretrainConfig,
        pipeline: Pipeline,
        ranks: Ranks,
        device: torch.device,
        division: TaskParallel | None = None,
    ) -> None:
        """`division`: how `ranks` are divided among tasks; None: all train all tasks."""
        self.config, self.pipeline, self.ranks, self.device = config, pipeline, ranks, device
        self.division = division or TaskParallel.undivided(pipeline.tasks, ranks)
        # 1. Model and cost first, on the CPU: the number of steps follows from FLOPs, and every rank counts the same.
        self.model = model_of(config, pipeline.tasks, len(pipeline.labels))
        self.batch_sizes = {name: config.pipeline.batch_size_of_task(name) for name in pipeline.tasks}
        self.flop = {
            name: count_flop(self.model, dummy_batch(task, self.batch_sizes[name]))
            for name, task in pipeline.tasks.items()
        }
        self.num_steps = steps_of_budget(config, self.flop)
        if config.trunk.norm == "synced":
            sync_norms(self.model)
        # 2. To the device before the optimizers, which keep references to its parameters.
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.train()
        self.updater = Updater(
            self.model,
            config.pipeline.tasks,
            optimizer=config.optimizer,
            way=config.updates,
            balance=config.balance,
            ema=config.ema,
            seed=config.seed,
            ranks=self.division.ranks,
            exchange=self.division.exchange(self.model),
        )
        # After FLOPs are counted: a budget does not pay for what is computed twice to save memory.
        self.model.trunk.recompute = config.speed.recompute
        if config.speed.compile == "auto" and (reason := reason_not_to_compile(device)) is None:
            self.updater.forward = compiled_forward(self.model)
        elif config.speed.compile == "auto" and ranks.is_first:
            print_line(f"speed.compile: nothing is compiled: {reason}.")
        # 3. What changes as the run goes.
        self.averages = LossAverages(self.division.ranks, self.division.merged)
        self.step = 0
        self.samples_seen = dict.fromkeys(pipeline.tasks, 0)
        self.meter = Meter(self.samples_seen)
        self._problems: list[str] = []
        self.diagnosis = self._open_diagnosis()
        self.held_out = self._open_held_out()
        # 4. Agreed once: the first rank measures alone, but all ranks must write a log line after the same steps.
        (self._is_measured,) = ranks.any([self.held_out is not None], device)

    @property
    def compute_tflop(self) -> float:
        """Compute spent so far, in 10^12 FLOPs, summed over tasks."""
        spent = (self.flop[name] * seen / self.batch_sizes[name] for name, seen in self.samples_seen.items())
        return sum(spent) / FLOP_PER_TFLOP

    @property
    def lr(self) -> float:
        """Learning rate of the step to come (after the end: of the last one)."""
        step = min(self.step, self.num_steps - 1)
        num_passes = max(self._passes().values(), default=0.0)
        return self.config.optimizer.lr * lr_factor(self.config.schedule, step, self.num_steps, num_passes)

    def steps(self) -> Iterator[Step]:
        """Yield the batches of every step that is left."""
        stream = iter(self.pipeline)
        while self.step < self.num_steps:
            with self.meter.waiting():
                step = next(stream)
            yield step

    def learn(self, step: Step) -> None:
        """Train on the batches of one step, one task after the other."""
        lr, number = self.lr, self.step + 1
        diagnosis = self.diagnosis
        with nullcontext() if diagnosis is None else diagnosis.around(number, step.batches, self.model, self.updater):
            for name, batch in step.batches.items():
                on_device = batch.to(self.device)
                loss = self.updater.take(on_device, lr)
                self.averages.add(name, self.step, loss, on_device.weight)
            self.updater.finish(self.step, lr, is_exchange_due=self.division.is_exchange_due(number, self.num_steps))
        average_running_statistics(self.model, self.model.trunk, self.division.ranks)
        # Tasks of other ranks are counted, too.
        for name in self._active_tasks(self.step):
            self.samples_seen[name] += self.batch_sizes[name]
        self.step += 1

    @property
    def is_trunk_whole(self) -> bool:
        """Whether all ranks have the same trunk after this step: then the run can be saved and measured."""
        return self.division.is_exchange_due(self.step, self.num_steps)

    @property
    def steps_since_whole(self) -> range:
        """Steps after the one at which all ranks last had the same trunk before this step, up to this one."""
        return self.division.steps_since_exchange(self.step)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the tasks' learning, a sentence each."""
        return [*self._problems, *(self.diagnosis.warnings if self.diagnosis else ())]

    @property
    def is_log_due(self) -> bool:
        """Whether this step ends with a line of the log. The same on all ranks."""
        is_due = self.step % self.config.log_every_steps == 0 or self.step == self.num_steps
        diagnostics = self.config.diagnostics
        is_diagnosed = diagnostics is not None and self.step % diagnostics.every == 0
        return is_due or is_diagnosed or self._ends_measured_part

    def log_line(self) -> dict[str, Any]:
        """Return what happened since the last line; losses and metrics are means over steps and ranks.

        All ranks must call it. Raises FourfoldError where a loss was not finite, on all ranks.
        """
        means = self.averages.take()
        if self._ends_measured_part:
            self.division.collect(self.model, self.updater)
        samples_per_s, data_wait_ratio = self.meter.take(self.samples_seen)
        return {
            "step": self.step,
            "losses": {task: values.pop("loss") for task, values in means.items()},
            "metrics": means,
            "samples_per_s": samples_per_s,
            "data_wait_ratio": data_wait_ratio,
            "lr": self.lr,
            "seconds": round(self.meter.seconds, 3),
            "compute_tflop": self.compute_tflop,
            "lasso": self.division.merged_lasso(self.model.lasso_weights()),
            "passes": self.passes,
        } | self._optional_parts()

    def _optional_parts(self) -> dict[str, Any]:
        uncertainty = self.updater.uncertainty
        weights = {} if uncertainty is None else {"loss_weights": uncertainty.weights()}
        return weights if self.diagnosis is None else weights | self.diagnosis.take_line()

    @property
    def passes(self) -> dict[str, float]:
        """How often each task has seen every sample of its source."""
        return {name: round(passes, 3) for name, passes in self._passes().items()}

    def _passes(self) -> dict[str, float]:
        sizes = {name: self.pipeline.plans[task.source].num_samples for name, task in self.pipeline.tasks.items()}
        return {name: seen / sizes[name] for name, seen in self.samples_seen.items()}

    @property
    def source_samples(self) -> dict[str, int]:
        """Samples read of each source, by kind, over all ranks; several tasks may have shared one."""
        position = self.pipeline.position()
        return {kind: position[f"{kind}_batch"] * plan.global_batch_size for kind, plan in self.pipeline.plans.items()}

    @property
    def is_held_out_due(self) -> bool:
        """Whether this rank measures held-out samples after this step."""
        return self.held_out is not None and self._ends_measured_part

    @property
    def _ends_measured_part(self) -> bool:
        """Whether this step ends one of the `held_out.times` equal parts of a run that is measured."""
        if not self._is_measured or self.config.held_out is None or not self.is_trunk_whole:
            return False
        times, before = self.config.held_out.times, self.steps_since_whole.start - 1
        return self.step * times // self.num_steps > before * times // self.num_steps

    def held_out_line(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Measure the held-out samples; "held_out" and "warnings" for the log. line: the log's of the same step."""
        assert self.held_out is not None
        found = self.held_out.measure(self.model, self.device)
        self._problems = [
            problem
            for task in found
            for problem in problems_of(task, line["losses"].get(task, math.inf), found[task], self.passes[task])
        ]
        return {"held_out": found, "warnings": self.warnings}

    def save(self, writer: CheckpointWriter) -> None:
        """Have a checkpoint written, on the first rank. All ranks must call it.

        Raises FourfoldError where a loss was not finite, on all ranks; and where the file before could not be written.
        """
        # Before writing: a checkpoint of weights that are NaN would replace the last good one.
        self.averages.check()
        self.division.collect(self.model, self.updater)
        if not self.ranks.is_first:
            return
        checkpoint = Checkpoint(
            step=self.step,
            seconds=self.meter.seconds,
            samples_seen=self.samples_seen,
            position=self.pipeline.position(),
            model=self.model.state_dict(),
            optimizers=self.updater.state_dict(),
            cpu_seconds=self.meter.cpu_seconds,
            world_size=self.ranks.world_size,
        )
        writer.save(checkpoint)

    def keep_trunk(self, writer: CheckpointWriter) -> None:
        """Have the trunk kept if `checkpoint.keep_at` names this step. All ranks must call it; raises as `save`."""
        steps = steps_to_keep(self.config.checkpoint.keep_at, self.num_steps)
        fractions = [one for step in self.steps_since_whole for one in steps.get(step, [])]
        if not fractions or not self.is_trunk_whole:
            return
        self.averages.check()
        self.division.collect(self.model, self.updater)
        for fraction in fractions if self.ranks.is_first else []:
            writer.keep(self.trunk, fraction)

    @property
    def trunk(self) -> Trunk:
        """The trunk that a run leaves behind: the average over steps where `ema` is on."""
        average = self.updater.average
        return self.model.trunk if average is None else average.trunk()

    def restore(self, run_dir: Path) -> None:
        """Move to the checkpoint in a run's folder, if there is one."""
        checkpoint = load_checkpoint(run_dir)
        if checkpoint is None:
            return
        self.model.load_state_dict(checkpoint.model)
        self.updater.load_state_dict(checkpoint.optimizers)
        self.pipeline.restore(checkpoint.position)
        self.step, self.samples_seen = checkpoint.step, dict(checkpoint.samples_seen)
        if self.ranks.is_first and checkpoint.world_size not in (0, self.ranks.world_size):
            print_line(_other_ranks_line(self.config, checkpoint.world_size, self.ranks.world_size))
        self.meter = Meter(self.samples_seen, checkpoint.seconds, checkpoint.cpu_seconds)

    def close(self) -> None:
        """Stop the pipeline of held-out samples. The training pipeline is closed by its builder."""
        if self.held_out is not None:
            self.held_out.close()

    def _open_diagnosis(self) -> Diagnosis | None:
        # One rank measures, on its part of the batches: weights are the same on all, and the others wait for it.
        options, pipeline = self.config.diagnostics, self.config.pipeline
        if options is None or not self.ranks.is_first:
            return None
        return Diagnosis(options, pipeline, open_labelled(options, pipeline, self.config.seed))

    def _open_held_out(self) -> HeldOut | None:
        # One rank measures for all: weights are the same on every rank, and others wait at the next step.
        if not self.ranks.is_first or self.config.held_out is None:
            return None
        try:
            return open_held_out(
                self.config.held_out,
                self.config.pipeline,
                self.model,
                seed=self.config.seed,
                num_steps=self.num_steps,
            )
        except UsageError as error:
            self._problems.append(f"held_out: nothing is measured. {error} Or set held_out: off.")
            return None

    def _active_tasks(self, step: int) -> tuple[str, ...]:
        return active_tasks(self.config.pipeline, self.config.seed, step)


def steps_of_budget(config: PretrainConfig, flop: Mapping[str, float]) -> int:
    """Return the number of steps that the budget pays for. `flop`: of one batch of each task, forward and backward."""
    budget, pipeline = config.budget or BudgetConfig(steps=1), config.pipeline
    cost: Mapping[str, float] = {name: pipeline.batch_size_of_task(name) for name in pipeline.tasks}
    if budget.unit == "compute_tflop":
        cost = {name: one / FLOP_PER_TFLOP for name, one in flop.items()}
    is_constant = all(task.task_weight == 1.0 and task.every == 1 for task in pipeline.tasks.values())
    return count_steps(budget, cost, partial(active_tasks, pipeline, config.seed), is_constant=is_constant)


def _other_ranks_line(config: PretrainConfig, before: int, now: int) -> str:
    """Say what a run changes by resuming on another number of ranks."""
    ranks = "1 rank" if now == 1 else f"{now} ranks"
    line = f"resumes on {ranks} from a checkpoint of {before}: batches over all ranks stay the same"
    if config.trunk.norm != "batch":
        return f"{line}, and so do the weights but for rounding."
    return f"{line}; batch norm sees other parts of them, so weights differ. trunk.norm synced and group avoid that."


def model_of(config: PretrainConfig, tasks: Mapping[str, Task], num_labels: int) -> Model:
    """Return the untrained model of a run: trunk, and a head for each task."""
    trunk = build_trunk(config.trunk, tuple(tasks), config.seed)
    shapes = {name: _head_input(trunk, task, num_labels) for name, task in tasks.items()}
    return build_model(
        trunk,
        config.heads,
        shapes,
        seed=config.seed,
        lasso=config.lasso,
        precision=config.precision,
    )


def _head_input(trunk: Trunk, task: Task, num_labels: int) -> HeadInput:
    height, width = task.spec(1)["inputs"].shape[-2:]
    return HeadInput(
        num_channels=trunk.num_channels,
        height=-(-height // STRIDE_PX),
        width=-(-width // STRIDE_PX),
        num_labels=num_labels,
    )
