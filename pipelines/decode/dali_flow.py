"""Optical flow by the GPU's hardware flow unit, through DALI: clips on a device in, flow on that device out.

Letters: B clips, T frames, H W frame size, h w = H / grid_px, W / grid_px rounded up. Flow is x then y, in pixels.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F

from pipelines.base.device_stream import DeviceStream, current_stream
from pipelines.decode.dali import require_dali

__all__ = ["GridPx", "HardwareFlow", "dense_flow", "flow_graph"]

GridPx = Literal[1, 2, 4]


class HardwareFlow:
    """Dense optical flow of whole clips on an NVIDIA GPU, Turing or newer. Use from one thread at a time.

    `grid_px`: side in pixels of the square that gets one vector; 1 and 2 need Ampere or newer. A smaller one keeps
    smaller objects and costs more.
    """

    def __init__(self, *, device: torch.device, grid_px: GridPx = 4) -> None:
        """Raises UsageError without DALI."""
        require_dali()
        self._device, self._grid_px = device, grid_px
        # Of its own: the flow unit is no part of the GPU's cores, and works while these do something else.
        self._stream = DeviceStream(device)
        self._pipelines: dict[int, Any] = {}

    def clip_flow(self, clips_BTHWC: torch.Tensor) -> torch.Tensor:
        """Return flow from frame t to t+1 in pixels, float32 (B, T-1, H, W, 2), of uint8 RGB (B, T, H, W, 3)."""
        height, width = clips_BTHWC.shape[2:4]
        # The unit tells where a pixel of the later frame was in the earlier one (DALI's tests warp the second frame).
        # Frames in reverse order give where a pixel goes.
        with self._stream.work_between([clips_BTHWC]):
            backwards = clips_BTHWC.flip(1)
            pipeline = self._pipeline(len(backwards))
            # DALI takes torch's current stream for the copy. Results are given to it, too: without a stream `run`
            # waits.
            pipeline.feed_input("clips", list(backwards.unbind(0)))
            (output,) = pipeline.run(current_stream(self._device))
            grid_BThw2 = torch.utils.dlpack.from_dlpack(output.as_tensor()).flip(1)
        # Outside: its memory is then the caller's, and `grid_BThw2` is kept until it is read.
        flow_BTHW2 = dense_flow(grid_BThw2, self._grid_px, height, width)
        self._stream.keep([grid_BThw2])
        return flow_BTHW2

    def _pipeline(self, batch_size: int) -> Any:
        if batch_size not in self._pipelines:
            # One thread is enough, because nothing is decoded here.
            pipeline = require_dali().Pipeline(
                batch_size=batch_size,
                num_threads=1,
                device_id=self._device.index or 0,
                prefetch_queue_depth=1,
                exec_dynamic=True,
            )
            with pipeline:
                pipeline.set_outputs(flow_graph(self._grid_px))
            pipeline.build()
            self._pipelines[batch_size] = pipeline
        return self._pipelines[batch_size]


def flow_graph(grid_px: GridPx) -> Any:
    """Define the graph: uint8 RGB (T, H, W, 3) on the GPU -> float32 (T-1, h, w, 2), px from frame t+1 to t."""
    dali = require_dali()
    fn, types = dali.fn, dali.types
    clips = fn.external_source(name="clips", ndim=4, dtype=types.UINT8, layout="FHWC", device="gpu")
    return fn.optical_flow(clips, image_type=types.RGB, output_grid=grid_px, preset=0.0)


def dense_flow(grid_BThw2: torch.Tensor, grid_px: int, height_px: int, width_px: int) -> torch.Tensor:
    """Interpolate one vector per grid square to one per pixel: float32 (B, T, H, W, 2).

    A vector belongs to the middle of its square. Vectors are in pixels of the frame, so they are not scaled.
    """
    # Squares cut by the right or lower border have their middle where whole ones would have it: enlarge to whole
    # squares, then cut.
    num_clips, num_pairs, rows, columns, _ = grid_BThw2.shape
    planes = grid_BThw2.reshape(-1, rows, columns, 2).permute(0, 3, 1, 2)
    size = (rows * grid_px, columns * grid_px)
    dense = F.interpolate(planes, size=size, mode="bilinear", align_corners=False)[..., :height_px, :width_px]
    return dense.permute(0, 2, 3, 1).reshape(num_clips, num_pairs, height_px, width_px, 2)
