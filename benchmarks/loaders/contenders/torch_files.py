"""torch's DataLoader over plain files: with Pillow and torchvision, and with fourfold's code for pixels.

The loaders built on DataLoader in `torch_peers.py` share its worker processes and Pillow's canvases.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.loaders.setting import Batch, Batches, Loader, Setting
from pipelines.base.errors import DataError
from pipelines.decode.opencv import OpenCVBackend

__all__ = ["Collate", "WorkerLoader", "open_loader", "open_opencv", "worker_options"]


class WorkerLoader(Loader):
    """A loader whose every iteration is a pass, by worker processes that live through all of them.

    maps_files: its workers keep files mapped, so before a pass with a cold cache they end, and new ones start in it.
    """

    def __init__(self, open_loader: Callable[[], DataLoader[Any]], *, maps_files: bool = False) -> None:
        self._open, self._maps_files = open_loader, maps_files
        self._loader: DataLoader[Any] | None = open_loader()

    def start(self, epoch: int) -> Batches:
        return self._batches()

    def _batches(self) -> Batches:
        assert self._loader is not None
        for rows, canvases in self._loader:
            yield Batch(list(rows), canvases)

    def let_go(self) -> None:
        if self._maps_files:
            self.close()
            self._loader = self._open()

    def close(self) -> None:
        self._loader = None
        gc.collect()  # ends its workers


def worker_options(setting: Setting) -> dict[str, Any]:
    """Options of a DataLoader: one worker a core, two batches ahead each, which is torch's default."""
    # Forked workers share what this process has imported; spawned ones would import torch again, for seconds.
    return {"num_workers": setting.num_cores, "persistent_workers": True, "multiprocessing_context": "fork"}


class Collate:
    """Makes a batch, in the worker process, of samples {"row": number, "jpg": bytes}, by Pillow and torchvision."""

    def __init__(self, setting: Setting) -> None:
        # Imported here, before workers are forked: one that imports it for itself starts seconds later.
        from torchvision.transforms.v2 import functional

        self._vision: Any = functional
        self._setting, self._boxes = setting, setting.boxes().tolist()

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Batch:
        rows = [int(sample["row"]) for sample in samples]
        canvases = [self._canvas(sample["jpg"], row) for row, sample in zip(rows, samples, strict=True)]
        return Batch(rows, torch.from_numpy(np.stack(canvases)))

    def _canvas(self, encoded: bytes, row: int) -> npt.NDArray[np.uint8]:
        """Return uint8 RGB (S, S, 3): linear, antialiased when shrinking."""
        x0, y0, x1, y1 = self._boxes[row]
        size, image = [self._setting.canvas_px] * 2, Image.open(BytesIO(encoded)).convert("RGB")
        return np.asarray(self._vision.resized_crop(image, y0, x0, y1 - y0, x1 - x0, size, antialias=True), np.uint8)


class Files(Dataset[dict[str, Any]]):
    """Sample i is the i-th file of the folder."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._paths = setting, sorted(setting.folder.glob("*.jpg"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"row": row, "jpg": self._paths[row].read_bytes()}


def open_loader(setting: Setting) -> WorkerLoader:
    options = {"batch_size": setting.batch_size, "shuffle": True, **worker_options(setting)}
    return WorkerLoader(lambda: DataLoader(Files(setting), collate_fn=Collate(setting), **options))


class FilesInBatches(Files):
    """Whole batches at once, each decoded by one thread of one worker."""

    backend: OpenCVBackend | None = None

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[list[int], torch.Tensor]]:
        if self.backend is None:  # its thread must start in the worker
            self.backend = OpenCVBackend(num_threads=1)
        encoded = [memoryview(self[row]["jpg"]) for row in rows]
        boxes_B4, flips_B = self._setting.boxes()[list(rows)], np.zeros(len(rows), bool)
        decoded = self.backend.canvases(encoded, boxes_B4, flips_B, self._setting.canvas_px)
        if decoded.failures:
            raise DataError(f"{self._paths[rows[decoded.failures[0][0]]]}: {decoded.failures[0][1]}")
        return [(list(rows), decoded.pixels)]


def whole_batch(samples: Sequence[Any]) -> Batch:
    """Return the batch of a list of one: rows and all their canvases."""
    ((rows, canvases_BSS3),) = samples
    return Batch(rows, canvases_BSS3)


def open_opencv(setting: Setting) -> WorkerLoader:
    options = {"batch_size": setting.batch_size, "shuffle": True, **worker_options(setting)}
    return WorkerLoader(lambda: DataLoader(FilesInBatches(setting), collate_fn=whole_batch, **options))
