"""Colors of patches: what a CPU writes in compiled loops is what the batch operations for a device give."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from pipelines.base.buffer_pool import BufferPool
from pipelines.targets.views import patch_colors, resampling
from pipelines.targets.views.patch_colors import Cuts, PatchColor, cut_patches
from tests.made.pictures import smooth_picture

PATCH_PX = 24


def canvases(count: int, side_px: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.stack([smooth_picture(seed, side_px, side_px) for seed in range(count)]))


def cuts_of(num_patches: int, *, resampled: bool = False, saved: bool = False) -> Cuts:
    rng = np.random.default_rng(1)
    small = rng.integers(4, PATCH_PX, num_patches)
    return Cuts(
        corner_xy=rng.integers(0, 64 - PATCH_PX + 1, (num_patches, 2)).astype(np.int32),
        resample_px=np.where(rng.random(num_patches) < 0.5, small, PATCH_PX) if resampled else small * 0 + PATCH_PX,
        channel=rng.integers(0, 3, num_patches),
        noise_start=rng.integers(0, patch_colors.NUM_NOISE_STARTS, num_patches),
        jpeg_quality=rng.integers(50, 90, num_patches) if saved else None,
    )


def cut(cuts: Cuts, color: PatchColor, *, standardize: bool = False) -> torch.Tensor:
    return cut_patches(canvases(3), cuts, color, PATCH_PX, BufferPool(), standardize=standardize)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("color", ["drop", "project", "gray", "keep"])
def test_the_way_of_a_device_gives_the_same(color: PatchColor, saved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = cuts_of(12, resampled=True, saved=saved)
    compiled, even = cut(cuts, color), cut(cuts, color, standardize=True)

    def on_device(of, pixels, cuts, **options):
        return of(patch_colors._crop_device(pixels, cuts.corner_xy, PATCH_PX), cuts, **options)

    monkeypatch.setattr(patch_colors, "_drop_cpu", lambda *a: on_device(patch_colors._drop_device, *a[:2]))
    monkeypatch.setattr(patch_colors, "_gray_cpu", lambda *a, **b: on_device(patch_colors._gray_device, *a[:2], **b))
    monkeypatch.setattr(patch_colors, "_crop_cpu", patch_colors._crop_device)
    monkeypatch.setattr(resampling, "resampled_cpu", resampling.resampled_device)
    torch.testing.assert_close(cut(cuts, color), compiled, atol=1e-5, rtol=0)
    torch.testing.assert_close(cut(cuts, color, standardize=True), even, atol=1e-4, rtol=0)


def test_gray_is_the_lightness_of_scikit_image() -> None:
    cuts, pixels = cuts_of(6), canvases(3).numpy()
    planes = cut(cuts, "gray").numpy()
    for row, (x, y) in enumerate(cuts.corner_xy):
        expected = rgb2lab(pixels[row // 2, y : y + PATCH_PX, x : x + PATCH_PX])[..., 0] / 100
        np.testing.assert_allclose(planes[row], np.stack([expected] * 3), atol=4e-4)


def test_each_patch_is_cut_from_its_own_canvas_at_its_own_place() -> None:
    cuts, pixels = cuts_of(9), canvases(3).numpy()
    planes = cut(cuts, "keep").permute(0, 2, 3, 1).mul(255).round().byte().numpy()
    for row, (x, y) in enumerate(cuts.corner_xy):
        expected = Image.fromarray(pixels[row // 3]).crop((x, y, x + PATCH_PX, y + PATCH_PX))
        assert np.array_equal(planes[row], np.asarray(expected))


def test_gray_patches_take_the_memory_of_one_plane() -> None:
    planes = cut(cuts_of(6), "gray")
    assert planes.shape == (6, 3, PATCH_PX, PATCH_PX)
    assert planes.stride(1) == 0


@pytest.mark.parametrize("color", ["drop", "project", "gray", "keep"])
def test_standardized_patches_have_the_same_mean_but_for_noise(color: PatchColor) -> None:
    cuts = cuts_of(6)
    planes = cut(cuts, color, standardize=True)
    kept = planes[torch.arange(6), torch.from_numpy(cuts.channel)] if color == "drop" else planes.flatten(1, 2)
    torch.testing.assert_close(kept.flatten(1).mean(1), torch.full((6,), 0.5), atol=0.01, rtol=0)


def test_dropping_without_a_drawn_channel_is_refused() -> None:
    cuts = Cuts.of({"corner_xy": np.zeros((1, 1, 9, 2), np.int32), "resample_px": np.full((1, 1, 9), PATCH_PX)})
    with pytest.raises(ValueError, match="needs a channel"):
        cut_patches(canvases(1), cuts, "drop", PATCH_PX, BufferPool())
