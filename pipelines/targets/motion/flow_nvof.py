"""The GPU's flow unit as a flow engine, through DALI (pipelines/decode/dali_flow.py, which converts grid and units).

For masks made on the CPU: frames go to the device and flow comes back, 9 bytes a pixel and pair. It pays only where CPU
cores are fewer than the GPU needs. Masks of clips on a device use the unit there (device/flows.py).
"""

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.errors import UsageError
from pipelines.targets.motion.dense_flow import DenseFlow

if TYPE_CHECKING:
    from pipelines.decode.dali_flow import HardwareFlow

__all__ = ["NvofFlow", "extended_size"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

SIZE_STEP_PX = 64
MIN_SIDE_PX = 192
"""The unit is set up anew for every size of frame, and refuses very small ones: so there are few sizes."""


class NvofFlow(DenseFlow):
    """Frames of any size: they are extended to a multiple of 64, at least 192, by repeating their border."""

    def __init__(self) -> None:
        """Raises UsageError without a GPU or without DALI."""
        if not torch.cuda.is_available():
            raise UsageError("engine nvof: no NVIDIA GPU found; it needs one. Choose engine: dis.")
        self._flow, self._lock = _hardware_flow()

    def pair_flow(self, gray_HW: Bytes, next_HW: Bytes) -> Floats:
        return np.asarray(self.clip_flow(np.stack([gray_HW, next_HW]))[0])

    def clip_flow(self, gray_THW: Bytes) -> Floats:
        height, width = gray_THW.shape[1:]
        frames = torch.from_numpy(extended(gray_THW)).cuda()[None, ..., None].expand(-1, -1, -1, -1, 3).contiguous()
        with self._lock:
            flow_THW2 = self._flow.clip_flow(frames)[0, :, :height, :width].cpu()
        return np.ascontiguousarray(flow_THW2.numpy(), np.float32)


def extended(gray_THW: Bytes) -> Bytes:
    """The frames with their last row and column repeated, up to one of few sizes."""
    sides = extended_size(*gray_THW.shape[1:])
    padding = [(0, wanted - side) for wanted, side in zip(sides, gray_THW.shape[1:], strict=True)]
    return np.pad(gray_THW, [(0, 0), *padding], mode="edge")


def extended_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Return height and width that frames of this size are extended to."""
    height, width = (max(-(-side // SIZE_STEP_PX) * SIZE_STEP_PX, MIN_SIDE_PX) for side in (height_px, width_px))
    return height, width


@lru_cache(maxsize=1)
def _hardware_flow() -> tuple["HardwareFlow", Lock]:
    """One for the process, as it serves one thread at a time."""
    from pipelines.decode.dali_flow import HardwareFlow

    return HardwareFlow(device=torch.device("cuda", torch.cuda.current_device())), Lock()
