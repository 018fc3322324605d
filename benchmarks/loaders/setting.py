"""The contract of a loader: what it is given and must give, so that all make the same canvases of the same samples.

A loader makes passes. In a pass every sample comes exactly once, in the loader's own shuffled order, in batches of any
size up to `batch_size`. Letters: N samples, B samples of a batch, S canvas side.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["SHUFFLE_BUFFER", "Batch", "Batches", "Loader", "Setting"]

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
    """Batch of a loader. rows: the samples' numbers. canvases: uint8 RGB (B, S, S, 3) on the CPU."""

    rows: list[int]
    canvases: torch.Tensor


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
