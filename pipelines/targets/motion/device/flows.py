"""Flow on a device by the name of its engine: gray frames float32 (B, 1, H, W), 0 to 255, in; flow (B, 2, H, W) out.

OpenCV's engines run on a CPU only. torch_flow.py takes their place on a device: masks made with it and with DIS agree
in 98.7 to 99.7 % of their cells (benchmarks/records/MOTION.md).
"""

from threading import Lock

import torch
import torch.nn.functional as F

from pipelines.base.errors import UsageError
from pipelines.targets.motion.dense_flow import EngineName
from pipelines.targets.motion.device.torch_flow import Flow, dense_flow
from pipelines.targets.motion.flow_nvof import extended_size

__all__ = ["UnitFlow", "flow_on"]


def flow_on(device: torch.device, engine: EngineName, raft_weights: str = "default") -> Flow:
    """Return the flow that stands for `engine` on a device. Raises UsageError if it cannot be had."""
    if engine == "raft":
        from pipelines.targets.motion.flow_raft import RaftFlow

        return RaftFlow(raft_weights, device=str(device)).batched
    # Not wherever the unit is found: then targets would depend on which packages are installed.
    return UnitFlow(device) if engine == "nvof" else dense_flow


class UnitFlow:
    """The GPU's flow unit on whole batches, through DALI. Frames and flow stay on the device."""

    def __init__(self, device: torch.device) -> None:
        """Raises UsageError without DALI or without a GPU."""
        from pipelines.decode.dali_flow import HardwareFlow

        if device.type != "cuda":
            raise UsageError(f"engine nvof: device {device}; it needs an NVIDIA GPU. Choose engine: dis.")
        # A vector for every pixel where the unit can: work frames are small, and a square of 4 px is one of their
        # nodes.
        is_fine = torch.cuda.get_device_capability(device) >= (8, 0)
        self._flow = HardwareFlow(device=device, grid_px=1 if is_fine else 4)
        self._lock = Lock()

    def __call__(self, first_B1HW: torch.Tensor, later_B1HW: torch.Tensor) -> torch.Tensor:
        height, width = first_B1HW.shape[-2:]
        rows, columns = extended_size(height, width)
        pairs = torch.cat([first_B1HW, later_B1HW], 1).round().to(torch.uint8)
        pairs = F.pad(pairs.float(), (0, columns - width, 0, rows - height), mode="replicate").to(torch.uint8)
        clips_BTHWC = pairs[..., None].expand(-1, -1, -1, -1, 3).contiguous()
        with self._lock:  # it serves one thread at a time
            flow_BHW2 = self._flow.clip_flow(clips_BTHWC)[:, 0, :height, :width]
        return flow_BHW2.permute(0, 3, 1, 2).float()
