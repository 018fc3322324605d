"""Where stages run. An executor takes stages in an order that respects their needs and yields what happens to them."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from benchmarks.results.record import Record
from benchmarks.suite.stages import Stage

__all__ = ["StageEvent", "Executor", "RunStage"]

RunStage = Callable[[Stage], Record]
"""Runs one stage to the end, leaves its record on disk, returns it. Picklable: it may go to another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEvent:
    """What happened to a stage. `record` if finished; `error` (one line or more) if failed."""

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
        """Run every stage whose needs did not fail. A stage's failure is an event; KeyboardInterrupt goes through.

        Closing the generator ends what still runs.
        """
        ...
