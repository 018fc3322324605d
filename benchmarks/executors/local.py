"""Stages one after the other in this process: the executor for one machine with one accelerator or none."""

import traceback
from collections.abc import Iterator, Sequence

from benchmarks.executors import Event, RunStage
from benchmarks.graph import Stage
from pipelines.errors import FourfoldError

__all__ = ["LocalExecutor"]


class LocalExecutor:
    """Sequential; a stage that needs a failed stage fails too, without being run."""

    def run(self, stages: Sequence[Stage], run_stage: RunStage) -> Iterator[Event]:
        failed: set[str] = set()
        for stage in stages:
            missing = next((need for need in stage.needs if need.key in failed), None)
            if missing is not None:
                event = Event(
                    stage=stage, state="failed", error=f"not run: it needs {missing.folder_name}, which failed"
                )
            else:
                yield Event(stage=stage, state="started")
                event = _attempt(stage, run_stage)
            if event.state == "failed":
                failed.add(stage.key)
            yield event


def _attempt(stage: Stage, run_stage: RunStage) -> Event:
    try:
        return Event(stage=stage, state="finished", record=run_stage(stage))
    except FourfoldError as error:
        return Event(stage=stage, state="failed", error=str(error))
    # One broken cell must not cost the night's other cells: whatever it was, it is recorded and the rest goes on.
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return Event(stage=stage, state="failed", error=message, trace=traceback.format_exc())
