"""Planes of a clip for motion segmentation: the first frame in color, and luma of the frames that motion is read from.

Planes are uint8 (B, 3 + N, H, W): red, green and blue of the first frame, then luma of N chosen frames, of which the
first frame is the first. Clips have 6 planes, of frames 0, 1 and 2. Later frames are counted and not decoded, and only
the first frame is decoded in color.
"""

import torch

__all__ = ["NUM_CHOSEN", "NUM_COLORS", "chosen_frames", "planes_of", "planes_of_chosen"]

NUM_COLORS = 3
NUM_CHOSEN = 3
"""The first frame, the next one, and the one after it for slow motion. Later frames are never decoded: on DAVIS masks
from spans 4 and 8 are no better, and on composites worse, because the camera's motion is then no longer affine."""
LUMA_PARTS = (9798, 19235, 3735)
LUMA_BITS = 15
"""0.299, 0.587, 0.114 in units of 1 / 2^15: the integers of OpenCV's RGB2GRAY, so that every device gives the same
luma."""


def chosen_frames(num_frames: int) -> tuple[int, ...]:
    """Return the indices of the frames that motion is computed from: 0, 1, 2, or fewer if the clip has fewer."""
    return tuple(range(min(num_frames, NUM_CHOSEN)))


def planes_of(clips_BTHWC: torch.Tensor) -> torch.Tensor:
    """Return planes (B, 3 + N, H, W) of RGB clips (B, T, H, W, 3), uint8, on their device."""
    return planes_of_chosen(clips_BTHWC[:, list(chosen_frames(clips_BTHWC.shape[1]))])


def planes_of_chosen(frames: torch.Tensor) -> torch.Tensor:
    """Return planes (B, 3 + N, H, W) of the chosen frames, uint8 RGB (B, N, H, W, 3)."""
    # Starts at one half, so that the shift rounds to the nearest level.
    total = torch.full(frames.shape[:-1], 1 << LUMA_BITS - 1, dtype=torch.int32, device=frames.device)
    for channel, part in enumerate(LUMA_PARTS):
        total += frames[..., channel].to(torch.int32) * part
    luma = (total >> LUMA_BITS).to(torch.uint8)
    return torch.cat([frames[:, 0].permute(0, 3, 1, 2), luma], dim=1)
