"""litdata: chunks on this machine, its own shuffle and DataLoader."""

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.profile.loaders.pillow_canvas import pillow_canvas
from benchmarks.profile.loaders.setting import Setting
from benchmarks.profile.loaders.worker_processes import Collate, WorkerLoader, worker_options

__all__ = ["open_loader", "write"]

CHUNK_BYTES = 8 * 2**20


def write(setting: Setting, images: list[bytes]) -> None:
    """Chunks of the images. `litdata.optimize` does this in processes that it starts; the writer is the same."""
    from litdata.streaming.writer import BinaryWriter

    setting.folder.mkdir(parents=True, exist_ok=True)
    writer = BinaryWriter(str(setting.folder), chunk_bytes=CHUNK_BYTES)
    for row, encoded in enumerate(images):
        writer[row] = {"row": row, "jpg": encoded}
    writer.done()
    writer.merge(1)


def open_loader(setting: Setting) -> WorkerLoader:
    from litdata import StreamingDataLoader, StreamingDataset

    boxes_N4, canvas_px = setting.boxes(), setting.canvas_px

    class Canvases(StreamingDataset):
        def __getitem__(self, index: Any) -> tuple[int, npt.NDArray[np.uint8]]:
            sample = super().__getitem__(index)
            return sample["row"], pillow_canvas(sample["jpg"], boxes_N4[sample["row"]], canvas_px)

    options = {"batch_size": setting.batch_size, "collate_fn": Collate(setting), **worker_options(setting)}
    folder = str(setting.folder)
    return WorkerLoader(lambda: StreamingDataLoader(Canvases(folder, shuffle=True), **options), maps_files=True)
