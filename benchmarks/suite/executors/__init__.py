"""Executors: run stages in an order that respects their needs, and yield an event for each start and end."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from benchmarks.results.record import Record
from benchmarks.suite.stages import Stage

__all__ = ["StageBusy", "StageEvent", "Executor", "RunStage"]

RunStage = Callable[[Stage], Record]
"""Runs one stage, writes its record and returns it. Raises StageBusy where another run is at work on the stage.

Picklable: it may be sent to another process.
"""


class StageBusy(Exception):
    """Another run holds the lock of a stage. The executor tries the stage again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEvent:
    """A stage has started, finished (with its `record`) or failed (with an `error` of one line or more).

    "busy": another run is at work on it; it will start, finish or fail later.
    """

    stage: Stage
    state: Literal["started", "busy", "finished", "failed"]
    record: Record | None = None
    error: str = ""
    trace: str = ""


class Executor(Protocol):
    """`num_jobs`: stages that run at a time."""

    @property
    def num_jobs(self) -> int: ...

    def run(self, stages: Sequence[Stage], run_stage: RunStage) -> Generator[StageEvent, None, None]:
        """Run every stage whose needs did not fail. A stage's failure is an event; KeyboardInterrupt is not caught.

        Closing the generator ends what still runs. A stage at work saves its checkpoint first.
        """
        ...
