"""Executor for several stages at a time on one machine, each in a worker process with its share of the cores.

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
from types import FrameType

from benchmarks.suite.executors import RunStage, StageEvent
from benchmarks.suite.executors.local import attempt, failed_need, not_run
from benchmarks.suite.stages import Stage
from pipelines.base.blas_threads import limit_blas_threads
from pipelines.base.interrupt import sigterm_as_interrupt
from pipelines.base.machine import num_cores
from pipelines.base.progress import quiet_progress

__all__ = ["ProcessExecutor"]

# Not fork: it copies the locks of torch's and OpenCV's threads without the threads, which then stay locked for ever.
SPAWN = multiprocessing.get_context("spawn")


class ProcessExecutor:
    """At most `num_jobs` stages at a time, in the given order as far as their needs allow.

    Workers are fresh interpreters, so the script that calls this needs an `if __name__ == "__main__":`. They end with
    this process, however it ends. After Ctrl-C or SIGTERM they save their checkpoints first.
    """

    def __init__(self, num_jobs: int) -> None:
        self.num_jobs = num_jobs

    def run(self, stages: Sequence[Stage], run_stage: RunStage) -> Generator[StageEvent, None, None]:
        with sigterm_as_interrupt():
            yield from _Run(stages, run_stage, self.num_jobs).events()


class _Run:
    """State of one run: stages that wait, stages at work, and the keys of failed ones."""

    def __init__(self, stages: Sequence[Stage], run_stage: RunStage, num_jobs: int) -> None:
        self._waiting, self._run_stage, self._num_jobs = list(stages), run_stage, num_jobs
        self._working: dict[Future[StageEvent], Stage] = {}
        self._failed: set[str] = set()
        self._pool = self._open_pool()

    def events(self) -> Generator[StageEvent, None, None]:
        try:
            while self._waiting or self._working:
                yield from self._start()
                for future in wait(self._working, return_when=FIRST_COMPLETED).done:
                    yield from self._finish(future)
        finally:
            self._end()

    def _start(self) -> Iterator[StageEvent]:
        """Submit the stages that can run, in order. A stage whose need has failed fails, too."""
        for stage in list(self._waiting):
            need = failed_need(stage, self._failed)
            if need is not None:
                self._waiting.remove(stage)
                self._failed.add(stage.key)
                yield not_run(stage, need)
            elif len(self._working) < self._num_jobs and not self._is_early(stage):
                self._waiting.remove(stage)
                self._working[self._pool.submit(_work, stage, self._run_stage)] = stage
                yield StageEvent(stage=stage, state="started")

    def _is_early(self, stage: Stage) -> bool:
        unfinished = {other.key for other in (*self._waiting, *self._working.values())}
        return any(need.key in unfinished for need in stage.needs)

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
        if event.state == "failed":
            self._failed.add(stage.key)
        yield event

    def _open_pool(self) -> ProcessPoolExecutor:
        num_threads = max(1, num_cores() // self._num_jobs)
        return ProcessPoolExecutor(self._num_jobs, SPAWN, initializer=_begin_worker, initargs=(num_threads,))

    def _end(self) -> None:
        """End the pool. Workers in the middle of a stage save a checkpoint first."""
        if self._working:
            # SIGTERM makes a worker save and leave; to shut the pool down alone would wait for whole stages.
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(num_threads: int) -> None:
    # A group of its own: Ctrl-C in a terminal reaches only the main process, which then ends its workers in order.
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(num_threads)  # read by training and by probes
    limit_blas_threads(num_threads)


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
