"""What a backend is: encoded bytes and geometry in, uint8 RGB canvases (B, S, S, 3) or clips (B, T, H, W, 3) out.

Every backend is given the same boxes and flips, and gives the same pixels within the tolerances of docs/pipelines.md.
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
        """Decode only what motion segmentation needs of such clips, uint8 (B, 3 + N, H, W); see clip_planes.py.

        first_only_B: clips of which only the first frame is decoded; what their planes of luma hold is undefined.
        """

    def close(self) -> None:
        """Stop the threads. Safe to call twice."""


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
