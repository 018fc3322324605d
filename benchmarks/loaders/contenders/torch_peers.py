"""webdataset, litdata and mosaicml-streaming as their documentation sets them up, on torch's DataLoader and Pillow.

mosaicml-streaming keeps shared memory under fixed names and lock files in the folder for temporary files. Both go with
the process that opened the dataset, the memory at the latest with Python's resource tracker.
"""

from typing import Any

from torch.utils.data import DataLoader

from benchmarks.loaders.contenders.torch_files import Collate, WorkerLoader, worker_options
from benchmarks.loaders.setting import SHUFFLE_BUFFER, Setting

__all__ = ["open_litdata", "open_mosaic", "open_webdataset", "write_litdata", "write_mosaic"]

PART_BYTES = 8 * 2**20


def open_webdataset(setting: Setting) -> WorkerLoader:
    """Open webdataset over fourfold's tars in a random order, each worker its own, then a shuffle buffer."""
    import webdataset

    tars = sorted(str(path) for path in setting.folder.glob("*.tar"))
    samples: Any = webdataset.WebDataset(tars, shardshuffle=len(tars), workersplitter=webdataset.split_by_worker)
    samples = samples.shuffle(SHUFFLE_BUFFER).rename(row="__key__", jpg="jpg")
    batches = samples.batched(setting.batch_size, collation_fn=Collate(setting), partial=True)
    return WorkerLoader(lambda: webdataset.WebLoader(batches, batch_size=None, **worker_options(setting)))


def write_mosaic(setting: Setting, images: list[bytes]) -> None:
    """Write MDS shards of the images, in the order of their numbers."""
    from streaming import MDSWriter

    columns = {"row": "int", "jpg": "bytes"}
    with MDSWriter(out=str(setting.folder), columns=columns, size_limit=PART_BYTES) as shards:
        for row, encoded in enumerate(images):
            shards.write({"row": row, "jpg": encoded})


def write_litdata(setting: Setting, images: list[bytes]) -> None:
    """Write chunks of the images, in the order of their numbers."""
    from litdata.streaming.writer import BinaryWriter  # `litdata.optimize` runs it in processes that it starts

    setting.folder.mkdir(parents=True, exist_ok=True)
    writer = BinaryWriter(str(setting.folder), chunk_bytes=PART_BYTES)
    for row, encoded in enumerate(images):
        writer[row] = {"row": row, "jpg": encoded}
    writer.done()
    # Writes the index of all chunks, without which its reader finds none.
    writer.merge(1)


def open_litdata(setting: Setting) -> WorkerLoader:
    from litdata import StreamingDataLoader, StreamingDataset

    options = {"batch_size": setting.batch_size, "collate_fn": Collate(setting), **worker_options(setting)}
    folder = str(setting.folder)
    return WorkerLoader(lambda: StreamingDataLoader(StreamingDataset(folder, shuffle=True), **options), maps_files=True)


def open_mosaic(setting: Setting) -> WorkerLoader:
    from streaming import StreamingDataset

    dataset: Any = StreamingDataset(local=str(setting.folder), shuffle=True, batch_size=setting.batch_size)
    options = {"batch_size": setting.batch_size, "collate_fn": Collate(setting), **worker_options(setting)}
    return WorkerLoader(lambda: DataLoader(dataset, **options))
