"""The contract of a loader: what it is given and must give, so that all make the same tensors of the same samples.

A loader makes passes. In a pass every sample comes exactly once, in the loader's own shuffled order, in batches of any
size up to `batch_size`. Letters: N samples, B samples of a batch, S canvas side.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipelines.tasks import CanvasSpec, TaskBatch
from pipelines.tasks.colorization import Colorization, ColorizationConfig

__all__ = [
    "SHUFFLE_BUFFER",
    "Batch",
    "Batches",
    "Finish",
    "Loader",
    "Make",
    "Setting",
    "colorization",
    "finish_of",
    "tensors_of",
]

Make = Literal["canvas", "colorization"]
Finish = Callable[[torch.Tensor], dict[str, torch.Tensor]]

SHUFFLE_BUFFER = 256
"""Samples in the buffer of the loaders that shuffle by one: it must be filled before the first batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Data, shapes and cores of a loader.

    folder: the loader's own data, where sample i has the number i. boxes_file: int32 (N, 4), .npy: the box of sample i,
    x0, y0, x1, y1 in pixels, end excluded. reference_file: uint8 RGB (N, S, S, 3), .npy: the canvases as they must be.
    num_cores: worker processes or threads, and cores that the process may use."""

    folder: Path
    boxes_file: Path
    reference_file: Path
    make: Make
    canvas_px: int
    batch_size: int
    num_cores: int

    def boxes(self) -> npt.NDArray[np.int32]:
        return np.asarray(np.load(self.boxes_file), np.int32)

    def reference(self) -> npt.NDArray[np.uint8]:
        """Return the reference, mapped into memory, read only."""
        # Mapped, since the process of every loader compares with it and would hold a copy.
        return np.asanyarray(np.load(self.reference_file, mmap_mode="r"))

    def to_json(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Setting":
        paths = {name: Path(content[name]) for name in ("folder", "boxes_file", "reference_file")}
        return cls(**(content | paths))


class Batch(NamedTuple):
    """Batch of a loader. rows: the samples' numbers. tensors: by name, on the CPU, first axis B; see `finish_of`."""

    rows: list[int]
    tensors: dict[str, torch.Tensor]


Batches = Generator[Batch, None, None]
"""The batches of one pass; to be closed."""


class Loader(ABC):
    """A loader: opened once, then started for one pass after the other."""

    @abstractmethod
    def start(self, epoch: int) -> Batches:
        """Prepare a pass: processes and graphs are there when it returns, and nothing is read before the first batch.
        Time runs from the first request to the last batch."""

    def let_go(self) -> None:  # noqa: B027
        """Unmap all files: what is mapped cannot be dropped from the page cache. Most read files and map none."""

    def close(self) -> None:  # noqa: B027
        """Stop what outlives a pass: processes, threads, files outside of the loader's folder."""


def finish_of(make: Make, canvas_px: int) -> Finish:
    """Return the code, the same for all loaders, that makes a batch's tensors of canvases, uint8 RGB (B, S, S, 3).

    canvas: {"canvas": the canvases}. colorization: "inputs" (B, 3, S, S), "bins" and "bin_weights" (B, K, h, w) and
    "weight" (B, h, w), as in pipelines/tasks/colorization.py.
    """
    if make == "canvas":
        return lambda canvases_BSS3: {"canvas": canvases_BSS3}
    task = colorization(canvas_px)
    return lambda canvases_BSS3: tensors_of(task.make(canvases_BSS3, {}, ()))


def colorization(canvas_px: int) -> Colorization:
    return Colorization(ColorizationConfig(), CanvasSpec(canvas_px=canvas_px))


def tensors_of(batch: TaskBatch) -> dict[str, torch.Tensor]:
    return {"inputs": batch.inputs, "weight": batch.weight, **batch.target}
