"""What the loaders around torch's DataLoader share: worker processes that live through all passes."""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from benchmarks.loaders.loader_targets import Finish, finish_of
from benchmarks.loaders.setting import Batch, Batches, Setting

__all__ = ["Collate", "CollateCanvases", "WorkerLoader", "stacked", "worker_options"]

Canvas = npt.NDArray[np.uint8]
Sample = tuple[int, Canvas]
"""Its number and its canvas."""


def stacked(canvases: Sequence[Canvas]) -> torch.Tensor:
    """uint8 RGB (B, S, S, 3) of canvases (S, S, 3)."""
    return torch.from_numpy(np.stack(canvases))


class Collate:
    """Makes the tensors of a batch, in the worker process."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._finish: Finish | None = None

    def finish(self, rows: list[int], canvases: torch.Tensor) -> Batch:
        if self._finish is None:  # made in the worker
            self._finish = finish_of(self._setting.make, self._setting.canvas_px)
        return Batch(rows, self._finish(canvases))


class CollateCanvases(Collate):
    """Of samples that are canvases already."""

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        rows, canvases = zip(*samples, strict=True)
        return self.finish(list(rows), stacked(canvases))


def worker_options(setting: Setting) -> dict[str, Any]:
    """For DataLoader and its descendants: one worker a core, two batches ahead each, which is torch's default."""
    return {"num_workers": setting.num_cores, "persistent_workers": True, "multiprocessing_context": "fork"}


class WorkerLoader:
    """A loader whose every iteration is a pass.

    maps_files: its workers keep files mapped, so before a pass with a cold cache they end, and new ones start in it.
    """

    def __init__(self, open_loader: Callable[[], DataLoader[Any]], *, maps_files: bool = False) -> None:
        self._open, self._maps_files = open_loader, maps_files
        self._loader: DataLoader[Any] | None = open_loader()

    def start(self, epoch: int) -> Batches:
        return self._batches()

    def _batches(self) -> Batches:
        assert self._loader is not None
        for rows, tensors in self._loader:
            yield Batch(list(rows), tensors)

    def let_go(self) -> None:
        if self._maps_files:
            self.close()
            self._loader = self._open()

    def close(self) -> None:
        self._loader = None
        gc.collect()  # ends its workers
