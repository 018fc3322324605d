"""Shortcuts, taken by linear classifiers: without its guard each tells a patch's place, with it little or nothing.

Chromatic aberration: a lens shows one color channel smaller than the others, so its shift against them points to the
image's centre (Doersch et al. 2015). Block grid: a JPEG's 8 x 8 blocks start at the image's corner, so their phase is
the patch's place modulo 8. Brightness: light comes from above and corners are dark.
"""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.base.rng import rng_for
from pipelines.tasks.base import CanvasSpec, stack_geometry
from pipelines.tasks.relative_position import RelativePosition, RelativePositionConfig

CANVAS_PX = 128
NUM_CANVASES = 150
GREEN_SHRINKS = 0.985


def textures(seed):
    """float32 (S, S): gray noise of middling scale, with edges everywhere and no place of its own."""
    noise = np.random.default_rng(seed).normal(size=(CANVAS_PX, CANVAS_PX)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return 128 + 40 * soft / soft.std()


def bytes_of(image):
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def through_a_lens(seed):
    """A gray texture whose green channel is shown a little smaller."""
    gray = textures(seed)
    middle = (CANVAS_PX - 1) / 2
    shrink = cv2.getRotationMatrix2D((middle, middle), 0, GREEN_SHRINKS)
    green = cv2.warpAffine(gray, shrink, gray.shape, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return bytes_of(np.stack([gray, green, gray], axis=-1))


def saved_by_a_camera(seed):
    buffer = io.BytesIO()
    Image.fromarray(bytes_of(np.repeat(textures(seed)[..., None], 3, -1))).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def lit_from_above(seed):
    light = np.linspace(1.2, 0.8, CANVAS_PX)[:, None, None]
    return bytes_of(np.repeat(textures(seed)[..., None], 3, -1) * light)


def patches_of(make_canvas, **options):
    """Inputs of relative position, float32 (N, 3, P, P), and the corners x, y (N, 2) of the patches."""
    plain = {
        "form": "pairs",
        "patch_px": 48,
        "gap_px": 8,
        "jitter_px": 4,
        "pairs_per_image": 4,
        "color": "keep",
        "resample_probability": 0,
    }
    task = RelativePosition(RelativePositionConfig(**plain | options), CanvasSpec(canvas_px=CANVAS_PX))
    pixels = torch.from_numpy(np.stack([make_canvas(seed) for seed in range(NUM_CANVASES)]))
    geometry = stack_geometry([task.draw(rng_for(0, 0, str(key), task.name)) for key in range(NUM_CANVASES)])
    inputs = task.make(pixels, geometry, [""] * NUM_CANVASES).inputs
    return inputs.flatten(0, 1).numpy(), geometry["corner_xy"].reshape(-1, 2)


def accuracy(features, places):
    """On the second half, of a linear classifier (least squares) fitted on the first half."""
    features = np.concatenate([features / features.std(0).clip(1e-9), np.ones((len(features), 1))], axis=1)
    half, count = len(features) // 2, places.max() + 1
    weights, *_ = np.linalg.lstsq(features[:half], np.eye(count)[places[:half]], rcond=None)
    return float(((features[half:] @ weights).argmax(1) == places[half:]).mean())


def channel_shifts(patch):
    """(4,): how far red and blue lie from green, x and y, by least squares on green's slopes, in levels of 255: less is
    rounding noise, from which a classifier would read a place that no trunk can see."""
    patch = np.rint(patch * 255)
    green_y, green_x = np.gradient(patch[1])
    slopes = np.stack([green_x.ravel(), green_y.ravel()], axis=1)
    return np.concatenate(
        [np.linalg.lstsq(slopes, (patch[channel] - patch[1]).ravel(), rcond=None)[0] for channel in (0, 2)]
    )


def side_of_the_canvas(corner_xy):
    """0 to 3: in which quarter of the canvas the patch's middle lies."""
    right, below = (corner_xy + 24 > CANVAS_PX / 2).T
    return 2 * below.astype(int) + right


@pytest.mark.parametrize("color", ["keep", "drop", "project", "gray"])
def test_channel_shifts_tell_the_quarter_unless_colors_are_dropped_projected_or_gray(color):
    patches, corner_xy = patches_of(through_a_lens, color=color)
    found = accuracy(np.stack([channel_shifts(patch) for patch in patches]), side_of_the_canvas(corner_xy))
    # Chance is 0.25; 600 patches: standard deviation 0.018.
    assert found > 0.8 if color == "keep" else found < 0.33


def column_steps(patch):
    """(8,): how strong the steps between neighbouring columns are, by column modulo 8: block borders stand out."""
    steps = np.abs(np.diff(patch.mean(0), axis=1)).mean(0)[:40]
    return steps.reshape(5, 8).mean(0) / steps.mean()


@pytest.mark.parametrize("jpeg_quality", [None, (20, 50)])
def test_the_block_grid_tells_the_place_modulo_8_unless_patches_are_saved_again(jpeg_quality):
    patches, corner_xy = patches_of(saved_by_a_camera, jpeg_quality=jpeg_quality)
    found = accuracy(np.stack([column_steps(patch) for patch in patches]), corner_xy[:, 0] % 8)
    # Chance is 0.125; 600 patches: standard deviation 0.014. What is left below 0.25 is the old grid under the new one.
    assert found > 0.7 if jpeg_quality is None else found < 0.25


@pytest.mark.parametrize("standardize", [False, True])
def test_brightness_tells_the_half_unless_patches_are_standardized(standardize):
    patches, corner_xy = patches_of(lit_from_above, standardize=standardize)
    # In whole percent, for the same reason as above.
    statistics = np.rint(100 * np.stack([patches.mean((1, 2, 3)), patches.std((1, 2, 3))], axis=1))
    found = accuracy(statistics, (corner_xy[:, 1] + 24 > CANVAS_PX / 2).astype(int))
    # Chance is 0.5; 600 patches: standard deviation 0.02.
    assert found > 0.85 if not standardize else found < 0.6
