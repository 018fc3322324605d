"""Executor for one machine with one accelerator: stages run one after the other in this process."""

import traceback
from collections.abc import Generator, Sequence

from benchmarks.suite.executors import RunStage, StageBusy, StageEvent
from benchmarks.suite.executors.schedule import Schedule
from benchmarks.suite.stages import Stage
from pipelines.base.errors import FourfoldError

__all__ = ["LocalExecutor", "attempt"]


class LocalExecutor:
    """Runs stages in sequence. A stage that needs a failed stage fails without being run."""

    num_jobs = 1

    def run(self, stages: Sequence[Stage], run_stage: RunStage) -> Generator[StageEvent, None, None]:
        schedule = Schedule(stages)
        while not schedule.is_over:
            stage = schedule.take()
            if stage is None:
                # All that is left is at work in other runs.
                schedule.sleep()
                continue
            yield StageEvent(stage=stage, state="started")
            event = attempt(stage, run_stage)
            if event.state == "busy":
                schedule.defer(stage)
                yield event
            else:
                yield from schedule.close(event)


def attempt(stage: Stage, run_stage: RunStage) -> StageEvent:
    """Run a stage and return what came of it: any Exception becomes an event; KeyboardInterrupt does not."""
    try:
        return StageEvent(stage=stage, state="finished", record=run_stage(stage))
    except StageBusy:
        return StageEvent(stage=stage, state="busy")
    except FourfoldError as error:
        return StageEvent(stage=stage, state="failed", error=str(error))
    # One broken cell must not cost a night's other cells: its error is recorded, and the others run.
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return StageEvent(stage=stage, state="failed", error=message, trace=traceback.format_exc())
