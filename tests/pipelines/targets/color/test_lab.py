"""Lab against scikit-image, the 313 bins against the published list."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from pipelines.targets.color import lab as color
from pipelines.targets.color.soft_encoding import soft_encode

PUBLISHED = Path(__file__).parents[5] / "shared" / "data" / "ab_bins_313.csv"


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))


def test_lab_of_random_colors_is_that_of_skimage(pixels: torch.Tensor) -> None:
    expected = rgb2lab(pixels.numpy())
    np.testing.assert_allclose(color.rgb_to_lab(pixels.float() / 255), expected, atol=2e-3)


@pytest.mark.parametrize("rgb", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (1, 2, 3)])
def test_lab_of_extreme_colors_is_that_of_skimage(rgb: tuple[int, int, int]) -> None:
    one = torch.tensor([[rgb]], dtype=torch.float64) / 255
    np.testing.assert_allclose(color.rgb_to_lab(one), rgb2lab(one.numpy()), atol=1e-3)


def test_lab_to_rgb_is_that_of_skimage_and_inverts(pixels: torch.Tensor) -> None:
    lab = rgb2lab(pixels.numpy()).astype(np.float32)
    np.testing.assert_allclose(color.lab_to_rgb(torch.from_numpy(lab)), lab2rgb(lab), atol=2e-4)
    np.testing.assert_allclose(color.lab_to_rgb(torch.from_numpy(lab)), pixels.numpy() / 255, atol=2e-3)


def test_lab_outside_srgb_is_clipped() -> None:
    rgb = color.lab_to_rgb(torch.tensor([[50.0, 120.0, -120.0], [100.0, 80.0, 80.0], [0.0, 0.0, 0.0]]))
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    assert rgb.isfinite().all()


def test_lightness_is_that_of_skimage_within_8_bits(pixels: torch.Tensor) -> None:
    expected = rgb2lab(pixels.numpy())[..., 0] / 100
    difference = np.abs(color.lightness(pixels).numpy() - expected)
    assert difference.max() < 1.5 / 255
    assert difference.mean() < 0.4 / 255


def test_device_lightness_is_that_of_skimage(pixels: torch.Tensor) -> None:
    expected = rgb2lab(pixels.numpy())[..., 0] / 100
    np.testing.assert_allclose(color.lightness_torch(pixels), expected, atol=1e-5)


def test_lightness_spans_0_to_1() -> None:
    black_white = torch.tensor([[[0, 0, 0], [255, 255, 255]]], dtype=torch.uint8)
    for path in (color.lightness, color.lightness_torch):
        assert path(black_white).tolist() == [[0.0, 1.0]]


def test_lightness_keeps_leading_axes_and_takes_views(pixels: torch.Tensor) -> None:
    clip = pixels.view(2, 4, 8, 32, 3)
    assert color.lightness(clip).shape == (2, 4, 8, 32)
    flipped = pixels.flip(2)[:, ::2]
    assert torch.equal(color.lightness(flipped), color.lightness(pixels).flip(2)[:, ::2])


def test_lightness_of_any_number_of_pixels(pixels: torch.Tensor) -> None:
    colors = pixels.reshape(-1, 3)
    for count in range(10):
        expected = torch.cat([color.lightness(one) for one in colors[:count].split(1)]) if count else torch.empty(0)
        assert torch.equal(color.lightness(colors[:count]), expected)


def test_lightness_does_not_change_its_input(pixels: torch.Tensor) -> None:
    before = pixels.clone()
    color.lightness(pixels), color.ab_at_stride(pixels)
    assert torch.equal(pixels, before)


def test_ab_at_stride_is_the_color_of_the_mean_of_each_block(pixels: torch.Tensor) -> None:
    mean = pixels.numpy().reshape(2, 4, 8, 4, 8, 3).astype(float).mean((2, 4)).round()
    expected = rgb2lab(mean.astype(np.uint8))[..., 1:]
    np.testing.assert_allclose(color.ab_at_stride(pixels), expected, atol=0.012)  # steps of 1/64


def test_the_largest_stride_takes_whole_sums_and_none_is_larger() -> None:
    white = torch.full((1, 512, 512, 3), 255, dtype=torch.uint8)
    assert not color.ab_at_stride(white, 256).any()
    assert color._blocks_cpu(white, 256).eq(255).all()
    with pytest.raises(ValueError, match="stride 512; need 1 to 256"):
        color.ab_at_stride(white, 512)


def test_a_side_that_is_no_multiple_of_the_stride_is_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"pixels of \(32, 30\); need height and width in multiples of 8"):
        color.ab_at_stride(pixels[:, :, :30])


@pytest.mark.parametrize(("height", "stride"), [(32, 8), (520, 8), (600, 300)])
def test_both_block_means_are_numpys(height: int, stride: int) -> None:
    levels = np.random.default_rng(4).integers(0, 256, (3, height, stride * 2, 3), dtype=np.uint8)
    levels[0] //= 128  # many means that lie just between two levels
    expected = np.rint(levels.reshape(3, height // stride, stride, 2, stride, 3).mean((2, 4)))
    for path in (color._blocks_cpu, color._blocks_torch):
        np.testing.assert_array_equal(path(torch.from_numpy(levels), stride), expected)


def test_ab_of_gray_is_exactly_zero_at_every_level() -> None:
    gray = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 8, 8, 3)
    assert not color.ab_at_stride(gray).any()


def test_a_batch_taller_than_16_bit_coordinates_is_whole() -> None:
    tall = torch.zeros((140, 256, 256, 3), dtype=torch.uint8)
    tall[-1] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    assert color.lightness(tall)[-1].mean() == pytest.approx(0.5324, abs=1 / 255)
    assert color.ab_at_stride(tall)[-1, 0, 0].tolist() == pytest.approx([80.09, 67.20], abs=0.02)
    assert not color.ab_at_stride(tall)[:-1].any()


def test_images_have_color_above_5() -> None:
    ab = torch.zeros(4, 2, 2, 2)
    ab[1, 0, 0, 0], ab[2, 1, 1, 1], ab[3, 0, 0, 0] = 5.1, -5.1, 5.0
    assert color.has_color(ab).tolist() == [False, True, True, False]


def test_bins_are_the_published_list_in_order() -> None:
    if not PUBLISHED.is_file():
        pytest.skip("the published list is not beside this checkout")
    np.testing.assert_array_equal(color.ab_bins(), np.loadtxt(PUBLISHED, delimiter=",", skiprows=1))


def test_bins_are_golden() -> None:
    # The index of a bin is a class of every trained head: a change here makes all checkpoints wrong.
    bins = color.ab_bins()
    assert (bins.shape, bins.dtype) == ((313, 2), np.float32)
    assert bins[[0, 1, 156, 312]].tolist() == [[-90, 50], [-90, 60], [20, -10], [100, 0]]
    assert hashlib.sha256(bins.astype("<i2").tobytes()).hexdigest()[:16] == "e74b520cf1929e90"


def test_bins_cannot_be_changed_by_a_caller() -> None:
    with pytest.raises(ValueError, match="read-only"):
        color.ab_bins()[0] = 0


def touched_cells(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Which cells of 10 x 10 ab colors fall into, bool (40, 40), by a third Lab: floats of linear light."""
    matrix = np.array([[0.412453, 0.35758, 0.180423], [0.212671, 0.71516, 0.072169], [0.019334, 0.119193, 0.950227]])
    matrix /= np.array([[0.95047], [1.0], [1.08883]])
    xyz = [row[0] * red + row[1] * green + row[2] * blue for row in matrix]
    x, y, z = (np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116) for t in xyz)
    touched = np.zeros((40, 40), bool)
    touched[np.floor(50 * (x - y)).astype(int) + 20, np.floor(20 * (y - z)).astype(int) + 20] = True
    return touched


@pytest.mark.slow
def test_all_16_million_colors_touch_no_other_cells_than_the_bright_faces() -> None:
    level = np.arange(256) / 255
    linear = np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)
    everything = np.any([touched_cells(linear[:, None], linear[None], blue) for blue in linear], axis=0)
    bright = touched_cells(*linear[color._bright_colors().numpy().T])
    assert np.array_equal(everything, bright)
    assert everything.sum() == 268


def test_decode_bins_is_the_weighted_mean_color() -> None:
    ab = torch.from_numpy(np.random.default_rng(2).uniform(-30, 30, (100, 2)).astype(np.float32))
    # Five unevenly placed neighbours pull the mean by at most a few units.
    assert (color.decode_bins(*soft_encode(ab, 5)) - ab).abs().max() < 5
    hard = color.decode_bins(*soft_encode(ab, 1))
    assert torch.equal(hard, torch.tensor(color.ab_bins())[soft_encode(ab, 1)[0][:, 0]])


def test_decode_ab_anneals_between_mean_and_mode() -> None:
    bins = color.ab_bins()
    probabilities = torch.zeros(313)
    probabilities[10], probabilities[200] = 0.75, 0.25
    mean = 0.75 * bins[10] + 0.25 * bins[200]
    share = 3 ** (1 / 0.38) / (3 ** (1 / 0.38) + 1)
    np.testing.assert_allclose(color.decode_ab(probabilities, temperature=1), mean, atol=1e-3)
    np.testing.assert_allclose(color.decode_ab(probabilities, temperature=0.01), bins[10], atol=1e-3)
    np.testing.assert_allclose(color.decode_ab(probabilities), share * bins[10] + (1 - share) * bins[200], atol=1e-3)
