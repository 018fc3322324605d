"""Shortcuts by task, and which tasks of a pipeline are looked at."""

from collections.abc import Sequence

from benchmarks.shortcuts import colorization, exemplar, motion_segmentation, relative_position
from benchmarks.shortcuts.base import TaskShortcuts
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig
from pipelines.shards.format.manifest import Kind
from pipelines.tasks import TASKS

__all__ = ["SHORTCUTS", "by_kind"]

SHORTCUTS: dict[str, TaskShortcuts] = {
    "relative_position": relative_position.SHORTCUTS,
    "colorization": colorization.SHORTCUTS,
    "exemplar": exemplar.SHORTCUTS,
    "motion_segmentation": motion_segmentation.SHORTCUTS,
}


def by_kind(config: PipelineConfig, wanted: Sequence[str] = ()) -> dict[Kind, PipelineConfig]:
    """Return the pipeline of every kind of sample that has tasks to look at, with these tasks; all if none is named.

    Raises UsageError for a task that has no shortcuts here, or that the configuration lacks.
    """
    there = [name for name in config.tasks if name in SHORTCUTS]
    chosen = list(wanted) or there
    if missing := [name for name in chosen if name not in there]:
        raise UsageError(f"--tasks {','.join(missing)}: allowed here: {', '.join(there) or 'none'}.")
    if not chosen:
        raise UsageError(f"tasks: none whose shortcuts are known; need one of {', '.join(SHORTCUTS)}.")
    kinds: dict[Kind, PipelineConfig] = {}
    for kind in (TASKS[name].source for name in chosen):
        tasks = {name: config.tasks[name] for name in chosen if TASKS[name].source == kind}
        kinds[kind] = config.model_copy(update={"tasks": tasks})
    return kinds
