"""Plain PyTorch versions of the three image tasks, and loaders of them as they are commonly set up.

One sample at a time, by Pillow, torchvision and scikit-image, under torch's DataLoader or webdataset. The same geometry
gives the same tensors as `pipelines.tasks`, within the tolerances in image_agreement.py: the baseline of the comparison
and an independent reference at once.
"""

from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from scipy.spatial.distance import cdist
from skimage.color import hsv2rgb, rgb2hsv, rgb2lab
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as vision

from pipelines.run.sample_source import canvas_boxes
from pipelines.targets.color.lab import ab_bins
from pipelines.tasks import PRETEXT_TASKS, CanvasSpec, Geometry

__all__ = ["CANVAS_PX", "PAIRS", "PlainDataset", "make_sample", "plain_loader", "webdataset_loader"]

Batches = Generator[Any, None, None]
Floats = npt.NDArray[np.floating[Any]]

PAIRS: dict[str, Any] = {"form": "pairs", "color": "drop"}
"""Options of relative position as the committed records measured it: one pair an image, colors dropped."""
CANVAS_PX = 256
PATCH_PX = 96
STRIDE_PX = 8
NUM_NEIGHBORS = 5
SIGMA = 5.0
GRAY_AB = 5.0
MEAN_LEVELS = np.array([123.68, 116.779, 103.939])
BORDER_PX = 96
VIEW_NUMBERS = {"centre_xy", "scale", "rotation_deg", "pca_factor", "power", "factor", "shift", "hue_shift"}


def plain_loader(images: Path, batch_size: int, num_workers: int) -> Batches:
    """Yield batches of a DataLoader over files."""
    yield from DataLoader(PlainDataset(images), batch_size=batch_size, num_workers=num_workers)


def webdataset_loader(shards: Path, batch_size: int, num_workers: int) -> Batches:
    """Yield batches of a WebLoader over tars, in a shuffle buffer of webdataset's usual size."""
    import webdataset

    urls = sorted(str(path) for path in shards.glob("*.tar"))
    samples = webdataset.WebDataset(urls, resampled=True, shardshuffle=False).shuffle(1000, initial=100)
    made = samples.to_tuple("jpg").map(_from_tuple).batched(batch_size, collation_fn=torch.utils.data.default_collate)
    yield from webdataset.WebLoader(made, batch_size=None, num_workers=num_workers)


class PlainDataset(Dataset[dict[str, Any]]):
    """Files without end, so that a loader over them need not be started again."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, index: int) -> dict[str, Any]:
        return _from_tuple((self.paths[index % len(self.paths)].read_bytes(),))


def _from_tuple(members: tuple[bytes]) -> dict[str, Any]:
    """Make a sample of a geometry drawn for it: the canvas's crop as the pipeline draws it, the tasks' by the tasks."""
    rng, (width, height) = np.random.default_rng(), Image.open(BytesIO(members[0])).size
    uniform = rng.random((1, 4))
    # By the pipeline's own code: compared is how pixels are made, and not which are drawn.
    box = canvas_boxes(uniform, np.array([width]), np.array([height]), (0.75, 1.0), CANVAS_PX)[0]
    drawn: dict[str, Geometry] = {"canvas": {"box": box, "flip": uniform[0, 3] < 0.5}}
    for name, options in (("relative_position", PAIRS), ("exemplar", {})):
        task = PRETEXT_TASKS[name]
        drawn[name] = task(task.config_class.model_validate(options), CanvasSpec(canvas_px=CANVAS_PX)).draw(rng)
    return make_sample(members[0], drawn, rng)


def make_sample(encoded: bytes, drawn: dict[str, Geometry], rng: np.random.Generator) -> dict[str, Any]:
    """Make inputs and targets of all three tasks from one decode. drawn: geometry by task; "canvas" is the crop."""
    x0, y0, x1, y1 = (int(edge) for edge in drawn["canvas"]["box"])
    image, size = Image.open(BytesIO(encoded)).convert("RGB"), [CANVAS_PX] * 2
    canvas: Image.Image = vision.resized_crop(image, y0, x0, y1 - y0, x1 - x0, size, antialias=True)
    if drawn["canvas"]["flip"]:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return {
        "relative_position": _relative_position(canvas, drawn["relative_position"], rng),
        "position": drawn["relative_position"]["position"],
        "exemplar": _exemplar(canvas, drawn["exemplar"]),
        "colorization": _colorization(canvas),
    }


def _relative_position(canvas: Image.Image, drawn: Geometry, rng: np.random.Generator) -> Floats:
    """Make two patches (2, 3, P, P): one channel of each, maybe resampled, and noise in the others."""
    patches = []
    places = (drawn[name][0].tolist() for name in ("corner_xy", "channel", "resample_px"))
    for (x, y), channel, small_px in zip(*places, strict=True):
        patch = vision.crop(canvas, y, x, PATCH_PX, PATCH_PX).getchannel(channel)
        kept = vision.to_dtype(vision.pil_to_tensor(patch), torch.float32, scale=True)
        if small_px < PATCH_PX:
            small = vision.resize(kept, [small_px, small_px], antialias=True)
            kept = vision.resize(small, [PATCH_PX, PATCH_PX], antialias=False)
        planes = (MEAN_LEVELS[:, None, None] + rng.random((3, PATCH_PX, PATCH_PX)) - 0.5) / 255
        planes[channel] = kept[0].numpy()
        patches.append(planes)
    return np.stack(patches).astype(np.float32)


def _colorization(canvas: Image.Image) -> dict[str, npt.NDArray[Any]]:
    """Make inputs (3, S, S), bins and bin_weights (5, h, w), weight (h, w)."""
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


def _exemplar(canvas: Image.Image, drawn: Geometry) -> Floats:
    """Make two views (2, 3, P, P) of one patch."""
    views = []
    for which in range(2):
        numbers = {name: drawn[name][which] for name in drawn if len(np.shape(drawn[name])) and name in VIEW_NUMBERS}
        rgb = _component_contrast(_warped(canvas, numbers), numbers["pca_factor"])
        views.append(_hsv_jitter(rgb, numbers).transpose(2, 0, 1))
    return np.stack(views).astype(np.float32)


def _warped(canvas: Image.Image, numbers: Geometry) -> npt.NDArray[np.uint8]:
    """Mirror at the border, smooth by how much it shrinks, then sample linearly."""
    scale, angle = float(numbers["scale"]), np.deg2rad(float(numbers["rotation_deg"]))
    wide = Image.fromarray(np.pad(np.asarray(canvas), ((BORDER_PX,) * 2,) * 2 + ((0, 0),), mode="reflect"))
    if scale > 1:
        side = (scale**2 - 1) / 12
        line = np.array([side, 1 - 2 * side, side])
        wide = wide.filter(ImageFilter.Kernel((3, 3), np.outer(line, line).ravel().tolist(), scale=1))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    x, y = numbers["centre_xy"] + BORDER_PX - np.array([cos - sin, sin + cos]) * PATCH_PX / 2
    matrix, size = (cos, -sin, x, sin, cos, y), (PATCH_PX, PATCH_PX)
    return np.asarray(wide.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


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
