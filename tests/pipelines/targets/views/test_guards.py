"""Shortcut guards against libjpeg and TensorFlow's formula written in NumPy. What they hide: test_shortcuts.py."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.base.batch_rng import BatchRng
from pipelines.base.rng import rng_for
from pipelines.targets.views import guards
from pipelines.targets.views.guards import JPEG_UNTOUCHED, PatchGuards, recompressed, standardized
from pipelines.tasks.base import CanvasSpec, stack_geometry
from pipelines.tasks.exemplar import Exemplar
from pipelines.tasks.relative_position import RelativePosition
from tests.made.pictures import smooth_picture


def photos(count=6, side_px=48, noise=6):
    """uint8 (count, side, side, 3): smooth colors with some grain, so that every frequency is there."""
    rng = np.random.default_rng(0)
    smooth = np.stack([smooth_picture(seed, side_px, side_px) for seed in range(count)]).astype(int)
    return torch.from_numpy((smooth + rng.integers(-noise, noise + 1, smooth.shape)).clip(0, 255).astype(np.uint8))


def pillow_jpeg(rgb, quality):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer))


def levels_apart(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))


@pytest.mark.parametrize("shape", [(5, 12, 10), (5, 3, 12, 10)])
def test_standardized_is_the_formula_of_per_image_standardization(shape):
    planes = torch.rand(shape, generator=torch.Generator().manual_seed(0)) ** 3
    found = standardized(planes).numpy()
    for patch, ours in zip(planes.numpy().astype(np.float64), found, strict=True):
        scaled = (patch - patch.mean()) / max(patch.std(), 1 / np.sqrt(patch.size))
        np.testing.assert_allclose(ours, np.clip(0.5 + scaled / 6, 0, 1), atol=1e-6)


def test_brightness_and_contrast_of_a_patch_leave_no_trace():
    planes = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(standardized(0.3 + 0.4 * planes), standardized(planes), rtol=0, atol=1e-5)


def test_a_flat_patch_stays_flat():
    flat = torch.full((2, 3, 8, 8), 0.9)
    flat[0, 0, 0, 0] = 0.9 + 1 / 255
    out = standardized(flat)
    assert (out[1] - 0.5).abs().max() < 1e-6
    assert (out[0] - 0.5).abs().max() < 0.02


def test_one_plane_seen_three_times_is_standardized_as_one():
    plane = torch.rand(3, 8, 8)
    torch.testing.assert_close(standardized(plane), standardized(plane.unsqueeze(1).expand(-1, 3, -1, -1))[:, 0])


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 95, 100])
@pytest.mark.parametrize("way", ["through_libjpeg", "through_jpeg"])
def test_both_ways_through_jpeg_are_that_of_pillow(way, quality):
    pixels = photos()
    found = getattr(guards, way)(pixels, np.full(len(pixels), quality))
    apart = levels_apart(found, np.stack([pillow_jpeg(one.numpy(), quality) for one in pixels]))
    lost = levels_apart(found, pixels)
    if way == "through_libjpeg":
        assert apart.max() == 0
    # Where a frequency lies between two steps, one rounding up and one down shift a block by half a step.
    assert apart.mean() <= min(0.9, 0.3 * lost.mean())
    assert np.percentile(apart, 99) <= (7 if quality >= 50 else 12)


@pytest.mark.parametrize("side_px", [8, 9, 15, 16, 17, 36])
def test_patches_of_any_side_keep_it(side_px):
    pixels, quality = photos(2, side_px), np.array([100, 100])
    found = guards.through_jpeg(pixels, quality)
    assert (found.shape, found.dtype) == (pixels.shape, torch.uint8)
    assert levels_apart(found, guards.through_libjpeg(pixels, quality)).mean() < 1


def test_each_patch_has_its_own_quality_and_may_be_left_alone():
    pixels = photos(4)
    kept = pixels.clone()
    out = recompressed(pixels, np.array([JPEG_UNTOUCHED, 20, 90, JPEG_UNTOUCHED]))
    lost = [levels_apart(*pair).mean() for pair in zip(out, pixels, strict=True)]
    assert lost[0] == lost[3] == 0
    assert lost[1] > 1.2 * lost[2] > 0
    assert torch.equal(pixels, kept)
    assert recompressed(pixels, np.zeros(4, int)) is pixels


def test_other_patches_of_the_batch_change_nothing():
    pixels, quality = photos(5), np.array([30, 80, 55, 12, 95])
    for way in (guards.through_libjpeg, guards.through_jpeg):
        whole = way(pixels, quality)
        parts = torch.cat([way(pixels[row : row + 1], quality[row : row + 1]) for row in range(5)])
        assert torch.equal(whole, parts)


def test_qualities_are_drawn_within_both_bounds_with_either_generator():
    guards_of = PatchGuards(jpeg_quality=(30, 33))
    one = guards_of.draw(rng_for(0, 0, "key", "task"), (200, 2))["jpeg_quality"]
    batch = guards_of.draw(BatchRng(0, [0, 0], ["a", "b"], "task"), (100, 2))["jpeg_quality"]
    assert (one.shape, batch.shape) == ((200, 2), (2, 100, 2))
    assert set(one.ravel().tolist()) == set(batch.ravel().tolist()) == {30, 31, 32, 33}


def test_nothing_is_drawn_unless_asked_for():
    assert PatchGuards().draw(rng_for(0, 0, "key", "task"), (2,)) == {}
    pixels = photos(2)
    assert recompressed(pixels, None) is pixels


@pytest.mark.parametrize("bounds", [(0, 50), (60, 50), (50, 101), (50,), (1.5, 3)])
def test_impossible_qualities_are_refused(bounds):
    with pytest.raises(ValueError, match="jpeg_quality"):
        PatchGuards(jpeg_quality=bounds)


def made_by(task_class, **options):
    """The batch and geometry of a task with these options, from 6 photos of 64 px."""
    task = task_class(task_class.config_class(**options), CanvasSpec(canvas_px=64))
    geometry = stack_geometry([task.draw(rng_for(0, 0, str(key), task.name)) for key in range(6)])
    return task.make(photos(6, task.canvas_px), geometry, [str(key) for key in range(6)]), geometry


@pytest.mark.parametrize("task_class", [RelativePosition, Exemplar])
def test_an_option_changes_no_number_that_is_drawn_for_something_else(task_class):
    _, plain = made_by(task_class)
    _, guarded = made_by(task_class, jpeg_quality=(20, 40), standardize=True)
    assert set(guarded) - set(plain) == {"jpeg_quality"}
    assert all(np.array_equal(plain[name], guarded[name]) for name in plain)


@pytest.mark.parametrize("task_class", [RelativePosition, Exemplar])
def test_saved_patches_are_other_patches_and_remain_close(task_class):
    quiet = {"color": "keep"} if task_class is RelativePosition else {}
    plain, _ = made_by(task_class, **quiet)
    saved, _ = made_by(task_class, jpeg_quality=(60, 80), **quiet)
    apart = (plain.inputs - saved.inputs).abs()
    assert (apart.flatten(2).mean(-1) > 0).all()
    assert apart.mean() < 0.05


@pytest.mark.parametrize("options", [{"color": "keep"}, {"color": "gray"}, {"color": "project"}])
def test_standardized_inputs_of_relative_position(options):
    batch, _ = made_by(RelativePosition, form="pairs", standardize=True, **options)
    patches = batch.inputs.flatten(0, 1).flatten(1)
    torch.testing.assert_close(patches.mean(1), torch.full((12,), 0.5), rtol=0, atol=0.01)
    torch.testing.assert_close(patches.std(1), torch.full((12,), 1 / 6), rtol=0, atol=0.02)


def test_noise_of_dropped_channels_is_not_standardized():
    plain, geometry = made_by(RelativePosition, color="drop")
    batch, _ = made_by(RelativePosition, color="drop", standardize=True)
    is_kept = np.arange(3) == geometry["channel"].reshape(6, 9)[..., None]
    assert torch.equal(batch.inputs[~is_kept], plain.inputs[~is_kept])
    torch.testing.assert_close(batch.inputs[is_kept].mean((1, 2)), torch.full((54,), 0.5), rtol=0, atol=0.01)


@pytest.mark.cuda
@pytest.mark.parametrize("quality", [10, 60, 95])
def test_the_gpu_recompresses_as_libjpeg_does(quality):
    pixels, levels = photos(8, 96), np.full(8, quality)
    apart = levels_apart(recompressed(pixels.cuda(), levels).cpu(), recompressed(pixels, levels))
    assert apart.mean() <= 0.9
    assert np.percentile(apart, 99) <= 12


@pytest.mark.cuda
def test_the_gpu_standardizes_alike():
    planes = torch.rand(8, 3, 96, 96)
    torch.testing.assert_close(standardized(planes.cuda()).cpu(), standardized(planes), rtol=0, atol=1e-5)


def test_opencv_saves_as_pillow_does():
    # Both are libjpeg; were OpenCV built otherwise, its chroma would be kept whole and the guard weaker.
    rgb = photos(1)[0].numpy()
    encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    header = Image.open(io.BytesIO(encoded.tobytes()))
    assert header.layer[0][1:3] == (2, 2)
