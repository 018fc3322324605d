"""Shortcut guards: what takes low-level clues from a patch without taking its content. Same shape and dtype out as in.

Random numbers are drawn before any pixel exists, as in `Task.draw`, so that a guard is the same for every worker, order
and backend. `PatchGuards` holds the options of the tasks that cut patches.
Letters: N patches, R rows of all planes of a patch, P patch side (height and width may differ), blocks of 8 x 8 pixels
as in JPEG.
"""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import field_validator

from pipelines.base.batch_rng import BatchRng
from pipelines.base.config import Config
from pipelines.kernels.compiled import compiled

__all__ = ["JPEG_UNTOUCHED", "PatchGuards", "recompressed", "standardize_patches", "standardized"]

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

STANDARD_SPREAD = 6
BLOCK_PX = 8
JPEG_UNTOUCHED = 0
LUMA_FROM_RGB = (0.299, 0.587, 0.114)
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)
"""Steps of quality 50 in the JPEG standard (ITU-T T.81, annex K)."""


class PatchGuards(Config):
    """Options of a task that cuts patches; off, except that relative position is standardized."""

    standardize: bool = False
    """Give every patch the same mean and contrast, as Kolesnikov et al. 2019 do; they tell place and image. What lies
    more than three deviations from the mean is cut off."""
    jpeg_quality: tuple[int, int] | None = None
    """Save every patch as JPEG at a random quality between these two (1 to 100), and load it again, against the block
    grid of the file it came from. Lower hides more and blurs more. Costs 0.3 ms a patch of 96 px on a CPU core."""

    @field_validator("jpeg_quality")
    @classmethod
    def _is_a_range(cls, bounds: tuple[int, int] | None) -> tuple[int, int] | None:
        if bounds is not None and not 1 <= bounds[0] <= bounds[1] <= 100:
            raise ValueError("need two whole numbers from 1 to 100, the smaller first")
        return bounds

    def draw(self, rng: np.random.Generator | BatchRng, shape: tuple[int, ...]) -> dict[str, Int64s]:
        """ "jpeg_quality", int64 of that shape (one number a patch), if there is one to draw. To be drawn last: then
        the option changes no other number."""
        if self.jpeg_quality is None:
            return {}
        low, high = self.jpeg_quality
        return {"jpeg_quality": rng.integers(low, high + 1, shape)}


def standardized(planes: torch.Tensor) -> torch.Tensor:
    """Each patch with mean 1/2 and standard deviation 1/6, cut off at 0 and 1: float32 (N, P, P) or (N, C, P, P).

    Against brightness and contrast, which tell place (sky above, dark corners) and image. Mean and deviation are over
    all values of a patch, as in Kolesnikov et al. 2019 and, per tile of a puzzle, Noroozi & Favaro 2016. Inputs are in
    [0, 1] in every task, so what lies more than 3 deviations from the mean is cut off. A flat patch stays flat.
    """
    if planes.device.type == "cpu":
        out = planes.clone(memory_format=torch.contiguous_format)
        standardize_patches(out.numpy().reshape(len(out), -1, out.shape[-1]))
        return out
    values = planes.flatten(1)
    deviation, mean = torch.std_mean(values, dim=1, correction=0, keepdim=True)
    # As in TensorFlow: never less than the deviation of one odd value, so that flat noise is not blown up.
    scale = deviation.clamp_min(values.shape[1] ** -0.5) * STANDARD_SPREAD
    return ((values - mean) / scale).add_(0.5).clamp_(0, 1).view(planes.shape)


@compiled
def standardize_patches(planes_NRP: Float32s) -> None:
    """Do the same to contiguous patches (N, R, P) in place, R lines of all planes of a patch, in a twentieth of the
    time."""
    num_rows, num_columns = planes_NRP.shape[1:]
    num_px = num_rows * num_columns
    sums, squares = np.empty(num_columns, np.float32), np.empty(num_columns, np.float32)
    for n in range(len(planes_NRP)):
        # Counted from the first value, or patches of little contrast would lose digits.
        start = planes_NRP[n, 0, 0]
        _write_sums(planes_NRP[n], start, sums, squares)
        total, total_squares = 0.0, 0.0
        for x in range(num_columns):
            total += sums[x]
            total_squares += squares[x]
        mean = total / num_px
        deviation = np.sqrt(max(total_squares / num_px - mean * mean, 0.0))
        factor = 1 / (STANDARD_SPREAD * max(deviation, num_px**-0.5))
        _scale(planes_NRP[n], np.float32(factor), np.float32(0.5 - (start + mean) * factor))


@compiled
def _write_sums(patch_RP: Float32s, start: np.float32, sums_P: Float32s, squares_P: Float32s) -> None:
    """Sums of columns: columns do not wait for each other, so that the loop runs in vectors."""
    sums_P[:] = 0
    squares_P[:] = 0
    for y in range(patch_RP.shape[0]):
        for x in range(patch_RP.shape[1]):
            value = patch_RP[y, x] - start
            sums_P[x] += value
            squares_P[x] += value * value


@compiled
def _scale(patch_RP: Float32s, gain: np.float32, offset: np.float32) -> None:
    values = patch_RP.reshape(-1)
    for place in range(len(values)):
        values[place] = min(max(values[place] * gain + offset, np.float32(0)), np.float32(1))


def recompressed(pixels: torch.Tensor, quality: Int64s | None) -> torch.Tensor:
    """Patches as if saved as JPEG (4:2:0) and loaded again: uint8 RGB (N, P, P, 3) to the same; quality N numbers.

    Against the block grid of the file an image came from: its phase tells where in the image a patch was cut. Saved
    again, every patch has the same grid, from its own corner. Quality is 1 to 100; JPEG_UNTOUCHED leaves a patch alone,
    and None all of them. Compression as a shortcut: Wei et al. 2018, in videos; saving patches again is our own answer.

    On a CPU by libjpeg, on a device by the same arithmetic in batch: on photos 0.5 levels apart in the mean, 5 at the
    99th percentile, since one of them sometimes rounds a frequency to the next step.
    """
    levels = np.zeros(0, np.int64) if quality is None else quality.reshape(-1)
    rows = np.flatnonzero(levels != JPEG_UNTOUCHED)
    if not len(rows):
        return pixels
    through = through_libjpeg if pixels.device.type == "cpu" else through_jpeg
    chosen = torch.from_numpy(rows).to(pixels.device)
    out = pixels.clone()
    out[chosen] = through(pixels[chosen], levels[rows])
    return out


def through_libjpeg(pixels: torch.Tensor, quality: Int64s) -> torch.Tensor:
    out = np.empty(pixels.shape, np.uint8)
    for rgb, level, saved in zip(pixels.numpy(), quality.tolist(), out, strict=True):
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, level])
        saved[:] = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    return torch.from_numpy(out)


def through_jpeg(pixels: torch.Tensor, quality: Int64s) -> torch.Tensor:
    # Kornia's is 8 levels from libjpeg at the 99th percentile, this 6, in half the time.
    # In float64, so that what is rounded to a step does not depend on the order in which sums are taken.
    steps_N2 = _steps(torch.from_numpy(quality.astype(np.float64)).to(pixels.device))
    height, width = pixels.shape[1:3]
    padding = (0, -width % (2 * BLOCK_PX), 0, -height % (2 * BLOCK_PX))
    rgb = F.pad(pixels.permute(0, 3, 1, 2).double(), padding, mode="replicate")
    matrix = _ycc_from_rgb().to(rgb)
    ycc = torch.einsum("ij,njhw->nihw", matrix, rgb).round_()
    luma = _quantized(ycc[:, :1] - 128, steps_N2[:, :1])
    chroma = _quantized(F.avg_pool2d(ycc[:, 1:], 2).round_(), steps_N2[:, 1:])
    # Enlarged as libjpeg does ("fancy upsampling"), from what lies inside the picture alone.
    inside = chroma[..., : -(-height // 2), : -(-width // 2)].round_()
    chroma = F.interpolate(inside, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    levels = torch.cat([luma[..., :height, :width] + 128, chroma], dim=1).round_()
    back = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), levels)
    return back.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _quantized(planes: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Planes (N, C, H, W) around 0 with each block's 64 frequencies rounded to multiples of steps (N, 1, 8, 8)."""
    num, channels, height, width = planes.shape
    blocks = planes.view(num, channels, height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX).transpose(3, 4)
    cosines = _cosines().to(planes)
    wide = steps.view(num, 1, 1, 1, BLOCK_PX, BLOCK_PX)
    frequencies = (cosines @ blocks @ cosines.T).div_(wide).round_().mul_(wide)
    return (cosines.T @ frequencies @ cosines).transpose(3, 4).reshape(planes.shape)


def _steps(quality: torch.Tensor) -> torch.Tensor:
    """(N, 2, 8, 8): steps of luma and chroma at each quality, by libjpeg's rule."""
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    tables = torch.tensor([LUMA_STEPS, CHROMA_STEPS], dtype=torch.float64, device=quality.device)
    return ((tables * percent.view(-1, 1, 1, 1) + 50) / 100).floor_().clamp_(1, 255)


@lru_cache(maxsize=1)
def _cosines() -> torch.Tensor:
    """The orthonormal discrete cosine transform of 8 values, float64 (8, 8)."""
    index = torch.arange(BLOCK_PX, dtype=torch.float64)
    matrix = torch.cos((2 * index + 1) * index.view(-1, 1) * torch.pi / (2 * BLOCK_PX)) * 0.5
    matrix[0] *= 0.5**0.5
    return matrix


@lru_cache(maxsize=1)
def _ycc_from_rgb() -> torch.Tensor:
    """Luma and the two chroma differences around 0 (JFIF), float64 (3, 3)."""
    red, _, blue = torch.eye(3, dtype=torch.float64)
    luma = torch.tensor(LUMA_FROM_RGB, dtype=torch.float64)
    return torch.stack([luma, (blue - luma) / 1.772, (red - luma) / 1.402])
