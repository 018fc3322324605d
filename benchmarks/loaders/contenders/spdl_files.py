"""SPDL: threads that read plain files and decode, crop and resize them by FFmpeg's filters."""

import random
from pathlib import Path
from typing import Any

from benchmarks.loaders.loader_targets import finish_of
from benchmarks.loaders.setting import Batch, Batches, Setting

__all__ = ["open_loader"]

SINK_BATCHES = 4
ACCURATE = "flags=bilinear+accurate_rnd+full_chroma_int+full_chroma_inp"
"""As FFmpeg works by default, canvases of photos come out up to 5 levels off: chroma is enlarged by repeating it and
cropped to whole chroma pixels. So chroma is enlarged first; that takes a third more time."""


def open_loader(setting: Setting) -> "SpdlLoader":
    return SpdlLoader(setting)


class SpdlLoader:
    """A pipeline of threads for every pass."""

    def __init__(self, setting: Setting) -> None:
        import spdl.io

        self._io: Any = spdl.io
        self._setting, self._boxes = setting, setting.boxes().tolist()
        self._finish = finish_of(setting.make, setting.canvas_px)
        self._paths = sorted(setting.folder.glob("*.jpg"))
        # Without FFmpeg it fails here; inside the pipeline it would be waited for without end.
        self._join([self._load((0, self._paths[0]))])

    def start(self, epoch: int) -> Batches:
        from spdl.pipeline import PipelineBuilder

        samples = list(enumerate(self._paths))
        random.Random(epoch).shuffle(samples)
        cores = self._setting.num_cores
        builder: Any = PipelineBuilder()
        builder = builder.add_source(samples).pipe(self._load, concurrency=cores)
        builder = builder.aggregate(self._setting.batch_size).pipe(self._join).add_sink(SINK_BATCHES)
        return self._batches(builder.build(num_threads=cores, max_failures=0))

    def _batches(self, pipeline: Any) -> Batches:
        with pipeline.auto_stop():
            yield from pipeline

    def _load(self, sample: tuple[int, Path]) -> tuple[int, Any]:
        """The sample's number and its frame."""
        row, path = sample
        x0, y0, x1, y1 = self._boxes[row]
        side = self._setting.canvas_px
        filters = (
            f"scale={ACCURATE},format=yuvj444p,crop={x1 - x0}:{y1 - y0}:{x0}:{y0}:exact=1,"
            f"scale={side}:{side}:{ACCURATE},format=rgb24"
        )
        return row, self._io.decode_packets(self._io.demux_image(str(path)), filter_desc=filters)

    def _join(self, loaded: list[tuple[int, Any]]) -> Batch:
        rows, frames = zip(*loaded, strict=True)
        canvases = self._io.to_torch(self._io.convert_frames(list(frames)))
        return Batch(list(rows), self._finish(canvases))

    def let_go(self) -> None:
        """Files are read, not mapped."""

    def close(self) -> None:
        """All is gone with the last pass."""
