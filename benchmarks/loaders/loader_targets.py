"""The tensors that all loaders make of canvases, uint8 RGB (B, S, S, 3), with the same code.

canvas: {"canvas": uint8 (B, S, S, 3)}. colorization: "inputs" (B, 3, S, S), "bins" and "bin_weights" (B, K, h, w) and
"weight" (B, h, w), as in pipelines/tasks/colorization.py.
"""

from collections.abc import Callable

import torch

from benchmarks.loaders.setting import Make
from pipelines.tasks import CanvasSpec, TaskBatch
from pipelines.tasks.colorization import Colorization, ColorizationConfig

__all__ = ["Finish", "colorization", "finish_of", "tensors_of"]

Finish = Callable[[torch.Tensor], dict[str, torch.Tensor]]


def finish_of(make: Make, canvas_px: int) -> Finish:
    """What turns canvases into the tensors that are asked for."""
    if make == "canvas":
        return lambda canvases: {"canvas": canvases}
    task = colorization(canvas_px)
    return lambda canvases: tensors_of(task.make(canvases, {}, ()))


def colorization(canvas_px: int) -> Colorization:
    return Colorization(ColorizationConfig(), CanvasSpec(canvas_px=canvas_px))


def tensors_of(batch: TaskBatch) -> dict[str, torch.Tensor]:
    return {"inputs": batch.inputs, "weight": batch.weight, **batch.target}
