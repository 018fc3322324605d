"""Executor for the machines of a Ray cluster: one Ray task per stage, with the CPU cores, GPUs and memory it asks for.

Every machine must have fourfold installed, and see the data and the results under the same names. A task whose machine
or process is lost is given to another one, where the stage resumes from its checkpoint.
"""

import logging
import os
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.executors import RunStage, StageEvent
from benchmarks.suite.executors.local import attempt
from benchmarks.suite.executors.schedule import Schedule
from benchmarks.suite.executors.slots import Slot
from benchmarks.suite.stages import Stage
from pipelines.base.blas_threads import limit_blas_threads
from pipelines.base.errors import UsageError
from pipelines.base.interrupt import sigterm_as_interrupt
from pipelines.base.progress import quiet_progress

__all__ = ["RayExecutor"]

MAX_RETRIES = 10
"""How many lost machines or processes one stage survives."""
NUM_AHEAD = 2
"""Stages handed to Ray beyond what the cluster can run, so that no machine waits for the next one."""
LONGEST_WAIT_S = 5.0
"""A cluster may grow and shrink: its size is looked at this often."""
STOP_S = 120.0
"""Time for stages at work to save a checkpoint when a run ends early."""


class RayExecutor:
    """Runs stages on a cluster that exists. address: "auto" for RAY_ADDRESS or one on this machine, or HOST:PORT.

    num_jobs: most stages at a time; 0: as many as the cluster has room for. num_cpus, num_gpus, memory_gib: of one
    stage; num_gpus None: one if the cluster has any. Raises UsageError where Ray or the cluster is missing, or where no
    machine of it has that much.
    """

    def __init__(
        self,
        address: str = "auto",
        *,
        num_jobs: int = 0,
        num_cpus: float = 1.0,
        num_gpus: float | None = None,
        memory_gib: float = 0.0,
    ) -> None:
        self._ray, self._is_own = _connected(address)
        self._most_jobs = num_jobs
        num_gpus = num_gpus if num_gpus is not None else float(self._ray.cluster_resources().get("GPU", 0) >= 1)
        self._request = {"CPU": num_cpus, "GPU": num_gpus, "memory": memory_gib * 2**30}
        if not self._room():
            there = {name: self._ray.cluster_resources().get(name, 0) for name in self._request}
            raise UsageError(
                f"a stage asks for {self._request} of a machine, and none of the cluster at {address} has that much "
                f"(all together: {there}). Give smaller --cpus-per-stage, --gpus-per-stage or --memory-per-stage."
            )

    @property
    def num_jobs(self) -> int:
        """Stages that the cluster has room for now, at most as many as were asked for; at least 1."""
        return max(1, min(self._room(), self._most_jobs or self._room()))

    def run(self, stages: Sequence[Stage], run_stage: RunStage) -> Generator[StageEvent, None, None]:
        try:
            with sigterm_as_interrupt():
                yield from _Run(self, stages, run_stage).events()
        finally:
            if self._is_own:
                self._ray.shutdown()

    def remote(self) -> Any:
        """Return the function that runs a stage on a machine of the cluster."""
        # Only tasks whose machine or process is gone are tried again: an error of a stage would come again.
        return self._ray.remote(
            num_cpus=self._request["CPU"],
            num_gpus=self._request["GPU"],
            memory=int(self._request["memory"]) or None,
            max_retries=MAX_RETRIES,
            retry_exceptions=False,
        )(_work)

    @property
    def num_threads(self) -> int:
        return max(1, int(self._request["CPU"]))

    @property
    def ray(self) -> Any:
        return self._ray

    def _room(self) -> int:
        """Return how many stages fit on the machines that live."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(
            min((int(machine.get(name, 0) / need) for name, need in self._request.items() if need), default=1)
            for machine in machines
        )


class _Run:
    """State of one run: the schedule, and the stages that Ray has."""

    def __init__(self, executor: RayExecutor, stages: Sequence[Stage], run_stage: RunStage) -> None:
        self._executor, self._ray, self._remote = executor, executor.ray, executor.remote()
        self._schedule, self._working = Schedule(stages), dict[Any, Stage]()
        # Sent once, and not with every stage.
        self._shared = self._ray.put((run_stage, executor.num_threads, os.getcwd()))

    def events(self) -> Generator[StageEvent, None, None]:
        try:
            while not self._schedule.is_over:
                yield from self._start()
                pause_s = self._schedule.pause_s()
                wait_s = LONGEST_WAIT_S if pause_s is None else min(pause_s, LONGEST_WAIT_S)
                if not self._working:
                    time.sleep(wait_s)
                    continue
                finished, _ = self._ray.wait(list(self._working), num_returns=1, timeout=wait_s)
                for reference in finished:
                    yield from self._finish(reference)
        finally:
            self._end()

    def _start(self) -> Iterator[StageEvent]:
        """Hand the stages that can run to Ray, in order."""
        depth = self._executor.num_jobs + NUM_AHEAD
        while len(self._working) < depth and (stage := self._schedule.take()) is not None:
            self._working[self._remote.remote(self._shared, stage)] = stage
            yield StageEvent(stage=stage, state="started")

    def _finish(self, reference: Any) -> Iterator[StageEvent]:
        stage = self._working.pop(reference)
        try:
            event: StageEvent = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            text = " ".join(str(error).split())[:500]
            event = StageEvent(
                stage=stage,
                state="failed",
                error=f"Ray could not finish it in {MAX_RETRIES + 1} tries ({text}). Look at the cluster's machines, "
                "then run again: finished stages are kept, others resume from their checkpoints.",
            )
        if event.state == "busy":
            self._schedule.defer(stage)
            yield event
        else:
            yield from self._schedule.close(event)

    def _end(self) -> None:
        """Interrupt the stages at work, which then save a checkpoint, and wait for them."""
        left = list(self._working)
        for reference in left:
            self._ray.cancel(reference)
        if left:
            self._ray.wait(left, num_returns=len(left), timeout=STOP_S)


def _connected(address: str) -> tuple[Any, bool]:
    """Return the module, and whether the connection was made here."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "executor: ray: Ray is not installed. Say pip install 'fourfold[ray]', or take --executor local."
        ) from error
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--address {address}: no Ray cluster answers there ({error}). Start one (ray start --head), or give the "
            "HOST:PORT that it printed."
        ) from error
    return ray, True


def _work(shared: tuple[RunStage, int, str], stage: Stage) -> StageEvent:
    """Run a stage on a machine of the cluster."""
    run_stage, num_threads, folder = shared
    # Relative paths of a suite are relative to the folder that the command was started in.
    if Path(folder).is_dir():
        os.chdir(folder)
    Slot(None, num_threads).apply()
    limit_blas_threads(num_threads)
    # Ray's interrupt of a cancelled task comes as SIGINT; a process that ignores that could not be asked to stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with quiet_progress():
        try:
            return attempt(stage, run_stage)
        except (KeyboardInterrupt, SystemExit):
            return StageEvent(stage=stage, state="failed", error="it was told to stop. Run again to resume it.")
