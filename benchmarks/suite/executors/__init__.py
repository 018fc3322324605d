"""Executors: run stages in an order that respects their needs, and yield an event for each start and end."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from benchmarks.results.record import Record
from benchmarks.suite.stages import Stage

__all__ = ["StageEvent", "Executor", "RunStage"]

RunStage = Callable[[Stage], Record]
"""Runs one stage, writes its record and returns it. Picklable: it may be sent to another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEvent:
    """A stage has started, finished (with its `record`) or failed (with an `error` of one line or more)."""

    stage: Stage
    state: Literal["started", "finished", "failed"]
    record: Record | None = None
    error: str = ""
    trace: str = ""


class Executor(Protocol):
    """`num_jobs`: stages that run at a time."""

    @property
    def num_jobs(self) -> int: ...

    def run(self, stages: Sequence[Stage], run_stage: RunStage) -> Generator[StageEvent, None, None]:
        """Run every stage whose needs did not fail. A stage's failure is an event; KeyboardInterrupt is not caught.

        Closing the generator ends what still runs.
        """
        ...
