"""Patches cut from canvases, with what is done to their colors against chromatic aberration: a lens shows one color
channel larger than the others, so the shift between channels tells where in the image a patch was cut.

drop: one channel is kept, noise in the others (Doersch et al. 2015). project: the green-magenta direction is removed
(the same paper). gray: lightness (Doersch & Zisserman 2017, section 3.3). keep: nothing is done.

Letters: B canvases, S their side, T = 3 S bytes of a line, N patches, those of one canvas following each other, P their
side.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.batch_rng import Geometry
from pipelines.base.buffer_pool import BufferPool
from pipelines.base.rng import rng_for
from pipelines.kernels.compiled import compiled
from pipelines.targets.color.lab import light_tables
from pipelines.targets.color.lab import lightness as lightness_of
from pipelines.targets.views.guards import recompressed, standardize_patches, standardized
from pipelines.targets.views.resampling import resample_plane, resampled

__all__ = ["NUM_NOISE_STARTS", "Cuts", "PatchColor", "cut_patches"]

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Uint16s = npt.NDArray[np.uint16]
Pixels = npt.NDArray[np.uint8]

PatchColor = Literal["drop", "project", "gray", "keep"]

NUM_NOISE_STARTS = 1 << 20
NOISE_RANGE = 1 / 255
NOISE_STREAM = "relative_position"
CHANNEL_MEAN = torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1) / 255
GREEN_MAGENTA = torch.tensor([-1.0, 2.0, -1.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Where patches are cut and what is drawn for each: corner_xy int32 (N, 2), the others int64 (N,).

    resample_px: side that a patch is scaled down to; P leaves it alone. channel, noise_start: for `drop`.
    """

    corner_xy: Int32s
    resample_px: Int64s
    channel: Int64s | None
    noise_start: Int64s | None
    jpeg_quality: Int64s | None

    @classmethod
    def of(cls, geometry: Geometry) -> "Cuts":
        """From arrays of these names with any leading axes."""

        def flat(name: str) -> Int64s | None:
            return geometry[name].reshape(-1) if name in geometry else None

        return cls(
            corner_xy=geometry["corner_xy"].reshape(-1, 2),
            resample_px=geometry["resample_px"].reshape(-1),
            channel=flat("channel"),
            noise_start=flat("noise_start"),
            jpeg_quality=flat("jpeg_quality"),
        )


def cut_patches(
    pixels: torch.Tensor,
    cuts: Cuts,
    color: PatchColor,
    patch_px: int,
    memory: BufferPool,
    *,
    standardize: bool = False,
) -> torch.Tensor:
    """Cut patches of canvases uint8 (B, S, S, 3): float32 (N, 3, P, P) in [0, 1], on the pixels' device.

    Gray ones are one plane expanded to three. On a CPU, memory of dropped and gray ones comes from `memory`.
    standardize: give each patch the same mean and contrast (`guards.standardized`); noise in dropped channels stays.
    """
    is_cpu = pixels.device.type == "cpu"
    if is_cpu and color in ("drop", "gray"):
        # Straight from the canvases: whole patches are copied only where they are to be saved as JPEG first.
        if cuts.jpeg_quality is not None:
            pixels, cuts = _saved(pixels, cuts, patch_px)
        if color == "gray":
            return _gray_cpu(pixels, cuts, patch_px, memory, standardize=standardize)
        planes = _drop_cpu(pixels, cuts, patch_px, memory)
    else:
        crop = _crop_cpu if is_cpu else _crop_device
        patches_NPP3 = recompressed(crop(pixels, cuts.corner_xy, patch_px), cuts.jpeg_quality)
        if color == "gray":
            return _gray_device(patches_NPP3, cuts, standardize=standardize)
        if color == "drop":
            planes = _drop_device(patches_NPP3, cuts)
        else:
            planes = resampled(patches_NPP3.permute(0, 3, 1, 2).float().div_(255), cuts.resample_px)
            planes = _without_green_magenta(planes) if color == "project" else planes
    if not standardize:
        return planes
    if color != "drop":
        return standardized(planes)
    channel = _on(_drawn_colors(cuts)[0], planes.device)
    row = torch.arange(len(channel), device=channel.device)
    planes[row, channel] = standardized(planes[row, channel])
    return planes


def _saved(pixels: torch.Tensor, cuts: Cuts, patch_px: int) -> tuple[torch.Tensor, Cuts]:
    """Each patch as a canvas of its own, saved as JPEG and loaded again."""
    patches_NPP3 = recompressed(_crop_cpu(pixels, cuts.corner_xy, patch_px), cuts.jpeg_quality)
    return patches_NPP3, replace(cuts, corner_xy=np.zeros_like(cuts.corner_xy), jpeg_quality=None)


def _on(array: npt.NDArray[np.int64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _drawn_colors(cuts: Cuts) -> tuple[Int64s, Int64s]:
    if cuts.channel is None or cuts.noise_start is None:
        raise ValueError("color drop needs a channel and a noise_start for every patch; draw them")
    return cuts.channel, cuts.noise_start


def _crop_cpu(pixels: torch.Tensor, corner_xy: npt.NDArray[np.int32], patch_px: int) -> torch.Tensor:
    """uint8 (N, P, P, 3); patches of one canvas follow each other in `corner_xy` (N, 2)."""
    canvases, per_canvas = pixels.numpy(), len(corner_xy) // max(len(pixels), 1)
    out = np.empty((len(corner_xy), patch_px, patch_px, 3), np.uint8)
    for n, (x, y) in enumerate(corner_xy.tolist()):
        out[n] = canvases[n // per_canvas, y : y + patch_px, x : x + patch_px]
    return torch.from_numpy(out)


def _crop_device(pixels: torch.Tensor, corner_xy: npt.NDArray[np.int32], patch_px: int) -> torch.Tensor:
    """The same by one gather, without a launch per patch."""
    per_canvas = len(corner_xy) // max(len(pixels), 1)
    sample = torch.arange(len(corner_xy), device=pixels.device) // max(per_canvas, 1)
    offset = torch.arange(patch_px, device=pixels.device)
    x, y = _on(corner_xy.astype(np.int64), pixels.device).unbind(1)
    return pixels[sample[:, None, None], (y[:, None] + offset)[:, :, None], (x[:, None] + offset)[:, None, :]]


@lru_cache(maxsize=8)
def _noise(patch_px: int, device: torch.device) -> torch.Tensor:
    """Noise around the mean for dropped channels, 4 MB: that of noise_start s is the 3 P² numbers from place s on.

    Uniform over one gray level, so that a dropped channel is flat but not constant, as in the original code;
    from a table because numbers drawn on a GPU are not those drawn on a CPU.
    """
    length = 3 * patch_px**2
    rng = rng_for(0, 0, "noise table", NOISE_STREAM)
    table = torch.from_numpy(rng.random(NUM_NOISE_STARTS + length, dtype=np.float32))
    return ((table - 0.5) * NOISE_RANGE).to(device)


def _drop_device(patches_NPP3: torch.Tensor, cuts: Cuts) -> torch.Tensor:
    """float32 (N, 3, P, P): one channel of each patch kept (and maybe resampled), noise in the others."""
    channel, noise_start = _drawn_colors(cuts)
    device, patch_px = patches_NPP3.device, patches_NPP3.shape[1]
    kept_channel, row = _on(channel, device), torch.arange(len(channel), device=device)
    kept = patches_NPP3.permute(0, 3, 1, 2)[row, kept_channel].float().div_(255)
    planes = _noise(patch_px, device).unfold(0, 3 * patch_px**2, 1)[_on(noise_start, device)]
    planes = planes.view(-1, 3, patch_px, patch_px).add_(CHANNEL_MEAN.to(device))
    planes[row, kept_channel] = resampled(kept, cuts.resample_px)
    return planes


def _drop_cpu(pixels: torch.Tensor, cuts: Cuts, patch_px: int, memory: BufferPool) -> torch.Tensor:
    """The same, straight from the canvases (B, S, S, 3): the other channels are not even copied."""
    channel, noise_start = _drawn_colors(cuts)
    noise, mean = _noise(patch_px, torch.device("cpu")).numpy(), CHANNEL_MEAN.view(3).numpy()
    planes = memory.empty((len(channel), 3, patch_px, patch_px), np.float32)
    _write_dropped(pixels.numpy(), cuts.corner_xy, channel, noise_start, noise, mean, planes)
    for row in np.flatnonzero(cuts.resample_px < patch_px):
        resample_plane(planes[row, channel[row]], int(cuts.resample_px[row]))
    return torch.from_numpy(planes)


def _gray_device(patches_NPP3: torch.Tensor, cuts: Cuts, *, standardize: bool) -> torch.Tensor:
    """float32 (N, 3, P, P), three times one plane: lightness (maybe resampled, and standardized)."""
    plane = resampled(lightness_of(patches_NPP3), cuts.resample_px)
    return (standardized(plane) if standardize else plane).unsqueeze(1).expand(-1, 3, -1, -1)


def _gray_cpu(
    pixels: torch.Tensor, cuts: Cuts, patch_px: int, memory: BufferPool, *, standardize: bool
) -> torch.Tensor:
    """The same, straight from the canvases (B, S, S, 3); maybe standardized."""
    plane = memory.empty((len(cuts.corner_xy), patch_px, patch_px), np.float32)
    lines_BST = pixels.numpy().reshape(*pixels.shape[:2], 3 * pixels.shape[2])
    _write_gray(lines_BST, cuts.corner_xy, cuts.resample_px, *light_tables(), standardize, plane)
    return torch.from_numpy(plane).unsqueeze(1).expand(-1, 3, -1, -1)


@compiled
def _write_gray(
    lines_BST: Pixels,
    corner_N2: Int32s,
    resample_px_N: Int64s,
    light_of_red: Uint16s,
    light_of_green: Uint16s,
    light_of_blue: Uint16s,
    table: Float32s,
    standardize: bool,
    plane_NPP: Float32s,
) -> None:
    # One patch at a time, which stays in the cache until it is done.
    num_patches, patch_px, _ = plane_NPP.shape
    per_canvas = num_patches // max(len(lines_BST), 1)
    canvas_ST = np.empty(lines_BST.shape[1:], np.uint8)
    for n in range(num_patches):
        if n % per_canvas == 0:
            _copy_used(lines_BST[n // per_canvas], corner_N2[n : n + per_canvas], patch_px, canvas_ST)
        left, top = corner_N2[n]
        for y in range(patch_px):
            levels, out = canvas_ST[top + y, 3 * left : 3 * (left + patch_px)], plane_NPP[n, y]
            for x in range(patch_px):
                # Weighted levels are summed as integers and looked up once: no root or power per pixel.
                out[x] = table[
                    np.uint32(light_of_red[levels[3 * x]])
                    + np.uint32(light_of_green[levels[3 * x + 1]])
                    + np.uint32(light_of_blue[levels[3 * x + 2]])
                ]
        resample_plane(plane_NPP[n], resample_px_N[n])
        if standardize:
            standardize_patches(plane_NPP[n : n + 1])


@compiled
def _copy_used(lines_ST: Pixels, corner_N2: Int32s, patch_px: int, out_ST: Pixels) -> None:
    """Copy the box of a canvas in which its patches lie. Copied in one go, it comes from memory in half the time that
    the short lines of patches take."""
    first, last = 3 * corner_N2[:, 0].min(), 3 * (corner_N2[:, 0].max() + patch_px)
    for y in range(corner_N2[:, 1].min(), corner_N2[:, 1].max() + patch_px):
        line, out = lines_ST[y, first:last], out_ST[y, first:last]
        for place in range(len(out)):
            out[place] = line[place]


@compiled
def _write_dropped(
    pixels_BSS3: Pixels,
    corner_N2: npt.NDArray[np.int32],
    channel_N: Int64s,
    noise_start_N: Int64s,
    noise: Float32s,
    mean_3: Float32s,
    planes_N3PP: Float32s,
) -> None:
    num_patches, _, patch_px, _ = planes_N3PP.shape
    per_canvas = num_patches // max(len(pixels_BSS3), 1)
    for n in range(num_patches):
        left, top = corner_N2[n]
        for channel in range(3):
            plane = planes_N3PP[n, channel]
            if channel == channel_N[n]:
                for y in range(patch_px):
                    row = pixels_BSS3[n // per_canvas, top + y]
                    for x in range(patch_px):
                        plane[y, x] = np.float32(row[left + x, channel]) / np.float32(255)
            else:
                # Slices and flat indices: Numba takes an added index for one that may be negative, and then no loop in
                # vectors.
                start = noise_start_N[n] + channel * patch_px**2
                numbers, around_mean = plane.reshape(-1), noise[start : start + patch_px**2]
                for place in range(len(numbers)):
                    numbers[place] = around_mean[place] + mean_3[channel]


def _without_green_magenta(planes: torch.Tensor) -> torch.Tensor:
    """Colors projected onto the plane orthogonal to green-magenta; contrast x 3/4 keeps all of them in [0, 1]."""
    axis = GREEN_MAGENTA.to(planes)
    projection = torch.eye(3).to(planes) - torch.outer(axis, axis) / axis.dot(axis)
    projected = (projection @ planes.flatten(2)).view(planes.shape)
    return projected.sub_(0.5).mul_(0.75).add_(0.5)
