"""What is left of an image when most of it is taken away: as an image for a trained model, as numbers for a probe.

Letters: N images (patches, frames), H W height and width, D numbers. Images are float32 (N, 3, H, W) in [0, 1]; numbers
are float32 (N, D).
"""

import torch
from torch.nn import functional as F

__all__ = [
    "block_phases",
    "border_only",
    "border_profiles",
    "fine_detail",
    "high_pass",
    "low_pass",
    "mean_color",
    "ring_px",
    "thumbnail",
]

RING_PX = 8
BLUR_PX = 9
BLOCK_PX = 8
DETAIL_CELLS = 4
PROFILE_CELLS = 6


def ring_px(side_px: int) -> int:
    """Return the width of the border ring: 8 px, or a quarter of a small patch."""
    return max(1, min(RING_PX, side_px // 4))


def mean_color(images: torch.Tensor) -> torch.Tensor:
    """Return images of one color each, their mean."""
    return images.mean((-2, -1), keepdim=True).expand_as(images)


def border_only(images: torch.Tensor) -> torch.Tensor:
    """Return images whose inside, beyond the ring, is gray (0.5)."""
    ring = ring_px(min(images.shape[-2:]))
    kept = images.clone()
    kept[..., ring:-ring, ring:-ring] = 0.5
    return kept


def low_pass(images: torch.Tensor, num_cells: int = 4) -> torch.Tensor:
    """Return images blurred so far that `num_cells` x `num_cells` colors are left."""
    small = F.adaptive_avg_pool2d(images, num_cells)
    return F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)


def high_pass(images: torch.Tensor) -> torch.Tensor:
    """Return what a blur of 9 x 9 px takes away, around 0.5."""
    blurred = F.avg_pool2d(images, BLUR_PX, stride=1, padding=BLUR_PX // 2, count_include_pad=False)
    return (images - blurred + 0.5).clamp(0, 1)


def thumbnail(images: torch.Tensor, num_cells: int) -> torch.Tensor:
    """Return the colors of `num_cells` x `num_cells` cells, D = 3 * cells squared; 1 cell is the mean color."""
    return F.adaptive_avg_pool2d(images, num_cells).flatten(1)


def fine_detail(images: torch.Tensor) -> torch.Tensor:
    """Return how strong the fine detail is in 4 x 4 cells of each channel, D = 48."""
    return thumbnail((high_pass(images) - 0.5).abs(), DETAIL_CELLS)


def border_profiles(images: torch.Tensor) -> torch.Tensor:
    """Return the colors along the four borders, (N, 4, 3, 6): top and bottom from the left, left and right from the
    top."""
    ring = ring_px(min(images.shape[-2:]))
    strips = (
        images[..., :ring, :].mean(-2),
        images[..., -ring:, :].mean(-2),
        images[..., :ring].mean(-1),
        images[..., -ring:].mean(-1),
    )
    return torch.stack([F.adaptive_avg_pool1d(strip, PROFILE_CELLS) for strip in strips], 1)


def block_phases(images: torch.Tensor) -> torch.Tensor:
    """Return how much stronger the steps between neighbouring columns, and rows, are than those beside them, by
    position modulo 8: (N, 2, 8), each row of mean 0. Borders of 8 x 8 blocks stand out."""
    gray = images.mean(1)
    phases = []
    for lines in (gray, gray.transpose(1, 2)):
        steps = lines.diff(dim=-1).abs().mean(1)
        excess = steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2
        num_blocks = excess.shape[1] // BLOCK_PX
        excess = excess[:, : num_blocks * BLOCK_PX].reshape(len(excess), num_blocks, BLOCK_PX).mean(1)
        phases.append((excess - excess.mean(1, keepdim=True)) / (steps.mean(1, keepdim=True) + 1e-4))
    return torch.stack(phases, 1)
