"""torch's DataLoader over plain files, in a new random order each pass."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from benchmarks.loaders.contenders.pillow_canvas import pillow_canvas
from benchmarks.loaders.contenders.torch_workers import CollateCanvases, WorkerLoader, worker_options
from benchmarks.loaders.setting import Setting

__all__ = ["open_loader"]


class Files(Dataset[tuple[int, npt.NDArray[np.uint8]]]):
    """Sample i is the i-th file of the folder."""

    def __init__(self, setting: Setting) -> None:
        self._paths = sorted(setting.folder.glob("*.jpg"))
        self._boxes_N4, self._canvas_px = setting.boxes(), setting.canvas_px

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> tuple[int, npt.NDArray[np.uint8]]:
        encoded = Path(self._paths[row]).read_bytes()
        return row, pillow_canvas(encoded, self._boxes_N4[row], self._canvas_px)


def open_loader(setting: Setting) -> WorkerLoader:
    return WorkerLoader(
        lambda: DataLoader(
            Files(setting),
            batch_size=setting.batch_size,
            shuffle=True,
            collate_fn=CollateCanvases(setting),
            **worker_options(setting),
        )
    )
