"""Relative position: where one patch lies relative to another, eight ways. After Doersch et al. 2015.

Of a canvas two adjacent cells of a grid are cut, each jittered; `gap_px` lies between them. inputs[:, 0] is the
centre, inputs[:, 1] its neighbour. The target is the neighbour's place, in reading order around the centre:

    0 1 2
    3 . 4
    5 6 7

Letters: B samples, R = B * pairs_per_image, N = 2 R patches, P patch side.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from pipelines.base.buffer_pool import BufferPool
from pipelines.base.rng import rng_for
from pipelines.kernels.compiled import compiled
from pipelines.targets.color.lab import lightness as lightness_of
from pipelines.targets.views.guards import PatchGuards, recompressed, standardized
from pipelines.targets.views.resampling import resample_cpu, resampled, smallest_px
from pipelines.tasks.base import (
    CanvasSpec,
    Geometry,
    Rng,
    Task,
    TaskBatch,
    TaskConfig,
    TensorSpec,
    check_fits,
    scaled_px,
)

__all__ = ["RelativePosition", "RelativePositionConfig"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

PAPER_PATCH_PX = 96
DIRECTIONS_XY = np.array([(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)])
NUM_NOISE_STARTS = 1 << 20
NOISE_RANGE = 1 / 255
CHANNEL_MEAN = torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1) / 255

GREEN_MAGENTA = torch.tensor([-1.0, 2.0, -1.0])
Color = Literal["drop", "project", "gray", "keep"]


class RelativePositionConfig(PatchGuards, TaskConfig):
    """Lengths left out are the paper's on 256 px (patch 96, gap 48, jitter 7), scaled with the canvas."""

    patch_px: int | None = Field(default=None, ge=1)
    """Side of a patch. Cost of the trunk grows with its square."""
    gap_px: int | None = Field(default=None, ge=0)
    """Between the two patches before jitter. Larger makes the task harder and border continuity useless."""
    jitter_px: int | None = Field(default=None, ge=0)
    """Each patch moves by up to this much on each axis; left out, at most what fits the canvas."""
    pairs_per_image: int = Field(default=1, ge=1, le=64)
    """Pairs cut from one canvas; the trunk's cost grows with it, decoding does not."""
    color: Color = "drop"
    """Against chromatic aberration, which tells a patch's place in the image. drop: one random channel is kept, noise
    in the others; project: the green-magenta direction removed; gray: lightness; keep: nothing done."""
    resample_probability: float = Field(default=0.33, ge=0, le=1)
    """Chance that a patch is scaled down (to 1/9 of its side at least) and up again, as in the original code."""


class RelativePosition(Task):
    """inputs (R, 2, 3, P, P), centre and neighbour; target "position" int64 (R,), 0 to 7."""

    name: ClassVar[str] = "relative_position"
    source: ClassVar[Literal["image", "clip"]] = "image"
    config_class: ClassVar[type[TaskConfig]] = RelativePositionConfig
    config: RelativePositionConfig

    def __init__(self, config: TaskConfig, canvas: CanvasSpec, *, lightness: bool = False) -> None:
        super().__init__(config, canvas, lightness=lightness)
        side = canvas.canvas_px
        self.patch_px = self.config.patch_px or scaled_px(PAPER_PATCH_PX, side)
        self.gap_px = scaled_px(48, side) if self.config.gap_px is None else self.config.gap_px
        pair_px = 2 * self.patch_px + self.gap_px
        jitter_px = self.config.jitter_px
        self.jitter_px = max(0, min(scaled_px(7, side), (side - pair_px) // 2)) if jitter_px is None else jitter_px
        fix = "Lower patch_px, gap_px or jitter_px, or raise canvas_px."
        check_fits(self.name, pair_px + 2 * self.jitter_px, side, fix)

    @property
    def examples_per_sample(self) -> int:
        return self.config.pairs_per_image

    @property
    def color(self) -> Color:
        """What is done to colors; harmonized input replaces it by lightness."""
        return "gray" if self.lightness else self.config.color

    def draw(self, rng: Rng) -> Geometry:
        """position (pairs,); corner_xy (pairs, 2, 2) top left of centre and neighbour; channel, noise_start and
        resample_px (pairs, 2); with jpeg_quality also that, (pairs, 2). All but the last are drawn whatever the options
        are, so that no choice moves a patch."""
        pairs = (self.config.pairs_per_image, 2)
        position = rng.integers(0, len(DIRECTIONS_XY), pairs[:1])
        corner_xy = self._corners(rng, DIRECTIONS_XY[position])
        return {
            "position": position,
            "corner_xy": corner_xy.astype(np.int32),
            "channel": rng.integers(0, 3, pairs),
            "noise_start": rng.integers(0, NUM_NOISE_STARTS, pairs),
            "resample_px": self._resample_px(rng, pairs),
            **self.config.draw(rng, pairs),
        }

    def _corners(self, rng: Rng, direction_xy: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The pair's place is uniform over the canvas on each axis; then each patch jitters on its own."""
        step_px = direction_xy * (self.patch_px + self.gap_px)
        room_px = self.canvas.canvas_px - self.patch_px - np.abs(step_px) - self.jitter_px
        first = rng.integers(self.jitter_px, room_px + 1)
        centre = first - np.minimum(step_px, 0)
        corner_xy = np.stack([centre, centre + step_px], axis=-2)
        pairs = (self.config.pairs_per_image, 2, 2)
        return corner_xy + rng.integers(-self.jitter_px, self.jitter_px + 1, pairs)

    def _resample_px(self, rng: Rng, pairs: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Side to which a patch is scaled down, its area uniform; P where it is left alone."""
        smallest, largest = smallest_px(self.patch_px), max(self.patch_px - 1, 1)
        side = np.sqrt(rng.random(pairs) * (largest**2 - smallest**2) + smallest**2)
        is_resampled = rng.random(pairs) < self.config.resample_probability
        return np.where(is_resampled, np.rint(side).astype(np.int64), self.patch_px)

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        corner_xy = geometry["corner_xy"]
        if pixels.device.type == "cpu" and self.color == "drop" and "jpeg_quality" not in geometry:
            # One channel is all that is needed, so whole patches are not copied.
            planes = _drop_cpu(pixels, corner_xy.reshape(-1, 2), *_drawn_colors(geometry), self.patch_px, self.memory)
        else:
            planes = self._colored(self._patches(pixels, geometry), geometry)
        inputs = self._standardized(planes, geometry) if self.config.standardize else planes
        num_rows = corner_xy.shape[0] * corner_xy.shape[1]
        return TaskBatch(
            task=self.name,
            inputs=inputs.view(num_rows, 2, 3, self.patch_px, self.patch_px),
            target={"position": _on(geometry["position"].reshape(-1), pixels.device)},
            weight=torch.ones(num_rows, device=pixels.device),
            keys=tuple(keys),
            geometry=geometry,
        )

    def _patches(self, pixels: torch.Tensor, geometry: Geometry) -> torch.Tensor:
        """uint8 (N, P, P, 3)."""
        crop = _crop_cpu if pixels.device.type == "cpu" else _crop_device
        patches_NPP3 = crop(pixels, geometry["corner_xy"].reshape(-1, 2), self.patch_px)
        return recompressed(patches_NPP3, geometry.get("jpeg_quality"))

    def _colored(self, patches_NPP3: torch.Tensor, geometry: Geometry) -> torch.Tensor:
        """float32 (N, 3, P, P) in [0, 1]."""
        resample_px = geometry["resample_px"].reshape(-1)
        if self.color == "drop":
            if patches_NPP3.device.type == "cpu":
                corners = np.zeros((len(patches_NPP3), 2), np.int32)
                return _drop_cpu(patches_NPP3, corners, *_drawn_colors(geometry), self.patch_px, self.memory)
            return _drop_device(patches_NPP3, *_drawn_colors(geometry))
        if self.color == "gray":
            gray = resampled(lightness_of(patches_NPP3), resample_px)
            return gray.unsqueeze(1).expand(-1, 3, -1, -1)
        planes = resampled(patches_NPP3.permute(0, 3, 1, 2).float().div_(255), resample_px)
        return _without_green_magenta(planes) if self.color == "project" else planes

    def _standardized(self, planes: torch.Tensor, geometry: Geometry) -> torch.Tensor:
        """What is left of the patch, that is: noise in dropped channels stays as it is."""
        if self.color == "drop":
            channel = _on(geometry["channel"].reshape(-1), planes.device)
            row = torch.arange(len(channel), device=channel.device)
            planes[row, channel] = standardized(planes[row, channel])
            return planes
        is_gray = self.color == "gray"
        return standardized(planes[:, 0]).unsqueeze(1).expand(-1, 3, -1, -1) if is_gray else standardized(planes)

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        rows, side = batch_size * self.config.pairs_per_image, self.patch_px
        return {
            "inputs": TensorSpec(shape=(rows, 2, 3, side, side), dtype=torch.float32, low=0, high=1),
            "position": TensorSpec(shape=(rows,), dtype=torch.int64, low=0, high=len(DIRECTIONS_XY) - 1),
            "weight": TensorSpec(shape=(rows,), dtype=torch.float32, low=0, high=1),
        }


def _on(array: npt.NDArray[np.int64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _drawn_colors(geometry: Geometry) -> tuple[Int64s, Int64s, Int64s]:
    """channel, noise_start and resample_px, (N,) each."""
    channel, noise_start, resample_px = (
        geometry[name].reshape(-1) for name in ("channel", "noise_start", "resample_px")
    )
    return channel, noise_start, resample_px


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
    rng = rng_for(0, 0, "noise table", RelativePosition.name)
    table = torch.from_numpy(rng.random(NUM_NOISE_STARTS + length, dtype=np.float32))
    return ((table - 0.5) * NOISE_RANGE).to(device)


def _drop_device(patches_NPP3: torch.Tensor, channel: Int64s, noise_start: Int64s, resample_px: Int64s) -> torch.Tensor:
    """float32 (N, 3, P, P): one channel of each patch kept (and maybe resampled), noise in the others."""
    device, patch_px = patches_NPP3.device, patches_NPP3.shape[1]
    kept_channel, row = _on(channel, device), torch.arange(len(channel), device=device)
    kept = patches_NPP3.permute(0, 3, 1, 2)[row, kept_channel].float().div_(255)
    planes = _noise(patch_px, device).unfold(0, 3 * patch_px**2, 1)[_on(noise_start, device)]
    planes = planes.view(-1, 3, patch_px, patch_px).add_(CHANNEL_MEAN.to(device))
    planes[row, kept_channel] = resampled(kept, resample_px)
    return planes


def _drop_cpu(
    pixels: torch.Tensor,
    corner_xy: npt.NDArray[np.int32],
    channel: Int64s,
    noise_start: Int64s,
    resample_px: Int64s,
    patch_px: int,
    memory: BufferPool,
) -> torch.Tensor:
    """The same, straight from the canvases (B, S, S, 3): the other channels are not even copied."""
    noise, mean = _noise(patch_px, torch.device("cpu")).numpy(), CHANNEL_MEAN.view(3).numpy()
    planes = memory.empty((len(corner_xy), 3, patch_px, patch_px), np.float32)
    _write_dropped(pixels.numpy(), corner_xy, channel, noise_start, noise, mean, planes)
    for row in np.flatnonzero(resample_px < patch_px):
        resample_cpu(planes[row, channel[row]], int(resample_px[row]))
    return torch.from_numpy(planes)


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
