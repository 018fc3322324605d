"""What the loaders around torch's DataLoader share: worker processes that live through all passes."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from benchmarks.profile.loaders.setting import Batch, Setting
from benchmarks.profile.loaders.targets import Finish, finish_of

__all__ = ["Collate", "WorkerLoader", "worker_options"]

Sample = tuple[int, npt.NDArray[np.uint8]]
"""Its number and its canvas."""


class Collate:
    """Stacks samples and makes the tensors, in the worker process. Can be pickled."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._finish: Finish | None = None

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        rows, canvases = zip(*samples, strict=True)
        return self.finish(list(rows), torch.from_numpy(np.stack(canvases)))

    def finish(self, rows: list[int], canvases: torch.Tensor) -> Batch:
        if self._finish is None:
            self._finish = finish_of(self._setting.make, self._setting.canvas_px)
        return Batch(rows, self._finish(canvases))

    def __getstate__(self) -> dict[str, Any]:
        return {"_setting": self._setting, "_finish": None}


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

    def start(self, epoch: int) -> Iterator[Batch]:
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
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
