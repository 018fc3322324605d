"""Dense optical flow of many pairs of frames at once, coarse to fine, in torch and Kornia.

At every level Lucas and Kanade's equations (1981) are solved in windows around every pixel, a median filter takes out
wild values (Sun et al. 2010), and flow spreads to where it fits better than what is there (as in PatchMatch, Barnes et
al. 2009). Gray frames are float32 (B, 1, H, W), 0 to 255. Flow is float32 (B, 2, H, W), x then y, in pixels: where each
pixel of the first frame is in the later one, relative to its place in the first.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from kornia.filters import box_blur, median_blur, spatial_gradient

__all__ = ["NUM_LEVELS", "Flow", "dense_flow", "sampled"]

Flow = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Function from the first frames and the later ones to their flow."""

NUM_LEVELS = 4
SPREADS_PX = (8, 4, 2)
"""Distances over which flow spreads, one round of two steps each. Without it small objects are lost: on composites IoU
falls by a tenth. A third of the time; without 8 one object of 60 is lost."""
COST_WINDOW_PX = 5
WINDOW_PX = 9
MAX_STEP_PX = 2.0
RIDGE = 20.0
"""Added to both eigenvalues, in squared gray levels a pixel: flat areas keep the flow of the coarser level."""
MIN_SIDE_PX = 8


def dense_flow(first_B1HW: torch.Tensor, later_B1HW: torch.Tensor) -> torch.Tensor:
    """Return the flow (B, 2, H, W) from the first frames to the later ones."""
    # Areas, not Kornia's pyramid, which blurs: up to 20 levels from OpenCV's halves.
    # 1. Halve the frames until motion is below the window's reach.
    pyramid = [(first_B1HW, later_B1HW)]
    while len(pyramid) < NUM_LEVELS and min(pyramid[-1][0].shape[-2:]) >= 2 * MIN_SIDE_PX:
        first, later = pyramid[-1]
        pyramid.append((F.avg_pool2d(first, 2, ceil_mode=True), F.avg_pool2d(later, 2, ceil_mode=True)))
    # 2. From the coarsest level on: enlarge the flow, then correct it.
    flow = first_B1HW.new_zeros((len(first_B1HW), 2, *pyramid[-1][0].shape[-2:]))
    for first, later in reversed(pyramid):
        if flow.shape[-2:] != first.shape[-2:]:
            flow = 2 * F.interpolate(flow, first.shape[-2:], mode="bilinear", align_corners=False)
        flow = _corrected(first, later, flow)
    return flow


def _corrected(first: torch.Tensor, later: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Return the flow after some Gauss-Newton steps; slopes are those of the first frame, and so computed once."""
    slope = spatial_gradient(first, order=1)[:, 0]
    right, down = slope[:, :1], slope[:, 1:]
    xx, xy, yy = (_window(one) for one in (right * right, right * down, down * down))
    xx, yy = xx + RIDGE, yy + RIDGE
    determinant = xx * yy - xy * xy

    def stepped(flow: torch.Tensor) -> torch.Tensor:
        off = sampled(later, flow) - first
        x, y = _window(right * off), _window(down * off)
        step = -torch.cat([yy * x - xy * y, xx * y - xy * x], 1) / determinant
        return median_blur(flow + step.clamp(-MAX_STEP_PX, MAX_STEP_PX), 3)

    for distance_px in SPREADS_PX:
        flow = stepped(_spread(first, later, stepped(flow), distance_px))
    return flow


def _spread(first: torch.Tensor, later: torch.Tensor, flow: torch.Tensor, distance_px: int) -> torch.Tensor:
    """Return the flow, replaced by that of a pixel some way off wherever the frames then differ less."""
    best = _cost(first, later, flow)
    for offset in ((0, distance_px), (0, -distance_px), (distance_px, 0), (-distance_px, 0)):
        other = torch.roll(flow, offset, (2, 3))
        cost = _cost(first, later, other)
        is_better = cost < best
        flow, best = torch.where(is_better, other, flow), torch.where(is_better, cost, best)
    return flow


def _cost(first: torch.Tensor, later: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    off = (sampled(later, flow) - first).abs()
    return F.avg_pool2d(off, COST_WINDOW_PX, stride=1, padding=COST_WINDOW_PX // 2)


def _window(plane: torch.Tensor) -> torch.Tensor:
    return box_blur(plane, (WINDOW_PX, WINDOW_PX), border_type="replicate")


def sampled(image_BCHW: torch.Tensor, shift_B2HW: torch.Tensor) -> torch.Tensor:
    """Return values (B, C, H, W) of an image at shifted places, linear between pixels; outside, those of its border."""
    # Kornia's remap copies two constants from the host a call, 298 a batch of clips, and the host waits for each.
    height, width = image_BCHW.shape[-2:]
    x = torch.arange(width, device=image_BCHW.device) + shift_B2HW[:, 0]
    y = torch.arange(height, device=image_BCHW.device)[:, None] + shift_B2HW[:, 1]
    places = torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], dim=-1)
    return F.grid_sample(image_BCHW, places, mode="bilinear", padding_mode="border", align_corners=True)
