"""SPDL: threads that decode and resize whole images to squares, by FFmpeg.

SPDL needs FFmpeg's shared libraries and brings none. Where the system has none, those inside PyAV will do, if they are
on the library path when Python starts: `restart_with_ffmpeg`.
"""

import os
import re
import sys
import tempfile
from collections.abc import Generator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

__all__ = ["bundled_ffmpeg", "restart_with_ffmpeg", "spdl_loader"]

Batches = Generator[Any, None, None]

BUNDLED = re.compile(r"(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)")
PATH_VARIABLE = "LD_LIBRARY_PATH"
MARK = "FOURFOLD_PYAV_FFMPEG"


def spdl_loader(encoded: Sequence[bytes], batch_size: int, num_threads: int, resize_px: int) -> Batches:
    """Batches without end, uint8 RGB (B, resize_px, resize_px, 3)."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    def load(batch: list[bytes]) -> Any:
        buffer = spdl.io.load_image_batch(batch, width=resize_px, height=resize_px, pix_fmt="rgb24")
        return spdl.io.to_torch(buffer)

    load(list(encoded[:1]))  # without FFmpeg it fails here; inside the pipeline it would be waited for without end
    images = cycle(encoded)
    source = iter(lambda: list(islice(images, batch_size)), [])
    builder: Any = PipelineBuilder()
    builder = builder.add_source(source).pipe(load, concurrency=num_threads).add_sink(4)
    pipeline = builder.build(num_threads=num_threads)
    with pipeline.auto_stop():
        yield from pipeline


def bundled_ffmpeg(folder: Path) -> str | None:
    """Links in `folder` to PyAV's FFmpeg under the names that SPDL looks for. Returns the library path with which a
    process has to start, or None where PyAV brings no libraries."""
    import av

    libraries = Path(av.__file__).parent.parent / "av.libs"
    if not libraries.is_dir():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for library in libraries.iterdir():
        if found := BUNDLED.match(library.name):
            (folder / f"{found[1]}.so.{found[2]}").symlink_to(library)
    return os.pathsep.join(filter(None, (str(folder), str(libraries), os.environ.get(PATH_VARIABLE))))


def restart_with_ffmpeg() -> None:
    """Run this program again with PyAV's FFmpeg on the library path; returns if that has been done or cannot be."""
    if MARK in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="ffmpeg-"))
    path = bundled_ffmpeg(folder)
    if path is None:
        folder.rmdir()
        return
    os.execve(sys.executable, sys.orig_argv, os.environ | {PATH_VARIABLE: path, MARK: str(folder)})
