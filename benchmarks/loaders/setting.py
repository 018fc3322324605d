"""What every loader is told and what it must give, so that all make the same tensors of the same samples.

A loader makes passes. In a pass every sample comes exactly once, in the loader's own shuffled order, in batches of any
size up to `batch_size`. Letters: N samples, B samples of a batch, S canvas side.
"""

from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["SHUFFLE_BUFFER", "Batch", "Batches", "Loader", "Make", "Setting"]

Make = Literal["canvas", "colorization"]

SHUFFLE_BUFFER = 256
"""Samples in the buffer of the loaders that shuffle by one: it must be filled before the first batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """folder: of the loader's own data. Sample i is there under the number i, and is cropped to row i of the boxes."""

    folder: Path
    boxes_file: Path
    """int32 (N, 4), .npy: x0, y0, x1, y1 in pixels, end excluded."""
    reference_file: Path
    """uint8 RGB (N, S, S, 3), .npy: what the canvases must look like."""
    make: Make
    canvas_px: int
    batch_size: int
    num_cores: int
    """Worker processes, or threads where a loader has threads; and cores that the process may use."""

    def boxes(self) -> npt.NDArray[np.int32]:
        return np.asarray(np.load(self.boxes_file), np.int32)

    def reference(self) -> npt.NDArray[np.uint8]:
        """Mapped into memory, read only."""
        return np.asanyarray(np.load(self.reference_file, mmap_mode="r"))

    def to_json(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Setting":
        paths = {name: Path(content[name]) for name in ("folder", "boxes_file", "reference_file")}
        return cls(**(content | paths))


class Batch(NamedTuple):
    """rows: the samples' numbers. tensors: by name, on the CPU, first axis B; see `loader_targets.py`."""

    rows: list[int]
    tensors: dict[str, torch.Tensor]


Batches = Generator[Batch, None, None]
"""Of one pass; to be closed."""


class Loader(Protocol):
    """Opened once, then asked for passes, one after the other."""

    def start(self, epoch: int) -> Batches:
        """Prepare a pass. Nothing is read before its first batch is asked for, and what it takes to have the loader
        there (processes, graphs) is done before: time runs from the first request to the last batch."""

    def let_go(self) -> None:
        """Unmap all files: what is mapped cannot be dropped from the page cache."""

    def close(self) -> None:
        """Stop all processes and threads, and remove what lies outside of the loader's folder."""
