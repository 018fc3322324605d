"""Interface of a decoding backend: encoded bytes and geometry in, uint8 RGB canvases or clips out.

Canvases are (B, S, S, 3), clips (B, T, H, W, 3). Every backend gets the same boxes and flips, and returns the same
pixels within the tolerances of docs/pipelines.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.machine import num_cores

__all__ = [
    "Backend",
    "BackendName",
    "Decoded",
    "fill_failed",
    "thread_count",
]

BackendName = Literal["auto", "opencv", "dali"]
Failures = list[tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Decoded batch: uint8 RGB (B, S, S, 3) or (B, T, H, W, 3), or planes (B, 3 + N, H, W), on the backend's device.

    failures: (index in the batch, reason). A failed row shows the pixels of the next good row, so that tasks always get
    a real image; all rows are 0 if every sample failed.
    """

    pixels: torch.Tensor
    failures: Failures
    waited_s: float = 0.0
    """Seconds until the first thread was free to begin."""


class Backend(Protocol):
    """Protocol of a decoder. Call one method at a time; the calling thread may change."""

    name: str

    def canvases(
        self,
        encoded: Sequence[memoryview],
        boxes_B4: npt.NDArray[np.int32],
        flips_B: npt.NDArray[np.bool_],
        canvas_px: int,
    ) -> Decoded:
        """Crop each image to its box, resize to (B, S, S, 3), and mirror where `flips_B` says so.

        Boxes are x0, y0, x1, y1 in pixels of the stored image, ends excluded.
        """

    def canvases_of_sizes(
        self,
        encoded: Sequence[memoryview],
        boxes_B4: npt.NDArray[np.int32],
        flips_B: npt.NDArray[np.bool_],
        sizes_px: Sequence[int],
    ) -> tuple[Decoded, ...]:
        """The canvases of several sizes, in their order, from one decode of each image. Each is what `canvases` gives
        for its size; the failures are the same in all."""

    def clips(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        num_frames: int,
        height_px: int,
        width_px: int,
    ) -> Decoded:
        """Decode the first `num_frames` frames of each clip, resize to (B, T, H, W, 3), mirror by `flips_B`."""

    def clip_planes(
        self,
        encoded: Sequence[memoryview],
        flips_B: npt.NDArray[np.bool_],
        num_frames: int,
        height_px: int,
        width_px: int,
        first_only_B: npt.NDArray[np.bool_] | None = None,
    ) -> Decoded:
        """Decode only what motion segmentation needs of the clips: uint8 (B, 3 + N, H, W); see clip_planes.py.

        first_only_B: clips of which only the first frame is decoded; their luma planes are undefined.
        """

    def close(self) -> None:
        """Stop the threads. Safe to call twice."""


def fill_failed(pixels: Any, failed: Sequence[int]) -> None:
    """Overwrite failed rows of a tensor or array with the next good row, cyclic; with 0 if no row is good."""
    # The next good row, so that the result depends on the batch alone and not on which thread failed first.
    num_rows, bad = len(pixels), set(failed)
    for row in bad:
        candidates = ((row + step) % num_rows for step in range(1, num_rows))
        donor = next((index for index in candidates if index not in bad), None)
        pixels[row] = 0 if donor is None else pixels[donor]


def thread_count(num_threads: int) -> int:
    """Return a number of threads; 0 stands for all cores that this process may use."""
    return num_threads if num_threads > 0 else num_cores()
