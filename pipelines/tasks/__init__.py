"""Tasks: uint8 pixels and drawn geometry come in, a batch of inputs, targets and weights goes out.

This file registers them by name. A new task is one file here, one line below, one head and one YAML
(docs/add-a-task.md).
"""

from pipelines.tasks.base import CanvasSpec, Geometry, Task, TaskBatch, TaskConfig, TensorSpec, stack_geometry
from pipelines.tasks.colorization import Colorization
from pipelines.tasks.exemplar import Exemplar
from pipelines.tasks.motion_segmentation import MotionSegmentation
from pipelines.tasks.relative_position import RelativePosition
from pipelines.tasks.supervised import Supervised

__all__ = [
    "PRETEXT_TASKS",
    "TASKS",
    "CanvasSpec",
    "Geometry",
    "Task",
    "TaskBatch",
    "TaskConfig",
    "TensorSpec",
    "stack_geometry",
]

PRETEXT_TASKS: dict[str, type[Task]] = {
    task.name: task for task in (RelativePosition, Colorization, Exemplar, MotionSegmentation)
}
TASKS: dict[str, type[Task]] = {**PRETEXT_TASKS, Supervised.name: Supervised}
"""All tasks of a pipeline: the pretext tasks, and `supervised`, the baseline that uses labels."""
