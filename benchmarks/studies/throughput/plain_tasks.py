"""The three image tasks as one would write them first: one sample at a time, Pillow, torchvision and scikit-image.

The same geometry gives the same tensors as `pipelines.tasks`, within the tolerances in images.py. That makes this the
baseline of the comparison and an independent reference at once.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from scipy.spatial.distance import cdist
from skimage.color import hsv2rgb, rgb2hsv, rgb2lab
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from pipelines.targets.color.lab import ab_bins

__all__ = ["canvas_of", "colorization", "exemplar", "relative_position"]

Geometry = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.floating[Any]]

STRIDE_PX = 8
NUM_NEIGHBORS = 5
SIGMA = 5.0
GRAY_AB = 5.0
MEAN_LEVELS = np.array([123.68, 116.779, 103.939])
BORDER_PX = 96


def canvas_of(encoded: bytes, drawn: Geometry, canvas_px: int) -> Image.Image:
    """The box of a JPEG, resized to a square with antialiasing and maybe mirrored."""
    x0, y0, x1, y1 = (int(edge) for edge in drawn["box"])
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    canvas: Image.Image = vision.resized_crop(
        image, y0, x0, y1 - y0, x1 - x0, [canvas_px, canvas_px], v2.InterpolationMode.BILINEAR, antialias=True
    )
    return canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if drawn["flip"] else canvas


def relative_position(canvas: Image.Image, drawn: Geometry, patch_px: int, rng: np.random.Generator) -> Floats:
    """Two patches (2, 3, P, P): one channel of each, maybe resampled, and noise in the others."""
    patches = []
    places = (drawn[name][0].tolist() for name in ("corner_xy", "channel", "resample_px"))
    for (x, y), channel, small_px in zip(*places, strict=True):
        patch = vision.crop(canvas, y, x, patch_px, patch_px).getchannel(channel)
        kept = vision.to_dtype(vision.pil_to_tensor(patch), torch.float32, scale=True)
        if small_px < patch_px:
            small = vision.resize(kept, [small_px, small_px], antialias=True)
            kept = vision.resize(small, [patch_px, patch_px], antialias=False)
        planes = (MEAN_LEVELS[:, None, None] + rng.random((3, patch_px, patch_px)) - 0.5) / 255
        planes[channel] = kept[0].numpy()
        patches.append(planes)
    return np.stack(patches).astype(np.float32)


def colorization(canvas: Image.Image) -> dict[str, npt.NDArray[Any]]:
    """inputs (3, S, S), bins and bin_weights (5, h, w), weight (h, w)."""
    rgb = np.asarray(canvas)
    lightness = rgb2lab(rgb)[..., 0].astype(np.float32) / 100
    cells = rgb.shape[0] // STRIDE_PX
    mean = rgb.reshape(cells, STRIDE_PX, cells, STRIDE_PX, 3).mean((1, 3)).round().astype(np.uint8)
    ab = rgb2lab(mean)[..., 1:]
    distance = cdist(ab.reshape(-1, 2), ab_bins())
    nearest = np.argsort(distance, axis=1)[:, :NUM_NEIGHBORS]
    weights = np.exp(-(np.take_along_axis(distance, nearest, 1) ** 2) / (2 * SIGMA**2))
    weights /= weights.sum(1, keepdims=True)
    return {
        "inputs": np.stack([lightness] * 3),
        "bins": nearest.T.reshape(NUM_NEIGHBORS, cells, cells),
        "bin_weights": weights.T.reshape(NUM_NEIGHBORS, cells, cells).astype(np.float32),
        "weight": np.full((cells, cells), float((np.abs(ab) > GRAY_AB).any()), np.float32),
    }


def exemplar(canvas: Image.Image, drawn: Geometry, patch_px: int) -> Floats:
    """Two views (2, 3, P, P) of one patch."""
    views = []
    for which in range(2):
        numbers = {name: drawn[name][which] for name in drawn if len(np.shape(drawn[name])) and name in VIEW_NUMBERS}
        rgb = _component_contrast(_warped(canvas, numbers, patch_px), numbers["pca_factor"])
        views.append(_hsv_jitter(rgb, numbers).transpose(2, 0, 1))
    return np.stack(views).astype(np.float32)


VIEW_NUMBERS = {"centre_xy", "scale", "rotation_deg", "pca_factor", "power", "factor", "shift", "hue_shift"}


def _warped(canvas: Image.Image, numbers: Geometry, patch_px: int) -> npt.NDArray[np.uint8]:
    """Mirrored at the border, smoothed by how much it shrinks, then sampled linearly."""
    scale, angle = float(numbers["scale"]), np.deg2rad(float(numbers["rotation_deg"]))
    wide = Image.fromarray(np.pad(np.asarray(canvas), ((BORDER_PX,) * 2,) * 2 + ((0, 0),), mode="reflect"))
    if scale > 1:
        side = (scale**2 - 1) / 12
        line = np.array([side, 1 - 2 * side, side])
        wide = wide.filter(ImageFilter.Kernel((3, 3), np.outer(line, line).ravel().tolist(), scale=1))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    x, y = numbers["centre_xy"] + BORDER_PX - np.array([cos - sin, sin + cos]) * patch_px / 2
    turned = wide.transform(
        (patch_px, patch_px), Image.Transform.AFFINE, (cos, -sin, x, sin, cos, y), Image.Resampling.BILINEAR
    )
    return np.asarray(turned)


def _component_contrast(patch: npt.NDArray[np.uint8], factor: Floats) -> Floats:
    colors = patch.reshape(-1, 3) / 255
    mean = colors.mean(0)
    _, components = np.linalg.eigh(np.cov(colors.T))
    changed = (colors - mean) @ (components * factor) @ components.T + mean
    return np.asarray(changed.clip(0, 1).reshape(patch.shape))


def _hsv_jitter(rgb: Floats, numbers: Geometry) -> Floats:
    hsv = rgb2hsv(rgb)
    chroma = hsv[..., 1] * hsv[..., 2] * 255
    hsv[..., 0] = (hsv[..., 0] + numbers["hue_shift"]) % 1
    changed = hsv[..., 1:] ** numbers["power"] * numbers["factor"] + numbers["shift"]
    hsv[..., 1:] = changed.clip(0, 1)
    hsv[..., 1] *= chroma.clip(0, 1)
    return np.asarray(hsv2rgb(hsv))
