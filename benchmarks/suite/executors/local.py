"""Executor for one machine with one accelerator: stages run one after the other in this process."""

import traceback
from collections.abc import Collection, Generator, Sequence

from benchmarks.suite.executors import RunStage, StageEvent
from benchmarks.suite.stages import Stage
from pipelines.base.errors import FourfoldError

__all__ = ["LocalExecutor", "attempt", "failed_need", "not_run"]


class LocalExecutor:
    """Runs stages in sequence. A stage that needs a failed stage fails without being run."""

    num_jobs = 1

    def run(self, stages: Sequence[Stage], run_stage: RunStage) -> Generator[StageEvent, None, None]:
        failed: set[str] = set()
        for stage in stages:
            missing = failed_need(stage, failed)
            if missing is not None:
                event = not_run(stage, missing)
            else:
                yield StageEvent(stage=stage, state="started")
                event = attempt(stage, run_stage)
            if event.state == "failed":
                failed.add(stage.key)
            yield event


def failed_need(stage: Stage, failed: Collection[str]) -> Stage | None:
    """Return the first stage that `stage` needs and that has failed, if any."""
    return next((need for need in stage.needs if need.key in failed), None)


def not_run(stage: Stage, missing: Stage) -> StageEvent:
    return StageEvent(stage=stage, state="failed", error=f"not run: it needs {missing.folder_name}, which failed")


def attempt(stage: Stage, run_stage: RunStage) -> StageEvent:
    """Run a stage and return what came of it: any Exception becomes an event; KeyboardInterrupt does not."""
    try:
        return StageEvent(stage=stage, state="finished", record=run_stage(stage))
    except FourfoldError as error:
        return StageEvent(stage=stage, state="failed", error=str(error))
    # One broken cell must not cost a night's other cells: its error is recorded, and the others run.
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return StageEvent(stage=stage, state="failed", error=message, trace=traceback.format_exc())
