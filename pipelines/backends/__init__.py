"""Backends turn encoded bytes plus geometry into uint8 RGB pixels: canvases (B, S, S, 3) or clips (B, T, H, W, 3).

`opencv` runs everywhere. `dali` is for GPUs and also runs on the CPU. Both are given the same boxes and flips, and give
the same pixels within the tolerances of docs/pipelines.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pipelines.errors import UsageError
from pipelines.machine import num_cores
from pipelines.workers import Workers

__all__ = [
    "Backend",
    "BackendChoice",
    "BackendName",
    "Decoded",
    "choose_backend",
    "fill_failed",
    "open_backend",
    "thread_count",
]

BackendName = Literal["auto", "opencv", "dali"]
Failures = list[tuple[int, str]]

CPU_ADVANTAGE = "makes images faster than DALI, and clips at least twice as fast"
"""Measured on two busy cores, medians of 7 turns: 500 x 375 JPEG to a 256 canvas 1.1 to 1.7 times as fast, clips of 10
frames of 240 x 320 in VP9 2.2 to 2.9 times, in MJPEG 2 to 4 times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """uint8 RGB on the backend's device: (B, S, S, 3) or (B, T, H, W, 3).

    failures: (index in the batch, reason). A failed row shows the pixels of the next good row, so that no task meets
    pixels that are not an image; all rows are 0 if every sample failed.
    """

    pixels: torch.Tensor
    failures: Failures
    waited_s: float = 0.0
    """Until the first thread was free to begin."""


class Backend(Protocol):
    """`canvases` and `clips` may be called one at a time, from any one thread."""

    name: str

    def canvases(
        self,
        encoded: Sequence[memoryview],
        boxes_B4: npt.NDArray[np.int32],
        flips_B: npt.NDArray[np.bool_],
        canvas_px: int,
    ) -> Decoded:
        """Crop each image to its box (x0, y0, x1, y1; pixels, end excluded), resize to a square, maybe mirror."""

    def clips(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        num_frames: int,
        height_px: int,
        width_px: int,
    ) -> Decoded:
        """The first `num_frames` frames of each clip, resized to height x width, maybe mirrored."""

    def clip_planes(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        num_frames: int,
        height_px: int,
        width_px: int,
        first_only_B: npt.NDArray[np.bool_] | None = None,
    ) -> Decoded:
        """Of such clips only what motion segmentation needs, uint8 (B, 3 + N, H, W): see pipelines/clip_planes.py.

        first_only_B: clips of which only the first frame is decoded; what their planes of luma hold is undefined.
        """

    def close(self) -> None:
        """Stop the threads. Safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """`reason`: why this one, for `fourfold doctor` and the logs."""

    name: Literal["opencv", "dali"]
    reason: str


def choose_backend(name: BackendName, device: torch.device) -> BackendChoice:
    """Settle `auto`: DALI on a GPU where it is installed, OpenCV elsewhere.

    Decided by what the machine has, not by a trial: pixels of the two differ by some levels, and a choice that hangs on
    a stopwatch would make batches differ from run to run. `python -m benchmarks.throughput.gpu_check` times both and
    says whether the rule holds on a machine. Raises UsageError if DALI is asked for and missing.
    """
    from pipelines.backends.dali import require_dali

    if name == "opencv":
        return BackendChoice(name="opencv", reason="asked for")
    if name == "dali":
        require_dali()
        return BackendChoice(name="dali", reason="asked for")
    if device.type != "cuda":
        return BackendChoice(name="opencv", reason=f"device is {device.type}, where OpenCV {CPU_ADVANTAGE}")
    try:
        require_dali()
    except UsageError as error:
        return BackendChoice(name="opencv", reason=str(error))
    return BackendChoice(name="dali", reason="device is cuda and DALI is installed")


def open_backend(choice: BackendChoice, *, device: torch.device, workers: Workers) -> Backend:
    """Start the chosen backend. OpenCV's works on the threads of `workers`, DALI's on as many of its own."""
    if choice.name == "dali":
        from pipelines.backends.dali import DaliBackend

        return DaliBackend(device=device, num_threads=workers.num_threads)
    from pipelines.backends.opencv import OpenCVBackend

    return OpenCVBackend(workers=workers, pin_memory=device.type == "cuda")


def fill_failed(pixels: Any, failed: Sequence[int]) -> None:
    """Overwrite failed rows of a tensor or array with the next good row, cyclic; with 0 if none is good."""
    num_rows, bad = len(pixels), set(failed)
    for row in bad:
        candidates = ((row + step) % num_rows for step in range(1, num_rows))
        donor = next((index for index in candidates if index not in bad), None)
        pixels[row] = 0 if donor is None else pixels[donor]


def thread_count(num_threads: int) -> int:
    """0 means all cores this process may use (a container or job may allow fewer than the machine has)."""
    return num_threads if num_threads > 0 else num_cores()
