"""Executor for several stages at a time on one machine, each in a worker process with its share of cores and GPUs.

A small trunk hardly gains from a second core, so a suite finishes sooner with cells side by side than in sequence.
What a stage computes does not depend on its neighbours; its seconds do.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel
from multiprocessing.queues import SimpleQueue
from types import FrameType

from benchmarks.suite.executors import RunStage, StageEvent
from benchmarks.suite.executors.local import attempt
from benchmarks.suite.executors.schedule import Schedule
from benchmarks.suite.executors.slots import Slot, slots_of
from benchmarks.suite.stages import Stage
from pipelines.base.blas_threads import limit_blas_threads
from pipelines.base.interrupt import sigterm_as_interrupt
from pipelines.base.progress import quiet_progress

__all__ = ["ProcessExecutor"]

# Not fork: it copies the locks of torch's and OpenCV's threads without the threads, which then stay locked for ever.
SPAWN = multiprocessing.get_context("spawn")


class ProcessExecutor:
    """At most `num_jobs` stages at a time, in the given order as far as their needs allow.

    Workers are fresh interpreters, so the script that calls this needs an `if __name__ == "__main__":`. They end with
    this process, however it ends. After Ctrl-C or SIGTERM they save their checkpoints first.
    """

    def __init__(self, num_jobs: int, gpus: Sequence[str] = ()) -> None:
        self.num_jobs, self._gpus = num_jobs, gpus

    def run(self, stages: Sequence[Stage], run_stage: RunStage) -> Generator[StageEvent, None, None]:
        with sigterm_as_interrupt():
            yield from _Run(stages, run_stage, slots_of(self.num_jobs, self._gpus)).events()


class _Run:
    """State of one run: the schedule, and the stages at work."""

    def __init__(self, stages: Sequence[Stage], run_stage: RunStage, slots: Sequence[Slot]) -> None:
        self._schedule, self._run_stage, self._slots = Schedule(stages), run_stage, slots
        self._working: dict[Future[StageEvent], Stage] = {}
        self._pool = self._open_pool()

    def events(self) -> Generator[StageEvent, None, None]:
        try:
            while not self._schedule.is_over:
                yield from self._start()
                if not self._working:
                    self._schedule.sleep()
                # A stage that another run held can be tried again after a pause, also while others are at work.
                pause_s = self._schedule.pause_s()
                for future in wait(self._working, timeout=pause_s, return_when=FIRST_COMPLETED).done:
                    yield from self._finish(future)
        finally:
            self._end()

    def _start(self) -> Iterator[StageEvent]:
        """Submit the stages that can run, in order, as far as there are free workers."""
        while len(self._working) < len(self._slots) and (stage := self._schedule.take()) is not None:
            try:
                future = self._pool.submit(_work, stage, self._run_stage)
            except BrokenProcessPool:
                # A worker has died. Stages that were lost with it may not have come back yet.
                self._schedule.defer(stage)
                if not self._working:
                    self._pool = self._open_pool()
                return
            self._working[future] = stage
            yield StageEvent(stage=stage, state="started")

    def _finish(self, future: Future[StageEvent]) -> Iterator[StageEvent]:
        stage = self._working.pop(future)
        try:
            event = future.result()
        except BrokenProcessPool:
            # Nobody knows which worker died, so all stages at work are lost; the waiting ones get new workers.
            if not self._working:
                self._pool = self._open_pool()
            event = StageEvent(
                stage=stage,
                state="failed",
                error="a worker process was killed; the system does that when memory runs out. Run again, with fewer "
                "--jobs: finished stages are kept, others resume from their checkpoints.",
            )
        except Exception as error:  # a stage or a record that cannot be sent between processes
            event = StageEvent(
                stage=stage, state="failed", error=f"{type(error).__name__}: {error}", trace=_trace(error)
            )
        if event.state == "busy":
            self._schedule.defer(stage)
            yield event
        else:
            yield from self._schedule.close(event)

    def _open_pool(self) -> ProcessPoolExecutor:
        # Every worker takes one slot when it begins, and keeps it as long as it lives.
        free: SimpleQueue[Slot] = SPAWN.SimpleQueue()
        for slot in self._slots:
            free.put(slot)
        return ProcessPoolExecutor(len(self._slots), SPAWN, initializer=_begin_worker, initargs=(free,))

    def _end(self) -> None:
        """End the pool. Workers in the middle of a stage save a checkpoint first."""
        if self._working:
            # SIGTERM makes a worker save and leave; to shut the pool down alone would wait for whole stages.
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(free: "SimpleQueue[Slot]") -> None:
    # A group of its own: Ctrl-C in a terminal reaches only the main process, which then ends its workers in order.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    slot = free.get()
    slot.apply()
    limit_blas_threads(slot.num_threads)


def _work(stage: Stage, run_stage: RunStage) -> StageEvent:
    with quiet_progress():
        try:
            return attempt(stage, run_stage)
        except (KeyboardInterrupt, SystemExit):
            # The stage has saved its checkpoint. Usually the main process is ending, too, and nobody reads this event.
            return StageEvent(
                stage=stage, state="failed", error="its process was told to stop. Run again to resume it."
            )


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    # A parent that is killed can send no signal, but its sentinel closes.
    wait_for_sentinel([parent.sentinel])
    os._exit(1)


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
