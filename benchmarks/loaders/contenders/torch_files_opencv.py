"""torch's DataLoader over plain files, with fourfold's own code for pixels: how much of a difference is the pixels'?"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.loaders.contenders.torch_workers import Collate, WorkerLoader, worker_options
from benchmarks.loaders.setting import Batch, Setting
from pipelines.base.errors import DataError
from pipelines.decode.opencv import OpenCVBackend

__all__ = ["open_loader"]

Canvases = tuple[list[int], torch.Tensor]


class FilesInBatches(Dataset[Canvases]):
    """Whole batches at once, each decoded by one thread of one worker."""

    def __init__(self, setting: Setting) -> None:
        self._paths = sorted(setting.folder.glob("*.jpg"))
        self._boxes_N4, self._canvas_px = setting.boxes(), setting.canvas_px
        self._backend: OpenCVBackend | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitems__(self, rows: Sequence[int]) -> list[Canvases]:
        if self._backend is None:  # its thread must start in the worker
            self._backend = OpenCVBackend(num_threads=1)
        encoded = [memoryview(self._paths[row].read_bytes()) for row in rows]
        flips = np.zeros(len(rows), bool)
        decoded = self._backend.canvases(encoded, self._boxes_N4[list(rows)], flips, self._canvas_px)
        if decoded.failures:
            raise DataError(f"{self._paths[rows[decoded.failures[0][0]]]}: {decoded.failures[0][1]}")
        return [(list(rows), decoded.pixels)]


class CollateWhole(Collate):
    """Of a list of one."""

    def __call__(self, samples: Sequence[Canvases]) -> Batch:
        ((rows, canvases),) = samples
        return self.finish(rows, canvases)


def open_loader(setting: Setting) -> WorkerLoader:
    return WorkerLoader(
        lambda: DataLoader(
            FilesInBatches(setting),
            batch_size=setting.batch_size,
            shuffle=True,
            collate_fn=CollateWhole(setting),
            **worker_options(setting),
        )
    )
