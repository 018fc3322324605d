"""webdataset and torchvision: tars in a random order, each worker its own, then a shuffle buffer."""

from typing import Any

from benchmarks.loaders.contenders.pillow_canvas import pillow_canvas
from benchmarks.loaders.contenders.torch_workers import CollateCanvases, Sample, WorkerLoader, worker_options
from benchmarks.loaders.setting import SHUFFLE_BUFFER, Setting

__all__ = ["open_loader"]


class MakeCanvas:
    """Of a sample's key, which is its number, and its bytes."""

    def __init__(self, setting: Setting) -> None:
        self._boxes_N4, self._canvas_px = setting.boxes(), setting.canvas_px

    def __call__(self, sample: tuple[str, bytes]) -> Sample:
        key, encoded = sample
        return int(key), pillow_canvas(encoded, self._boxes_N4[int(key)], self._canvas_px)


def open_loader(setting: Setting) -> WorkerLoader:
    import webdataset

    tars = sorted(str(path) for path in setting.folder.glob("*.tar"))
    samples: Any = webdataset.WebDataset(tars, shardshuffle=len(tars), workersplitter=webdataset.split_by_worker)
    samples = samples.shuffle(SHUFFLE_BUFFER).to_tuple("__key__", "jpg").map(MakeCanvas(setting))
    batches = samples.batched(setting.batch_size, collation_fn=CollateCanvases(setting), partial=True)
    return WorkerLoader(lambda: webdataset.WebLoader(batches, batch_size=None, **worker_options(setting)))
