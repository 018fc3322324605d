"""litdata: chunks on this machine, its own shuffle and DataLoader."""

from benchmarks.loaders.contenders.pillow_canvas import CollateEncoded
from benchmarks.loaders.contenders.torch_workers import WorkerLoader, worker_options
from benchmarks.loaders.setting import Setting

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

    options = {"batch_size": setting.batch_size, "collate_fn": CollateEncoded(setting), **worker_options(setting)}
    folder = str(setting.folder)
    return WorkerLoader(lambda: StreamingDataLoader(StreamingDataset(folder, shuffle=True), **options), maps_files=True)
