"""CPU backend: threads decode with OpenCV (images, MJPEG) and PyAV (other clips) into one uint8 RGB batch.

Both libraries release Python's lock (GIL) while they decode. Images are shrunk by torch, whose antialiased resize of
bytes is the filter of Pillow and takes a third of the time of OpenCV's INTER_AREA.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import VideoReformatter

from pipelines.base.buffer_pool import BufferPool
from pipelines.base.thread_pool import ThreadPool
from pipelines.decode.base import Decoded, fill_failed
from pipelines.decode.clip_planes import NUM_COLORS, chosen_frames
from pipelines.decode.header_check import check_header
from pipelines.decode.jpeg_frames import jpeg_frames
from pipelines.decode.jpeg_reduction import jpeg_reduction

__all__ = ["OpenCVBackend", "resize"]

Pixels = npt.NDArray[np.uint8]
Frame = memoryview | av.VideoFrame
"""An encoded JPEG, decoded when its pixels are needed; or, of other codecs, a frame that FFmpeg has decoded."""

READ_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}
"""OpenCV has no reduced flag for RGB. The one called gray holds only the size, so it can be combined with RGB."""

# The operator behind `interpolate`, because that has no argument for where to write.
_antialiased = torch.ops.aten._upsample_bilinear2d_aa.out


class OpenCVBackend:
    """Decoder on CPU threads: decode (large JPEGs at reduced size), crop, resize, mirror. See `base.Backend`.

    Resizing is linear, antialiased when shrinking. Creating one sets OpenCV's own threads to 1 for the whole process.
    """

    name = "opencv"

    def __init__(self, *, num_threads: int = 1, threads: ThreadPool | None = None, pin_memory: bool = False) -> None:
        """`threads`: a pool to use instead of `num_threads` new threads; it may do other work, and is not closed here.
        `pin_memory`: put batches into page-locked memory, from which a GPU copies without a detour."""
        # The pool uses every core already; a parallel resize inside each thread would make them wait for each other.
        cv2.setNumThreads(1)
        self._pin_memory = pin_memory
        self._memory = BufferPool()
        self._owns_threads = threads is None
        self._threads = threads or ThreadPool(num_threads, thread_name_prefix="fourfold-decode")

    def canvases(
        self,
        encoded: Sequence[memoryview],
        boxes_B4: npt.NDArray[np.int32],
        flips_B: npt.NDArray[np.bool_],
        canvas_px: int,
    ) -> Decoded:
        return self.canvases_of_sizes(encoded, boxes_B4, flips_B, (canvas_px,))[0]

    def canvases_of_sizes(
        self,
        encoded: Sequence[memoryview],
        boxes_B4: npt.NDArray[np.int32],
        flips_B: npt.NDArray[np.bool_],
        sizes_px: Sequence[int],
    ) -> tuple[Decoded, ...]:
        pixels = [self._empty(len(encoded), size_px, size_px, 3) for size_px in sizes_px]
        rows: list[Pixels] = [one.numpy() for one in pixels]
        boxes, flips = boxes_B4.tolist(), flips_B.tolist()

        def decode(index: int) -> None:
            _decode_canvases(encoded[index], boxes[index], flips[index], [one[index] for one in rows])

        return self._decode_all(decode, pixels)

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

        return self._decode_all(decode, [pixels])[0]

    def clip_planes(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        num_frames: int,
        height_px: int,
        width_px: int,
        first_only_B: npt.NDArray[np.bool_] | None = None,
    ) -> Decoded:
        chosen = chosen_frames(num_frames)
        pixels = self._empty(len(encoded), NUM_COLORS + len(chosen), height_px, width_px)
        rows: Pixels = pixels.numpy()

        def decode(index: int) -> None:
            flip, colors = bool(flips_B[index]), rows[index, :NUM_COLORS]
            if first_only_B is not None and first_only_B[index]:
                _write_colors(_rgb(next(_frames(encoded[index], (0,)))), flip, colors)
            else:
                _decode_planes(encoded[index], flip, num_frames, chosen, rows[index])

        return self._decode_all(decode, [pixels])[0]

    def close(self) -> None:
        if self._owns_threads:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _empty(self, *shape: int) -> torch.Tensor:
        if self._pin_memory:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return torch.from_numpy(self._memory.empty(shape, np.uint8))

    def _decode_all(self, decode: Callable[[int], None], pixels: Sequence[torch.Tensor]) -> tuple[Decoded, ...]:
        """Decode all rows with every thread of the pool, and replace failed rows. Raises FourfoldError if one died.

        `decode` writes one row of every tensor of `pixels`.
        """
        # 1. Each thread takes the next index until none is left. That needs no future per image, and no thread is idle
        # while another one has several images left. `next` of a range is atomic under the GIL.
        failures: list[tuple[int, str]] = []
        num_rows = len(pixels[0])
        indices = iter(range(num_rows))
        asked_s = time.perf_counter()

        def work() -> float:
            start_s = time.perf_counter()
            for index in indices:
                try:
                    decode(index)
                except (ValueError, cv2.error, av.error.FFmpegError) as error:
                    failures.append((index, _one_line(error)))
            return start_s

        # 2. Start as many jobs as there are threads, and wait for the first to begin: the time until then is waiting.
        num_parts = max(min(self._threads.num_threads, num_rows), 1)
        first, *others = [self._threads.submit(work) for _ in range(num_parts)]
        waited_s = self._threads.result_of(first) - asked_s
        for part in others:
            # 3. A job that has not begun, because its thread is busy with other work, has nothing left to do.
            if not part.cancel():
                self._threads.result_of(part)
        # 4. Threads finish in any order; failures are reported in the order of rows.
        failures.sort()
        for one in pixels:
            fill_failed(one.numpy(), [index for index, _ in failures])
        return tuple(Decoded(pixels=one, failures=failures, waited_s=waited_s) for one in pixels)


def _decode_canvases(encoded: memoryview, box: list[int], flip: bool, outs: Sequence[Pixels]) -> None:
    """Decode one image into each of `outs`, uint8 (S, S, 3). Raises ValueError if it cannot hold the box."""
    # The header first: a decoder would take memory for whatever size a damaged or hostile file claims. With an EXIF
    # orientation the box is in another frame than the stored pixels, so those are decoded whole.
    header = check_header(encoded, box[2], box[3])
    is_reducible = header.extension == "jpg" and header.orientation == 1
    reductions = [_reduction(box, len(out)) if is_reducible else 1 for out in outs]
    # Sizes for which the decoder may shrink the image by different factors are decoded separately, so that each canvas
    # has the pixels that it would have alone.
    for reduced_by in sorted(set(reductions)):
        crop = _decoded_crop(encoded, box, reduced_by)
        for out, own in zip(outs, reductions, strict=True):
            if own == reduced_by:
                resize(crop, flip, out)


def _decoded_crop(encoded: memoryview, box: list[int], reduced_by: int) -> npt.NDArray[Any]:
    """Return the box of an image, decoded at 1 / `reduced_by` of its size: uint8 (h, w, 3). Raises ValueError."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), READ_FLAGS[reduced_by])
    if image is None:
        raise ValueError("OpenCV cannot decode it")
    x0, y0, x1, y1 = (edge // reduced_by for edge in box)
    height, width = image.shape[:2]
    if x1 > width or y1 > height:
        raise ValueError(f"decoded as {width} x {height}; the manifest promises at least {x1} x {y1}")
    return image[y0:y1, x0:x1]


def _reduction(box: list[int], canvas_px: int) -> int:
    """Return the factor at which to decode: 1, 2, 4 or 8."""
    # 1 if the box would not cover whole pixels of the reduced image: half a pixel off would be another crop.
    reduced_by = jpeg_reduction(min(box[2] - box[0], box[3] - box[1]), canvas_px)
    return reduced_by if all(edge % reduced_by == 0 for edge in box) else 1


def _decode_clip(encoded: memoryview, flip: bool, out: Pixels) -> None:
    """Decode a clip into `out`, uint8 (T, H, W, 3). Raises ValueError or FFmpegError if it has too few frames."""
    for frame, row in zip(_frames(encoded, range(len(out))), out, strict=True):
        resize(_rgb(frame), flip, row)


def _decode_planes(encoded: memoryview, flip: bool, num_frames: int, chosen: Sequence[int], out: Pixels) -> None:
    """Decode planes (3 + N, H, W). Raises ValueError or FFmpegError if the clip has fewer than `num_frames` frames."""
    colors, lumas = out[:NUM_COLORS], out[NUM_COLORS:]
    for index, (frame, luma) in enumerate(zip(_frames(encoded, chosen, num_frames), lumas, strict=True)):
        if index == 0:
            rgb = _rgb(frame)
            _write_colors(rgb, flip, colors)
            _resize_luma(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), flip, luma)
        else:
            _resize_luma(_luma(frame), flip, luma)


def _write_colors(rgb: Pixels, flip: bool, out_3HW: Pixels) -> None:
    resized = np.empty((*out_3HW.shape[1:], NUM_COLORS), np.uint8)
    resize(rgb, flip, resized)
    cv2.split(resized, list(out_3HW))


def _frames(encoded: memoryview, chosen: Sequence[int], num_frames: int = 0) -> Iterator[Frame]:
    """Yield the chosen frames, ascending. Raises ValueError if there are fewer than `num_frames` or one is missing."""
    num_needed = max(num_frames, chosen[-1] + 1)
    jpegs = jpeg_frames(encoded, range(num_needed))
    frames: Sequence[Frame]
    if jpegs is None:
        frames, num_found = _video_frames(encoded, chosen[-1] + 1)
    else:
        frames, num_found = jpegs, len(jpegs)
    yield from (frames[index] for index in chosen if index < len(frames))
    if num_found < num_needed:
        raise ValueError(f"holds {num_found} frames, need {num_needed}")


def _video_frames(encoded: memoryview, num_decoded: int) -> tuple[Sequence[av.VideoFrame], int]:
    """Return the first frames of a video, and how many it has; those after `num_decoded` are only counted."""
    with av.open(io.BytesIO(encoded), mode="r") as container:
        if not container.streams.video:
            raise ValueError("holds no video")
        # Threads of the pool decode one clip each; FFmpeg's own would compete with them.
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        frames: list[av.VideoFrame] = []
        num_packets = 0
        for packet in container.demux(stream):
            num_packets += packet.size > 0  # one frame each; an empty packet asks the decoder for its last frames
            if len(frames) < num_decoded:
                frames.extend(packet.decode())
        # Fewer frames than packets means damage; then only decoded frames count.
        return frames, num_packets if len(frames) >= num_decoded else len(frames)


def _rgb(frame: Frame) -> Pixels:
    """Return a frame as uint8 RGB (H, W, 3)."""
    # threads=1, because FFmpeg otherwise starts as many threads as there are cores for every frame.
    if isinstance(frame, memoryview):
        return _picture(frame, cv2.IMREAD_COLOR_RGB)
    return np.asarray(VideoReformatter().reformat(frame, format="rgb24", threads=1).to_ndarray(), np.uint8)


def _luma(frame: Frame) -> Pixels:
    """Return the luma of a frame: uint8 (H, W), black 0, white 255. A JPEG's color planes are not decoded for it."""
    if isinstance(frame, memoryview):
        return _picture(frame, cv2.IMREAD_GRAYSCALE)
    return np.asarray(frame.to_ndarray(format="gray"), np.uint8)


def _picture(jpeg: memoryview, flags: int) -> Pixels:
    check_header(jpeg, 1, 1)
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("OpenCV cannot decode one of its frames")
    return np.asarray(image, np.uint8)


def _resize_luma(luma: Pixels, flip: bool, out: Pixels) -> None:
    """Resize luma into `out`, uint8 (H, W), and mirror it."""
    # Shrinking by less than 2 aliases a little, which tracks do not notice; averaging areas takes 10 times as long.
    is_halved = luma.shape[0] >= 2 * out.shape[0] and luma.shape[1] >= 2 * out.shape[1]
    cv2.resize(luma, out.shape[::-1], dst=out, interpolation=cv2.INTER_AREA if is_halved else cv2.INTER_LINEAR)
    if flip:
        cv2.flip(out, 1, dst=out)


def resize(image: npt.NDArray[Any], flip: bool, out: Pixels) -> None:
    """Resize an image, uint8 (h, w, 3), into `out`, uint8 (H, W, 3), and mirror it left to right if `flip` says so."""
    height, width = out.shape[:2]
    # A crop of the canvas's size is copied: resizing by 1 would still take a pass of interpolation.
    if image.shape[:2] == (height, width):
        out[:] = image[:, ::-1] if flip else image
        return
    if image.shape[0] < height and image.shape[1] < width:
        cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    else:
        _shrink(image, out)
    if flip:
        cv2.flip(out, 1, dst=out)


def _shrink(image: npt.NDArray[Any], out: Pixels) -> None:
    """Shrink as `interpolate(..., mode="bilinear", antialias=True)` does, directly into `out`."""
    _antialiased(_channels_last(np.ascontiguousarray(image)), out.shape[:2], False, None, None, out=_channels_last(out))


def _channels_last(image_HWC: npt.NDArray[Any]) -> torch.Tensor:
    """Return a contiguous image (H, W, C) as a channels-last tensor (1, C, H, W) over the same bytes."""
    # The first axis needs the stride of a whole image, though its size is 1: otherwise torch does not see that the
    # bytes are channels-last, and takes its slow path.
    height, width, channels = image_HWC.shape
    shape, stride = (1, channels, height, width), (image_HWC.size, 1, width * channels, channels)
    return torch.from_numpy(image_HWC).as_strided(shape, stride)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
