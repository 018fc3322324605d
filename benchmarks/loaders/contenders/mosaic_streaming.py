"""mosaicml-streaming: MDS shards on this machine, its own shuffle, under torch's DataLoader.

It keeps shared memory under fixed names and lock files in the folder for temporary files; both belong to the process
that opened the dataset and go with it, the memory at the latest when Python's resource tracker sees that it has ended.
"""

from typing import Any

from torch.utils.data import DataLoader

from benchmarks.loaders.contenders.pillow_canvas import CollateEncoded
from benchmarks.loaders.contenders.torch_workers import WorkerLoader, worker_options
from benchmarks.loaders.setting import Setting

__all__ = ["open_loader", "write"]

SHARD_BYTES = 8 * 2**20
COLUMNS = {"row": "int", "jpg": "bytes"}


def write(setting: Setting, images: list[bytes]) -> None:
    """Shards of the images, in the order of their numbers."""
    from streaming import MDSWriter

    with MDSWriter(out=str(setting.folder), columns=COLUMNS, size_limit=SHARD_BYTES) as writer:
        for row, encoded in enumerate(images):
            writer.write({"row": row, "jpg": encoded})


def open_loader(setting: Setting) -> WorkerLoader:
    from streaming import StreamingDataset

    dataset: Any = StreamingDataset(local=str(setting.folder), shuffle=True, batch_size=setting.batch_size)
    options = {"batch_size": setting.batch_size, "collate_fn": CollateEncoded(setting), **worker_options(setting)}
    return WorkerLoader(lambda: DataLoader(dataset, **options))
