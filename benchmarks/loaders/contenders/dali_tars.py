"""DALI's own webdataset reader, decoder and resize, as one graph on the CPU.

Each sample brings its numbers (box and row) as a component of its own beside the image, which is how DALI's reader
gets them into the graph; so its tars are written here, with the index that it wants beside them.
"""

import tarfile
from io import BytesIO
from typing import Any

import numpy as np
import torch

from benchmarks.loaders.loader_targets import finish_of
from benchmarks.loaders.setting import SHUFFLE_BUFFER, Batch, Batches, Setting
from pipelines.decode.dali import require_dali
from pipelines.shards.format.index import VERSION

__all__ = ["open_loader", "write"]

TAR_BLOCK_BYTES = 512
TARS_PER_CORE = 2


def write(setting: Setting, images: list[bytes]) -> None:
    """`number.jpg` and `number.box` (int32: x0, y0, width, height, number) in tars."""
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
    """One member, and its words in the index."""
    member = tarfile.TarInfo(f"{row:06d}.{extension}")
    member.size, offset = len(content), tar.offset + TAR_BLOCK_BYTES
    tar.addfile(member, BytesIO(content))
    return f"{extension} {offset} {len(content)} {member.name}"


def open_loader(setting: Setting) -> "DaliLoader":
    return DaliLoader(setting)


class DaliLoader:
    """A graph for every pass: one that goes on would have read the next pass's first batches already."""

    def __init__(self, setting: Setting) -> None:
        require_dali()
        self._setting, self._num_samples = setting, len(setting.boxes())
        self._finish = finish_of(setting.make, setting.canvas_px)

    def start(self, epoch: int) -> Batches:
        return self._batches(_built(self._setting, epoch))

    def _batches(self, pipeline: Any) -> Batches:
        for _ in range(self._num_samples // self._setting.batch_size):
            pixels, numbers = pipeline.run()
            rows: list[int] = np.asarray(numbers.as_tensor())[:, 4].tolist()
            yield Batch(rows, self._finish(torch.utils.dlpack.from_dlpack(pixels.as_tensor())))

    def let_go(self) -> None:
        """The reader of a pass goes with its graph."""

    def close(self) -> None:
        """All is gone with the last pass."""


def _built(setting: Setting, epoch: int) -> Any:
    dali = require_dali()
    fn, types = dali.fn, dali.types
    tars = sorted(setting.folder.glob("*.tar"))
    pipeline = dali.Pipeline(
        batch_size=setting.batch_size, num_threads=setting.num_cores, device_id=None, seed=epoch + 1, exec_dynamic=True
    )
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
        images = fn.decoders.image_slice(
            encoded, start=numbers[0:2], shape=numbers[2:4], axes=[1, 0], device="cpu", output_type=types.RGB
        )
        side = setting.canvas_px
        pixels = fn.resize(images, size=[side, side], antialias=True, interp_type=types.INTERP_LINEAR)
        pipeline.set_outputs(pixels, numbers)
    pipeline.build()
    return pipeline
