"""SPDL: threads that decode, crop and resize by FFmpeg's filters.

SPDL needs FFmpeg's shared libraries and brings none. Where the system has none, those inside PyAV do, if they are on
the library path when Python starts: `bundled_ffmpeg`.
"""

import os
import random
import re
from pathlib import Path
from typing import Any

from benchmarks.loaders.setting import Batch, Batches, Loader, Setting

__all__ = ["PATH_VARIABLE", "SpdlLoader", "bundled_ffmpeg"]

SINK_BATCHES = 4
BUNDLED = re.compile(r"(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)")
PATH_VARIABLE = "LD_LIBRARY_PATH"
# FFmpeg's default enlarges chroma by repeating it, which puts canvases up to 5 levels off. This takes a third longer.
ACCURATE = "flags=bilinear+accurate_rnd+full_chroma_int+full_chroma_inp"


class SpdlLoader(Loader):
    """A new pipeline of threads for every pass over plain files."""

    def __init__(self, setting: Setting) -> None:
        import spdl.io

        self._io: Any = spdl.io
        self._setting, self._boxes = setting, setting.boxes().tolist()
        self._paths = sorted(setting.folder.glob("*.jpg"))
        self._join([self._load((0, self._paths[0]))])  # without FFmpeg it fails here; a pipeline would wait for ever

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
        """Return the sample's number and its frame."""
        row, path = sample
        x0, y0, x1, y1 = self._boxes[row]
        side = self._setting.canvas_px
        # Chroma is enlarged before the crop: a crop of subsampled chroma could start at even pixels only.
        filters = (
            f"scale={ACCURATE},format=yuvj444p,crop={x1 - x0}:{y1 - y0}:{x0}:{y0}:exact=1,"
            f"scale={side}:{side}:{ACCURATE},format=rgb24"
        )
        return row, self._io.decode_packets(self._io.demux_image(str(path)), filter_desc=filters)

    def _join(self, loaded: list[tuple[int, Any]]) -> Batch:
        rows, frames = zip(*loaded, strict=True)
        return Batch(list(rows), self._io.to_torch(self._io.convert_frames(list(frames))))


def bundled_ffmpeg(folder: Path) -> str | None:
    """Link PyAV's FFmpeg in `folder` under the names that SPDL looks for; return the library path with which a process
    must start, or None where PyAV brings no libraries."""
    import av

    libraries = Path(av.__file__).parent.parent / "av.libs"
    if not libraries.is_dir():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    # Wheels have a hash in the names of their libraries, under which SPDL does not find them.
    for library in libraries.iterdir():
        if found := BUNDLED.match(library.name):
            (folder / f"{found[1]}.so.{found[2]}").symlink_to(library)
    return os.pathsep.join(filter(None, (str(folder), str(libraries), os.environ.get(PATH_VARIABLE))))
