"""The CPU backend: a thread pool around OpenCV (images) and PyAV (clips), writing straight into one uint8 RGB batch.

Both libraries release the GIL while they decode, so threads scale without copies between processes.
"""

import io
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipelines.backends import Decoded, fill_failed
from pipelines.backends.headers import check_header

__all__ = ["OpenCVBackend"]

Pixels = npt.NDArray[np.uint8]


class OpenCVBackend:
    """Decode, crop, resize (area when shrinking, linear when growing), mirror.

    Creating one sets OpenCV's own threads to 1 for the whole process: the pool already uses every core, and a
    parallel resize inside each of its threads would only make them wait for each other.
    """

    name = "opencv"

    def __init__(self, *, num_threads: int, pin_memory: bool = False) -> None:
        """`pin_memory`: batches in page-locked memory, from which they go to a GPU without another copy."""
        cv2.setNumThreads(1)
        self._pin_memory = pin_memory
        self._num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="fourfold-decode")

    def canvases(
        self,
        encoded: Sequence[memoryview],
        boxes_B4: npt.NDArray[np.int32],
        flips_B: npt.NDArray[np.bool_],
        canvas_px: int,
    ) -> Decoded:
        pixels = self._empty(len(encoded), canvas_px, canvas_px, 3)
        rows: Pixels = pixels.numpy()
        boxes, flips = boxes_B4.tolist(), flips_B.tolist()

        def decode(index: int) -> None:
            _decode_canvas(encoded[index], boxes[index], flips[index], rows[index])

        return self._decode_all(decode, pixels, rows)

    def clips(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        num_frames: int,
        height_px: int,
        width_px: int,
    ) -> Decoded:
        pixels = self._empty(len(encoded), num_frames, height_px, width_px, 3)
        rows: Pixels = pixels.numpy()

        def decode(index: int) -> None:
            _decode_clip(encoded[index], bool(flips_B[index]), rows[index])

        return self._decode_all(decode, pixels, rows)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin_memory)

    def _decode_all(self, decode: Callable[[int], None], pixels: torch.Tensor, rows: Pixels) -> Decoded:
        """Each thread takes the next free index until none is left: no task object per image, no idle tail."""
        failures: list[tuple[int, str]] = []
        indices = iter(range(len(rows)))

        def work(_: int) -> None:
            for index in indices:
                try:
                    decode(index)
                except (ValueError, cv2.error, av.error.FFmpegError) as error:
                    failures.append((index, _one_line(error)))

        list(self._pool.map(work, range(min(self._num_threads, len(rows)))))
        failures.sort()
        fill_failed(rows, [index for index, _ in failures])
        return Decoded(pixels=pixels, failures=failures)


def _decode_canvas(encoded: memoryview, box: list[int], flip: bool, out: Pixels) -> None:
    """Raises ValueError with the reason if the bytes are not an image that holds the box."""
    x0, y0, x1, y1 = box
    check_header(encoded, x1, y1)
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("OpenCV cannot decode it")
    height, width = image.shape[:2]
    if x1 > width or y1 > height:
        raise ValueError(f"decoded as {width} x {height}; the manifest promises at least {x1} x {y1}")
    _resize(image[y0:y1, x0:x1], flip, out)


def _decode_clip(encoded: memoryview, flip: bool, out: Pixels) -> None:
    """Raises ValueError or FFmpegError if the bytes do not hold enough frames."""
    num_frames = 0
    with av.open(io.BytesIO(encoded), mode="r") as container:
        if not container.streams.video:
            raise ValueError("holds no video")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for frame in itertools.islice(container.decode(stream), len(out)):
            _resize(frame.to_ndarray(format="rgb24"), flip, out[num_frames])
            num_frames += 1
    if num_frames < len(out):
        raise ValueError(f"holds {num_frames} frames, need {len(out)}")


def _resize(image: npt.NDArray[Any], flip: bool, out: Pixels) -> None:
    height, width = out.shape[:2]
    if image.shape[:2] == (height, width):
        out[:] = image[:, ::-1] if flip else image
        return
    is_shrinking = image.shape[0] > height and image.shape[1] > width
    method = cv2.INTER_AREA if is_shrinking else cv2.INTER_LINEAR
    cv2.resize(image, (width, height), dst=out, interpolation=method)
    if flip:
        cv2.flip(out, 1, dst=out)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
