"""The running pipeline: an endless iterator of training steps, made ahead in the background, that can be resumed.

Steps are made by threads of this process (step_threads.py), by worker processes (step_worker_pool.py), or images by the
one and clips by the other (joined_steps.py). `position()` says how far the consumer is; steps that are made but not yet
taken do not count.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from pipelines.base.errors import UsageError
from pipelines.decode.placement import Placement
from pipelines.read.sample_plan import SamplePlan
from pipelines.run.failure_budget import FailureBudget
from pipelines.run.memory_estimate import PipelineMemory
from pipelines.run.stage_stats import Listener, StageStats
from pipelines.run.step_maker import POSITION_KEYS, MadeStep, Step, StepMaker
from pipelines.shards.format.manifest import Kind

__all__ = ["Pipeline", "Step", "StepSource"]

START = dict.fromkeys(POSITION_KEYS, 0)


class StepSource(Protocol):
    """Protocol of what makes steps in the background: the same steps in the same order, by threads or processes."""

    def start(self, position: Mapping[str, int]) -> None:
        """Begin to make steps, the first at `position` (POSITION_KEYS to integers of at least 0)."""

    def get(self) -> MadeStep:
        """Return the next step; wait until it is made. Raises the error that prevented it."""

    def is_ready(self) -> bool:
        """Return whether the next step is made, so that `get` returns at once."""

    def stop(self) -> None:
        """Drop the steps that were made ahead. Safe to call twice."""

    def stats(self) -> tuple[StageStats, ...]:
        """Return the counts and seconds of "read", "decode" and each task, in this order."""

    def observe(self, listener: Listener | None) -> None:
        """Report every piece of work to `listener` from now on; None reports to no one."""

    def close(self) -> None:
        """End all threads and processes. Safe to call twice."""


class Pipeline:
    """An endless iterator of `Step`, made by `build_pipeline`. Use it as a context manager, or call `close`.

    tasks: the tasks by name. plans: the order of samples, by kind. placements: where batches are made, by kind, and
    why. labels: class names; a label is an index into them. memory: bytes that the batches take. maker: sources,
    backends and tasks, whose stages can be run one by one. Each worker process has a maker of its own; this one makes
    no steps then.
    `next` raises DataError when more samples fail than `max_failure_ratio` allows, and FourfoldError within a second
    when a thread or process that it waits for has died.
    """

    def __init__(
        self,
        *,
        maker: StepMaker,
        step_source: StepSource,
        placements: Mapping[Kind, Placement],
        memory: PipelineMemory,
        labels: tuple[str, ...],
        max_failure_ratio: float,
    ) -> None:
        """`maker` and `step_source` make the steps; `close` closes both."""
        self.maker = maker
        self.tasks = dict(maker.tasks)
        self.plans: dict[Kind, SamplePlan] = {kind: source.plan for kind, source in maker.sources.items()}
        self.placements, self.memory, self.labels = dict(placements), memory, labels
        self._step_source, self._budget = step_source, FailureBudget(max_failure_ratio)
        self._position = dict(START)
        self._is_started = self._is_closed = False

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> "Pipeline":
        return self

    def __next__(self) -> Step:
        if self._is_closed:
            raise UsageError("this pipeline is closed; build another one with build_pipeline")
        try:
            if not self._is_started:
                self._step_source.start(self._position)
                self._is_started = True
            made = self._step_source.get()
            self._budget.count(made.num_samples, made.step.faults)
        except Exception:
            # End threads and processes now: a caller that got an error rarely calls `close`.
            self.close()
            raise
        # Only after the step is sure to be returned: a step that failed is made again after a resume.
        self._position = made.after
        return made.step

    def position(self) -> dict[str, int]:
        """Return the place after the last step received: a dict for JSON, the same on every rank. See `restore`."""
        return dict(self._position)

    def restore(self, position: Mapping[str, int]) -> None:
        """Resume at a saved position; the steps that follow are the same to the bit. Raises UsageError."""
        legal = set(position) == set(POSITION_KEYS) and all(type(v) is int and v >= 0 for v in position.values())
        if not legal:
            raise UsageError(f"pipeline position {dict(position)!r}; need {', '.join(POSITION_KEYS)}, each at least 0.")
        self._step_source.stop()
        self._is_started = False
        self._position = {key: position[key] for key in POSITION_KEYS}

    @property
    def pass_steps(self) -> dict[str, int]:
        """Steps of one pass over all samples, by task, for a task that is active in every step.

        If the samples do not fill the last batch of a pass, the next pass begins in it.
        """
        plans = {name: self.plans[task.source] for name, task in self.tasks.items()}
        return {name: -(-plan.num_samples // plan.global_batch_size) for name, plan in plans.items()}

    def stage_stats(self) -> tuple[StageStats, ...]:
        """Return what "read", "decode" and each task did since the pipeline was built; see `stage_stats.bottleneck`."""
        return self._step_source.stats()

    def observe(self, listener: Listener | None) -> None:
        """Report every piece of work of every stage to `listener` from now on; None reports to no one."""
        self._step_source.observe(listener)

    def close(self) -> None:
        """Stop all threads and processes. Safe to call twice."""
        self._is_closed = True
        self._step_source.close()
        self.maker.close()
