"""NVIDIA DALI backend: one graph per kind of sample, on the CPU or the GPU. DALI is imported here and in dali_flow.py.

Bytes and geometry enter through `external_source`; pixels leave through DLPack without a copy.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.errors import UsageError
from pipelines.decode.base import Decoded, fill_failed
from pipelines.decode.clip_planes import NUM_COLORS, chosen_frames, planes_of_chosen
from pipelines.decode.dali_runner import DaliRunner, decode_with
from pipelines.decode.header_check import check_header
from pipelines.decode.jpeg_frames import jpeg_frames

__all__ = ["DaliBackend", "canvas_graph", "clip_graph", "jpeg_graph", "require_dali"]

GraphDevice = Literal["cpu", "gpu"]


def require_dali() -> ModuleType:
    """Return the `nvidia.dali` package. Raises UsageError naming the extra if it is missing or cannot be loaded."""
    try:
        import nvidia.dali
        import nvidia.dali.fn
        import nvidia.dali.types
    # OSError: the package is there, and a library of CUDA that it loads is not.
    except (ImportError, OSError) as error:
        raise UsageError(
            f"backend dali: NVIDIA DALI cannot be loaded ({error}). "
            "Install it: pip install 'fourfold[cuda13]' (or [cuda12]), or choose backend: opencv."
        ) from error
    return nvidia.dali


def canvas_graph(device: GraphDevice, *sizes_px: int) -> tuple[Any, ...]:
    """Define the graph: image, corner and extent of its box (x, y order), flip -> an uint8 RGB canvas of each size."""
    dali = require_dali()
    fn, types = dali.fn, dali.types
    images = fn.decoders.image_slice(
        fn.external_source(name="encoded", ndim=1, dtype=types.UINT8, no_copy=True),
        start=fn.external_source(name="corner", ndim=1, dtype=types.INT32),
        shape=fn.external_source(name="extent", ndim=1, dtype=types.INT32),
        axes=[1, 0],
        device="mixed" if device == "gpu" else "cpu",
        output_type=types.RGB,
        # nvJPEG enlarges chroma by repeating it; with this option it interpolates, as libjpeg-turbo in OpenCV does.
        jpeg_fancy_upsampling=True,
        **_all_by_hardware(device),
    )
    return _resized(dali, images, *((size_px, size_px) for size_px in sizes_px))


def clip_graph(device: GraphDevice, frames: Sequence[int], height_px: int, width_px: int) -> tuple[Any, ...]:
    """Define the graph: encoded clip, flip -> the frames of these indices, uint8 RGB (T, height_px, width_px, 3)."""
    dali = require_dali()
    fn, types = dali.fn, dali.types
    clips = fn.decoders.video(
        fn.external_source(name="encoded", ndim=1, dtype=types.UINT8, no_copy=True),
        frames=list(frames),
        # A clip that is too short comes out short, which `_Runner` reports. Padding would hide it.
        pad_mode="none",
        device="mixed" if device == "gpu" else "cpu",
    )
    return _resized(dali, clips, (height_px, width_px))


def jpeg_graph(device: GraphDevice, height_px: int, width_px: int) -> tuple[Any, ...]:
    """Define the graph: encoded JPEG, flip -> uint8 RGB (height_px, width_px, 3)."""
    dali = require_dali()
    fn, types = dali.fn, dali.types
    frames = fn.decoders.image(
        fn.external_source(name="encoded", ndim=1, dtype=types.UINT8, no_copy=True),
        device="mixed" if device == "gpu" else "cpu",
        output_type=types.RGB,
        jpeg_fancy_upsampling=True,
        **_all_by_hardware(device),
    )
    return _resized(dali, frames, (height_px, width_px))


def _all_by_hardware(device: GraphDevice) -> dict[str, float]:
    """Return the option that decodes all JPEGs of a batch in the hardware decoder."""
    # By default DALI gives a tenth of each batch to another decoder, whose pixels differ by up to 3 levels. Then the
    # pixels of an image depend on its place in the batch, and a restarted run differs (seen on an H200).
    return {"hw_decoder_load": 1.0} if device == "gpu" else {}


def _resized(dali: ModuleType, pixels: Any, *sizes_hw: tuple[int, int]) -> tuple[Any, ...]:
    """Resize to each size, linearly and antialiased when shrinking, as the opencv backend does; mirror if flip is 1."""
    fn, types = dali.fn, dali.types
    flip = fn.external_source(name="flip", ndim=0, dtype=types.INT32)
    resized = (fn.resize(pixels, size=size, antialias=True, interp_type=types.INTERP_LINEAR) for size in sizes_hw)
    return tuple(fn.flip(small, horizontal=flip) for small in resized)


class DaliBackend:
    """Decoder with one DALI graph per output size, built at first use. See `base.Backend` for its methods.

    One sample that cannot be decoded fails DALI's whole batch. So headers are checked first, and a batch that fails all
    the same is run again sample by sample: a bad sample costs one slow batch, not the run.
    """

    name = "dali"

    def __init__(self, *, device: torch.device, num_threads: int) -> None:
        require_dali()
        is_gpu = device.type == "cuda"
        self._device = torch.device("cuda", device.index or 0) if is_gpu else torch.device("cpu")
        self._graph_device: GraphDevice = "gpu" if is_gpu else "cpu"
        self._num_threads = num_threads
        self._runners: dict[tuple[object, ...], DaliRunner] = {}

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
        corners, ends = boxes_B4[:, :2], boxes_B4[:, 2:]
        numbers = {"corner": corners, "extent": ends - corners, "flip": flips_B.astype(np.int32)}
        shapes = [(size_px, size_px, 3) for size_px in sizes_px]
        runner = self._runner(("canvas", *sizes_px), shapes, lambda: canvas_graph(self._graph_device, *sizes_px))
        return decode_with(runner, encoded, numbers, _unfit(encoded, ends))

    def clips(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        num_frames: int,
        height_px: int,
        width_px: int,
    ) -> Decoded:
        return self._frames(encoded, flips_B, tuple(range(num_frames)), (height_px, width_px))

    def clip_planes(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        num_frames: int,
        height_px: int,
        width_px: int,
        first_only_B: npt.NDArray[np.bool_] | None = None,
    ) -> Decoded:
        size, frames = (height_px, width_px), chosen_frames(num_frames)
        # A graph has one number of frames, so clips that need one frame and clips that need all are decoded apart.
        if first_only_B is None or not first_only_B.any():
            decoded = self._frames(encoded, flips_B, frames, size)
            return Decoded(pixels=planes_of_chosen(decoded.pixels), failures=decoded.failures)
        parts = []
        for rows, wanted in ((np.flatnonzero(first_only_B), (0,)), (np.flatnonzero(~first_only_B), frames)):
            if len(rows):
                part = self._frames([encoded[row] for row in rows.tolist()], flips_B[rows], wanted, size)
                planes = Decoded(pixels=planes_of_chosen(part.pixels), failures=part.failures)
                parts.append((rows.tolist(), planes))
        return self._merged((len(encoded), NUM_COLORS + len(frames), *size), parts)

    def _frames(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        frames: tuple[int, ...],
        size: tuple[int, int],
    ) -> Decoded:
        """Decode the frames of these indices: (B, T, H, W, 3). MJPEG clips go to the image decoder, others to video."""
        # `decoders.video` on a GPU refuses MJPEG ("Codec 7"). CPUs take the same way, so that devices agree.
        jpegs = {row: found for row, clip in enumerate(encoded) if (found := jpeg_frames(clip, frames)) is not None}
        others = [row for row in range(len(encoded)) if row not in jpegs]
        parts = []
        if jpegs:
            rows = list(jpegs)
            parts.append((rows, self._jpegs(list(jpegs.values()), flips_B[rows], frames, size)))
        if others or not parts:
            parts.append((others, self._video([encoded[row] for row in others], flips_B[others], frames, size)))
        return parts[0][1] if len(parts) == 1 else self._merged((len(encoded), len(frames), *size, 3), parts)

    def _jpegs(
        self,
        clips: Sequence[Sequence[memoryview]],
        flips_B: npt.NDArray[np.bool_],
        frames: tuple[int, ...],
        size: tuple[int, int],
    ) -> Decoded:
        """Decode clips whose frames are JPEGs. A clip fails with its first bad frame, or if it has too few."""
        # 1. Frames of all clips become one batch of images. A clip that is too short gets empty frames, so that the
        # other clips keep their rows.
        num_frames = len(frames)
        short = {row: len(clip) for row, clip in enumerate(clips) if len(clip) < num_frames}
        encoded = [
            frame
            for row, clip in enumerate(clips)
            for frame in (clip if row not in short else [memoryview(b"")] * num_frames)
        ]
        failures = {
            row * num_frames + index: f"gives {found} of its frames {', '.join(map(str, frames))}"
            for row, found in short.items()
            for index in range(num_frames)
        }
        # 2. Decode them; known failures are not fed to DALI.
        shape = (*size, 3)
        runner = self._runner(("jpeg", *shape), [shape], lambda: jpeg_graph(self._graph_device, *size))
        flips = np.repeat(flips_B, num_frames).astype(np.int32)
        (decoded,) = decode_with(runner, encoded, {"flip": flips}, list(failures.items()))
        # 3. Failures of frames become failures of clips, with the reason of the first one.
        reasons: dict[int, str] = {}
        for index, reason in decoded.failures:
            reasons.setdefault(index // num_frames, reason)
        pixels = decoded.pixels.view(-1, num_frames, *shape)
        if reasons:
            fill_failed(pixels, list(reasons))
        return Decoded(pixels=pixels, failures=list(reasons.items()))

    def _video(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        frames: tuple[int, ...],
        size: tuple[int, int],
    ) -> Decoded:
        shape = (len(frames), *size, 3)
        address = ("video", *shape, *frames)
        runner = self._runner(address, [shape], lambda: clip_graph(self._graph_device, frames, *size))
        return decode_with(runner, encoded, {"flip": flips_B.astype(np.int32)}, [])[0]

    def _merged(self, shape: tuple[int, ...], parts: Sequence[tuple[Sequence[int], Decoded]]) -> Decoded:
        """Return one batch of parts that were decoded separately; a part may have fewer planes than the whole."""
        pixels = torch.empty(shape, dtype=torch.uint8, device=self._device)
        failures: list[tuple[int, str]] = []
        for rows, part in parts:
            pixels[torch.tensor(rows, device=pixels.device), : part.pixels.shape[1]] = part.pixels
            failures += [(rows[index], reason) for index, reason in part.failures]
        failures.sort()
        fill_failed(pixels, [index for index, _ in failures])
        return Decoded(pixels=pixels, failures=failures)

    def close(self) -> None:
        self._runners.clear()

    def _runner(
        self, address: tuple[object, ...], shapes: Sequence[tuple[int, ...]], graph: Callable[[], tuple[Any, ...]]
    ) -> DaliRunner:
        if address not in self._runners:
            pipeline_class = require_dali().Pipeline
            self._runners[address] = DaliRunner(graph, shapes, self._device, self._num_threads, pipeline_class)
        return self._runners[address]


def _unfit(encoded: Sequence[memoryview], ends_B2: npt.NDArray[np.int32]) -> list[tuple[int, str]]:
    failures = []
    for index, (image, (x1, y1)) in enumerate(zip(encoded, ends_B2.tolist(), strict=True)):
        try:
            check_header(image, x1, y1)
        except ValueError as error:
            failures.append((index, str(error)))
    return failures
