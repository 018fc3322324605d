"""Geometry on canvases that hold their own coordinates; what a batch holds and promises."""

import cv2
import numpy as np
import pytest
import torch

from pipelines.base.batch_rng import BatchRng
from pipelines.base.buffer_pool import BufferPool
from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.targets.color.lab import lightness
from pipelines.targets.views import view_warp
from pipelines.tasks import exemplar
from pipelines.tasks.base import CanvasSpec, Geometry
from pipelines.tasks.exemplar import Exemplar, ExemplarConfig
from tests.made.exemplar_views import one_view, photos

STILL = {"translation_ratio": 0, "scale": (1, 1), "rotation_deg": 0}
PLAIN = {"pca_factor": (1, 1), "power": (1, 1), "factor": (1, 1), "shift": 0, "hue_shift": 0}


def task(canvas_px: int = 96, *, gray: bool = False, **options: object) -> Exemplar:
    return Exemplar(ExemplarConfig.model_validate(options), CanvasSpec(canvas_px=canvas_px), lightness=gray)


def drawn(of: Exemplar, count: int) -> Geometry:
    return of.draw(BatchRng(0, [0] * count, names(count), of.name))


def names(count: int) -> list[str]:
    return [str(row) for row in range(count)]


def ramp(side_px: int = 96) -> torch.Tensor:
    """uint8 (1, S, S, 3): red is x, green is y, so a linear sample of it is a position."""
    pixels = torch.full((1, side_px, side_px, 3), 128, dtype=torch.uint8)
    steps = torch.arange(side_px).to(torch.uint8)
    pixels[..., 0], pixels[..., 1] = steps, steps[:, None]
    return pixels


def levels(words: np.ndarray) -> np.ndarray:
    """uint8 (N, P, P, 3)."""
    return np.stack([words & 255, words >> 8 & 255, words >> 16 & 255], axis=-1).astype(np.uint8)


def positions(of: Exemplar, view: Geometry) -> np.ndarray:
    """(2, P, P): x and y of the canvas pixel each pixel of the view came from."""
    return of._make_cpu(ramp(of.canvas.canvas_px), view)[0, :2].numpy() * 255


def test_a_neutral_view_is_the_crop_itself() -> None:
    of = task(**PLAIN, **STILL)
    pixels, geometry = photos(3), drawn(of, 3)
    geometry["centre_xy"] = np.round(geometry["centre_xy"])
    inputs = of.make(pixels, geometry, names(3)).inputs
    for row, centre_xy in enumerate(geometry["centre_xy"].astype(int)):
        x, y = centre_xy[0] - 18
        crop = pixels[row, y : y + 36, x : x + 36].permute(2, 0, 1).float() / 255
        torch.testing.assert_close(inputs[row, 0], crop, atol=1e-5, rtol=0)


def test_both_views_show_the_same_square_before_they_are_moved() -> None:
    of = task(**STILL)
    centre_xy = drawn(of, 50)["centre_xy"]
    np.testing.assert_array_equal(centre_xy[:, 0], centre_xy[:, 1])
    assert centre_xy.min() >= 18
    assert centre_xy.max() <= 96 - 18
    assert centre_xy.min() < 22
    assert centre_xy.max() > 96 - 22


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.2])
def test_scale_is_the_step_between_pixels(scale: float) -> None:
    x, y = positions(task(), one_view(scale=scale))
    expected = 48 - 0.5 + (np.arange(36) - 17.5) * scale
    # 8 bits leave half a level; twice that where two of them are averaged.
    np.testing.assert_allclose(x, np.broadcast_to(expected, (36, 36)), atol=1.05)
    np.testing.assert_allclose(y, np.broadcast_to(expected[:, None], (36, 36)), atol=1.05)
    assert abs((x - expected).mean()) < 0.5


def test_rotation_turns_around_the_centre() -> None:
    upright = positions(task(), one_view())
    turned = positions(task(), one_view(rotation_deg=90))
    np.testing.assert_allclose(turned, np.rot90(upright, 1, (1, 2)), atol=1.01)
    angled = positions(task(), one_view(rotation_deg=30))
    slope = (angled[1, 17, 35] - angled[1, 17, 0]) / (angled[0, 17, 35] - angled[0, 17, 0])
    assert np.rad2deg(np.arctan(slope)) == pytest.approx(30, abs=2)


def test_a_view_beyond_the_border_is_mirrored() -> None:
    x, _ = positions(task(), one_view(centre_xy=(8, 48)))
    assert x.min() >= 0
    expected = np.abs(8 - 0.5 + np.arange(36) - 17.5)
    np.testing.assert_allclose(x, np.broadcast_to(expected, (36, 36)), atol=0.51)


@pytest.mark.parametrize("scale", [2, 3])
def test_shrinking_does_not_alias(scale: float) -> None:
    stripes = torch.zeros(1, 192, 192, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    view = task(192, patch_px=36)._make_cpu(stripes, one_view(scale=scale, centre_xy=(96, 96)))
    assert view.std() < 0.02


@pytest.mark.parametrize("scale", [0.5, 1, 1.02, 1.2, 1.4, 2, 3, 5])
def test_smoothing_adds_the_blur_that_sampling_lacks(scale: float) -> None:
    (weights,), (reach,) = view_warp.gaussian_weights(np.array([scale]))
    weights = weights / 256
    places = np.arange(len(weights)) - reach
    assert weights.sum() == 1
    assert weights.min() >= 0
    assert np.array_equal(weights, weights[::-1])
    assert (weights * places**2).sum() == pytest.approx(max(scale**2 - 1, 0) / 6, rel=0.06, abs=0.008)


def test_a_view_is_the_same_beside_views_of_other_scales() -> None:
    views = [one_view(scale=scale, centre_xy=(128, 128)) for scale in (3.0, 1.4, 0.7, 2.0)]
    canvases, scale = photos(4, 256).numpy(), np.concatenate([view["scale"] for view in views])
    affine = np.concatenate([exemplar._inverse_affine(view, 36) for view in views])
    together = view_warp.warped_cpu(canvases, affine, scale, 36, BufferPool())[0]
    for n in range(4):
        one = slice(n, n + 1)
        alone = view_warp.warped_cpu(canvases[one], affine[one], scale[one], 36, BufferPool())[0]
        np.testing.assert_array_equal(together[one], alone)


@pytest.mark.parametrize("centre_xy", [(48, 48), (4, 4), (200, 130), (252, 252), (130, 250), (-40, 300), (-700, 90)])
@pytest.mark.parametrize("scale", [0.7, 1.4, 2.5])
def test_a_view_of_a_part_is_that_of_the_whole_canvas(centre_xy: tuple[int, int], scale: float) -> None:
    view = one_view(scale=scale, centre_xy=centre_xy, rotation_deg=17)
    affine, canvas = exemplar._inverse_affine(view, 96), photos(1, 256)
    weights = view_warp.gaussian_weights(np.array([scale]))[0][0] / 256
    smooth = cv2.sepFilter2D(canvas[0].numpy(), -1, weights, weights, borderType=cv2.BORDER_REFLECT_101)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(smooth, affine[0], (96, 96), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    out = levels(view_warp.warped_cpu(canvas.numpy(), affine, view["scale"], 96, BufferPool())[0])[0]
    assert np.abs(out.astype(int) - expected).max() <= 1


def test_weights_of_views_that_differ_have_one_middle() -> None:
    weights, reach = view_warp.gaussian_weights(np.array([0.7, 1.4, 3.0]))
    assert weights.sum(axis=1).tolist() == [256, 256, 256]
    assert np.array_equal(weights, weights[:, ::-1])
    for row, its_reach in zip(weights, reach, strict=True):
        middle = len(row) // 2
        assert not row[: middle - its_reach].any()
        assert row[middle - its_reach] > 0


def test_numbers_are_drawn_within_their_ranges_and_reach_them() -> None:
    geometry = drawn(task(), 400)
    bounds = {
        "scale": (0.7, 1.4),
        "rotation_deg": (-20, 20),
        "pca_factor": (0.5, 2),
        "power": (0.25, 4),
        "factor": (0.7, 1.4),
        "shift": (-0.1, 0.1),
        "hue_shift": (-0.1, 0.1),
    }
    for name, (low, high) in bounds.items():
        assert low <= geometry[name].min() < low + 0.02 * (high - low)
        assert high - 0.05 * (high - low) < geometry[name].max() <= high
    between_views = geometry["centre_xy"][:, 0] - geometry["centre_xy"][:, 1]
    assert 0.3 * 36 < np.abs(between_views).max() <= 0.4 * 36
    # Log-uniform: as many powers above 1 as below; 1600 draws, standard deviation 0.0125.
    assert abs((geometry["power"] > 1).mean() - 0.5) < 0.06


def test_one_sample_is_drawn_like_a_batch_but_without_its_axis() -> None:
    one, many = task(256).draw(np.random.default_rng(0)), drawn(task(256), 3)
    assert {name: (3, *value.shape) for name, value in one.items()} == {name: v.shape for name, v in many.items()}


def test_geometry_is_golden() -> None:
    # A change here changes every pretraining run: it must be deliberate.
    geometry = task(256).draw(BatchRng(0, [0], ["sample"], "exemplar"))
    rounded = {name: np.round(geometry[name].ravel()[:2], 4).tolist() for name in ("centre_xy", "scale", "power")}
    assert rounded == {"centre_xy": [130.0557, 182.5604], "scale": [1.1259, 0.8096], "power": [2.7932, 1.2416]}


def test_gray_images_get_no_colored_grain() -> None:
    gray = photos(6)[..., :1].expand(-1, -1, -1, 3).contiguous()
    inputs = task().make(gray, drawn(task(), 6), names(6)).inputs
    assert (inputs.amax(2) - inputs.amin(2)).max() < 0.002


def test_the_two_paths_agree() -> None:
    of = task(256)
    geometry = drawn(of, 12)
    views = {name: geometry[name].reshape(-1, *geometry[name].shape[2:]) for name in exemplar.DRAWN}
    pixels = photos(12, 256)
    matrices = exemplar._inverse_affine(views, 96)
    warped = view_warp.warped_torch(pixels, matrices, views["scale"], 96).numpy()
    patches = levels(view_warp.warped_cpu(pixels.numpy(), matrices, views["scale"], 96, BufferPool())[0])
    assert np.abs(patches[..., :3].astype(int) - warped).max() <= 1
    difference = (of._make_cpu(pixels, views) - of._make_device(pixels, views)).abs()
    assert (difference > 2 / 255).float().mean() < 1e-3


def test_the_negative_is_the_next_other_image() -> None:
    def negatives(keys: str) -> tuple[list[int], list[float]]:
        rows, has = exemplar._negatives(list(keys))
        return rows.tolist(), has.tolist()

    assert negatives("abc") == ([1, 2, 0], [1, 1, 1])
    assert negatives("aab") == ([2, 2, 0], [1, 1, 1])
    assert negatives("aba") == ([1, 2, 1], [1, 1, 1])
    assert negatives("aa") == ([0, 1], [0, 0])
    assert negatives("a") == ([0], [0])
    assert negatives("") == ([], [])


def test_one_image_alone_teaches_nothing() -> None:
    batch = task().make(photos(1), drawn(task(), 1), ["a"])
    assert batch.weight.tolist() == [0]
    assert batch.target["negative"].tolist() == [0]


def test_harmonized_views_are_the_lightness_of_the_colored_ones() -> None:
    pixels, geometry = photos(4), drawn(task(), 4)
    colored = task().make(pixels, geometry, names(4)).inputs.mul(255).round().to(torch.uint8)
    gray = task(gray=True).make(pixels, geometry, names(4)).inputs
    expected = lightness(colored.permute(0, 1, 3, 4, 2))
    assert torch.equal(gray, expected.unsqueeze(2).expand(-1, -1, 3, -1, -1))


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("options", [{}, {"patch_px": 25}, {"scale": (0.2, 3.0), "rotation_deg": 180.0}])
def test_the_batch_keeps_what_the_spec_promises(gray: bool, options: dict[str, object]) -> None:
    of = task(gray=gray, **options)
    batch = of.make(photos(5), drawn(of, 5), names(5))
    for name, tensor in {"inputs": batch.inputs, "weight": batch.weight, **batch.target}.items():
        promise = of.spec(5)[name]
        assert (tuple(tensor.shape), tensor.dtype) == (promise.shape, promise.dtype)
        assert promise.low <= tensor.min() <= tensor.max() <= promise.high


@pytest.mark.parametrize("patch_px", [25, 36])
def test_a_view_depends_to_the_bit_on_its_own_sample_alone(patch_px: int) -> None:
    # 11 samples are 22 views: two groups of 8 and one of 6. 25² pixels end in the middle of a vector.
    of, pixels = task(patch_px=patch_px), photos(11)
    geometry = drawn(of, 11)
    together = of.make(pixels, geometry, names(11)).inputs
    for row in range(11):
        own = {name: value[row : row + 1] for name, value in geometry.items()}
        assert torch.equal(of.make(pixels[row : row + 1], own, [str(row)]).inputs[0], together[row])


def test_a_patch_larger_than_the_canvas_is_refused() -> None:
    with pytest.raises(UsageError, match="exemplar: needs a canvas of at least 97 px, canvas_px is 96"):
        task(patch_px=97)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("patch_px", 1),
        ("scale", [1.4, 0.7]),
        ("scale", [0, 1]),
        ("power", [1]),
        ("shift", -0.1),
        ("hue_shift", 0.6),
        ("rotation_deg", 200),
        ("rotation", 3),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=option):
        validate(ExemplarConfig, {option: value}, source="x.yaml")


@pytest.mark.cuda
def test_the_gpu_gives_the_same_views() -> None:
    of = task(256)
    pixels, geometry = photos(12, 256), drawn(of, 12)
    cpu, gpu = of.make(pixels, geometry, names(12)), of.make(pixels.cuda(), geometry, names(12)).to("cpu")
    assert torch.equal(cpu.target["negative"], gpu.target["negative"])
    assert ((cpu.inputs - gpu.inputs).abs() > 2 / 255).float().mean() < 1e-3
