"""The running pipeline: an endless iterator of steps, prepared in the background, that can say and resume its place.

Steps are made ahead, by threads of this process (step_threads.py) or by processes of their own (step_worker_pool.py).
`position()` is the place of the consumer, not of what is made ahead.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from pipelines.base.errors import UsageError
from pipelines.decode.choice import BackendChoice
from pipelines.read.sample_plan import SamplePlan
from pipelines.run.failure_budget import FailureBudget
from pipelines.run.memory_estimate import PipelineMemory
from pipelines.run.stage_stats import Listener, StageStats
from pipelines.run.step_maker import POSITION_KEYS, MadeStep, Step, StepMaker
from pipelines.shards.format.manifest import Kind

__all__ = ["Pipeline", "Step", "Supply"]

START = dict.fromkeys(POSITION_KEYS, 0)


class Supply(Protocol):
    """Steps of the stream one after the other, made ahead of who gets them."""

    def start(self, position: Mapping[str, int]) -> None:
        """From this place on."""

    def get(self) -> MadeStep:
        """The next step; waits for it. Raises what prevented it."""

    def stop(self) -> None:
        """Drop what was made ahead. Safe to call twice."""

    def stats(self) -> tuple[StageStats, ...]: ...

    def observe(self, listener: Listener | None) -> None: ...

    def close(self) -> None:
        """End all threads and processes. Safe to call twice."""


class Pipeline:
    """Made by `build_pipeline`. Iterate for ever; use as a context manager, or call `close`.

    tasks: the tasks by name. plans: which samples come when, by kind. backend_choice: which one decodes, and why.
    labels: names of the classes that targets count in. memory: what its batches take. maker: its sources, backend and
    tasks, whose stages can be run one by one; with worker processes, each has one of its own. `next` raises DataError
    when more samples fail than allowed, and FourfoldError within a second when a thread or process it waits for has
    died.
    """

    def __init__(
        self,
        *,
        maker: StepMaker,
        supply: Supply,
        backend_choice: BackendChoice,
        memory: PipelineMemory,
        labels: tuple[str, ...],
        max_failure_ratio: float,
    ) -> None:
        """`maker`: of the steps that `supply` gives. Both are closed with the pipeline."""
        self.maker = maker
        self.tasks = dict(maker.tasks)
        self.plans: dict[Kind, SamplePlan] = {kind: source.plan for kind, source in maker.sources.items()}
        self.backend_choice, self.memory, self.labels = backend_choice, memory, labels
        self._supply, self._budget = supply, FailureBudget(max_failure_ratio)
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
                self._supply.start(self._position)
                self._is_started = True
            made = self._supply.get()
            self._budget.count(made.num_samples, made.step.faults)
        except Exception:
            self.close()
            raise
        self._position = made.after
        return made.step

    def position(self) -> dict[str, int]:
        """The place after the last step received: small, JSON, the same for every rank. See `restore`."""
        return dict(self._position)

    def restore(self, position: Mapping[str, int]) -> None:
        """Go on from a saved position; the steps that follow are the same to the bit. Raises UsageError."""
        legal = set(position) == set(POSITION_KEYS) and all(type(v) is int and v >= 0 for v in position.values())
        if not legal:
            raise UsageError(f"pipeline position {dict(position)!r}; need {', '.join(POSITION_KEYS)}, each at least 0.")
        self._supply.stop()
        self._is_started = False
        self._position = {key: position[key] for key in POSITION_KEYS}

    @property
    def pass_steps(self) -> dict[str, int]:
        """By task, the steps after which every sample was there once, if the task is active in all of them; where
        the last batch has room left, the next pass begins in it."""
        plans = {name: self.plans[task.source] for name, task in self.tasks.items()}
        return {name: -(-plan.num_samples // plan.global_batch_size) for name, plan in plans.items()}

    def stage_stats(self) -> tuple[StageStats, ...]:
        """What "read", "decode" and each task did since the pipeline was built; see stage_stats.bottleneck."""
        return self._supply.stats()

    def observe(self, listener: Listener | None) -> None:
        """From now on, tell a listener of every piece of work of every stage; None for no one."""
        self._supply.observe(listener)

    def close(self) -> None:
        """Stop all threads and processes. Safe to call twice."""
        self._is_closed = True
        self._supply.close()
