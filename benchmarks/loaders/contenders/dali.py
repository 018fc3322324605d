"""DALI on the CPU: decoding and nothing else (the limit), and its own webdataset reader in one graph."""

import tarfile
from collections.abc import Generator, Sequence
from io import BytesIO
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from benchmarks.loaders.setting import SHUFFLE_BUFFER, Batch, Batches, Loader, Setting
from pipelines.decode.dali import require_dali
from pipelines.shards.format.index import VERSION

__all__ = ["DecodeOnly", "TarLoader", "dali_loader", "write_tars"]

WARM_UP_BATCHES = 6
"""More than the graph holds ready."""
TAR_BLOCK_BYTES = 512
TARS_PER_CORE = 2


def dali_loader(encoded: Sequence[bytes], batch_size: int, num_threads: int) -> Generator[Any, None, None]:
    """Yield batches without end of the whole images, from bytes in memory."""
    dali: Any = require_dali()
    fn, types = dali.fn, dali.types
    arrays = cycle([np.frombuffer(one, np.uint8) for one in encoded])
    pipeline = dali.Pipeline(batch_size=batch_size, num_threads=num_threads, device_id=None)
    with pipeline:
        # no_copy: the bytes live as long as this generator, and copying them would not be decoding.
        source = fn.external_source(lambda: list(islice(arrays, batch_size)), batch=True, no_copy=True)
        pipeline.set_outputs(fn.decoders.image(source, device="cpu", output_type=types.RGB))
    pipeline.build()
    while True:
        yield pipeline.run()


class DecodeOnly(Loader):
    """The limit: one endless graph over bytes in memory; a pass is as many batches as hold all samples."""

    def __init__(self, setting: Setting) -> None:
        encoded = [path.read_bytes() for path in sorted(setting.folder.glob("*.jpg"))]
        self._batch_size, self._num_batches = setting.batch_size, len(encoded) // setting.batch_size
        self._batches = dali_loader(encoded, setting.batch_size, setting.num_cores)

    def start(self, epoch: int) -> Batches:
        for _ in range(WARM_UP_BATCHES):  # what was decoded while others ran is not counted
            next(self._batches)
        return self._pass()

    def _pass(self) -> Batches:
        for _ in range(self._num_batches):
            next(self._batches)
            yield Batch(list(range(self._batch_size)), torch.empty(0))

    def close(self) -> None:
        self._batches.close()


def write_tars(setting: Setting, images: list[bytes]) -> None:
    """Write `number.jpg` and `number.box` (int32: x0, y0, width, height, number) in tars with DALI's index.

    A sample's numbers are a component beside the image, which is how DALI's reader gets them into the graph.
    """
    setting.folder.mkdir(parents=True, exist_ok=True)
    x0, y0, x1, y1 = setting.boxes().T
    numbers_N5 = np.stack([x0, y0, x1 - x0, y1 - y0, np.arange(len(images))], axis=1).astype("<i4")
    for part, rows in enumerate(np.array_split(np.arange(len(images)), TARS_PER_CORE * setting.num_cores)):
        lines = []
        with tarfile.open(setting.folder / f"{part:04d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows.tolist():
                members = {"jpg": images[row], "box": numbers_N5[row].tobytes()}
                lines.append(" ".join(_add(tar, row, extension, content) for extension, content in members.items()))
        index = "\n".join([f"{VERSION} {len(lines)}", *lines, ""])
        (setting.folder / f"{part:04d}.idx").write_text(index, encoding="utf-8")


def _add(tar: tarfile.TarFile, row: int, extension: str, content: bytes) -> str:
    """Add one member; return its words in the index."""
    member = tarfile.TarInfo(f"{row:06d}.{extension}")
    # Content starts one block later: ustar needs no second header for names and sizes as small as these.
    member.size, offset = len(content), tar.offset + TAR_BLOCK_BYTES
    tar.addfile(member, BytesIO(content))
    return f"{extension} {offset} {len(content)} {member.name}"


class TarLoader(Loader):
    """A new graph for every pass: an endless one would have read the next pass's first batches already."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._num_batches = setting, len(setting.boxes()) // setting.batch_size
        require_dali()

    def start(self, epoch: int) -> Batches:
        setting, dali = self._setting, require_dali()
        fn, types = dali.fn, dali.types
        tars, side = sorted(setting.folder.glob("*.tar")), setting.canvas_px
        threads = {"batch_size": setting.batch_size, "num_threads": setting.num_cores, "device_id": None}
        # A seed for each pass, or all would have the same order.
        pipeline = dali.Pipeline(**threads, seed=epoch + 1, exec_dynamic=True)
        with pipeline:
            encoded, numbers = fn.readers.webdataset(
                paths=[str(tar) for tar in tars],
                index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
                ext=["jpg", "box"],
                dtypes=[types.UINT8, types.INT32],
                missing_component_behavior="error",
                random_shuffle=True,
                initial_fill=SHUFFLE_BUFFER,
            )
            # Boxes have x before y, and DALI's axes are rows before columns.
            box = {"start": numbers[0:2], "shape": numbers[2:4], "axes": [1, 0]}
            images = fn.decoders.image_slice(encoded, **box, device="cpu", output_type=types.RGB)
            pixels = fn.resize(images, size=[side, side], antialias=True, interp_type=types.INTERP_LINEAR)
            pipeline.set_outputs(pixels, numbers)
        pipeline.build()
        return self._batches(pipeline)

    def _batches(self, pipeline: Any) -> Batches:
        for _ in range(self._num_batches):
            pixels, numbers = pipeline.run()
            rows: list[int] = np.asarray(numbers.as_tensor())[:, 4].tolist()
            yield Batch(rows, torch.utils.dlpack.from_dlpack(pixels.as_tensor()))
