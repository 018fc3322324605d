"""Canvases whose pixels hold their own coordinates show where each patch was cut, and that the label is right.

Here with `form: pairs` and color drop, as in the first versions; grids in test_relative_position_grids.py.
"""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from skimage.transform import resize as skimage_resize

from pipelines.base.batch_rng import BatchRng
from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.targets.color.lab import lightness
from pipelines.targets.views import resampling
from pipelines.tasks.base import CanvasSpec, Geometry, TaskBatch
from pipelines.tasks.relative_position import RelativePosition, RelativePositionConfig

PLACES = {
    (-1, -1): 0, (0, -1): 1, (1, -1): 2,
    (-1, 0): 3, (1, 0): 4,
    (-1, 1): 5, (0, 1): 6, (1, 1): 7,
}  # fmt: skip
PLAIN = {"color": "keep", "resample_probability": 0}


def task(canvas_px: int = 256, *, gray: bool = False, **options: object) -> RelativePosition:
    config = RelativePositionConfig.model_validate({"form": "pairs", "color": "drop", "standardize": False} | options)
    return RelativePosition(config, CanvasSpec(canvas_px=canvas_px), lightness=gray)


def drawn(of: RelativePosition, count: int, seed: int = 0) -> Geometry:
    return of.draw(BatchRng(seed, [0] * count, [str(key) for key in range(count)], of.name))


def make(of: RelativePosition, pixels: torch.Tensor) -> TaskBatch:
    return of.make(pixels, drawn(of, len(pixels)), [str(row) for row in range(len(pixels))])


def coordinates(count: int, side_px: int = 256) -> torch.Tensor:
    """uint8 (count, S, S, 3): red is x, green is y, blue is the number of the canvas."""
    pixels = torch.empty(count, side_px, side_px, 3, dtype=torch.uint8)
    steps = torch.arange(side_px).to(torch.uint8)
    pixels[..., 0], pixels[..., 1] = steps, steps[:, None]
    pixels[..., 2] = torch.arange(count).view(-1, 1, 1).to(torch.uint8)
    return pixels


def photos(count: int, side_px: int = 256) -> torch.Tensor:
    """Smooth random colors."""
    small = np.random.default_rng(5).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return torch.from_numpy(np.stack([cv2.resize(one, (side_px, side_px)) for one in small]))


def test_the_label_is_the_place_of_the_neighbour_for_all_8_places() -> None:
    of = task(**PLAIN)
    batch = make(of, coordinates(100))
    corner_xy = (batch.inputs[:, :, :2, 0, 0] * 255).round().int()
    offset = (corner_xy[:, 1] - corner_xy[:, 0]).numpy()
    # Beyond 1/4 of the patch it is a step to the next cell, below that it is jitter.
    found = [PLACES[tuple(row)] for row in (np.sign(offset) * (np.abs(offset) > 24)).tolist()]
    assert batch.target["position"].tolist() == found
    assert set(found) == set(range(8))


def test_each_patch_is_cut_whole_from_its_own_canvas() -> None:
    of = task(**PLAIN, pairs_per_image=3)
    batch = make(of, coordinates(7))
    levels = (batch.inputs * 255).round().int()
    assert levels.shape == (21, 2, 3, 96, 96)
    assert torch.equal(levels[:, :, 2], torch.arange(7).repeat_interleave(3).view(21, 1, 1, 1).expand(21, 2, 96, 96))
    steps = torch.arange(96)
    assert (levels[:, :, 0] - levels[:, :, 0, :1, :1] == steps).all()
    assert (levels[:, :, 1] - levels[:, :, 1, :1, :1] == steps[:, None]).all()


def test_gap_and_jitter_keep_their_bounds_and_use_them() -> None:
    offset, direction = [], []
    for geometry in (task().draw(np.random.default_rng(seed)) for seed in range(3000)):
        corner_xy = geometry["corner_xy"][0]
        offset.append(corner_xy[1] - corner_xy[0])
        direction.append(next(xy for xy, place in PLACES.items() if place == geometry["position"][0]))
    rest = np.array(offset) - 144 * np.array(direction)
    assert np.abs(rest).max() <= 14
    assert rest.min() < -11
    assert rest.max() > 11


@settings(max_examples=80, deadline=None)
@given(
    canvas_px=st.integers(16, 300),
    patch_px=st.integers(1, 120),
    gap_px=st.integers(0, 60),
    jitter_px=st.integers(0, 20),
    seed=st.integers(0, 10**6),
)
def test_patches_lie_in_the_canvas_and_do_not_overlap(
    canvas_px: int, patch_px: int, gap_px: int, jitter_px: int, seed: int
) -> None:
    assume(2 * patch_px + gap_px + 2 * jitter_px <= canvas_px)
    of = task(canvas_px, patch_px=patch_px, gap_px=gap_px, jitter_px=jitter_px, pairs_per_image=8)
    corner_xy = of.draw(np.random.default_rng(seed))["corner_xy"]
    assert corner_xy.min() >= 0
    assert corner_xy.max() + patch_px <= canvas_px
    distance = np.abs(corner_xy[:, 1] - corner_xy[:, 0]).max(-1)
    assert (distance >= patch_px + gap_px - 2 * jitter_px).all()


def test_places_are_equally_frequent_and_straight_pairs_roam() -> None:
    geometry = drawn(task(pairs_per_image=64), 60)
    counts = np.bincount(geometry["position"].ravel(), minlength=8)
    # 3840 draws: 480 each, standard deviation 20.5.
    assert np.abs(counts - 480).max() < 5 * 20.5
    left_right = np.isin(geometry["position"], (3, 4))
    y = geometry["corner_xy"][left_right][:, :, 1]
    assert y.min() < 8
    assert y.max() > 256 - 96 - 8


@pytest.mark.parametrize(
    ("canvas_px", "expected"), [(256, (96, 48, 7)), (384, (144, 72, 10)), (96, (36, 18, 3)), (64, (24, 12, 2))]
)
def test_lengths_scale_with_the_canvas(canvas_px: int, expected: tuple[int, int, int]) -> None:
    of = task(canvas_px)
    assert (of.patch_px, of.grid.gap_px, of.grid.jitter_px) == expected


@pytest.mark.parametrize("canvas_px", range(8, 400, 7))
def test_default_lengths_fit_every_canvas(canvas_px: int) -> None:
    of = task(canvas_px)
    assert 2 * of.patch_px + of.grid.gap_px + 2 * of.grid.jitter_px <= canvas_px


@pytest.mark.parametrize("canvas_px", [9, 17, 33, 100])
def test_small_and_odd_canvases_make_whole_batches(canvas_px: int) -> None:
    inputs = make(task(canvas_px, resample_probability=1), photos(4, canvas_px)).inputs
    assert inputs.isfinite().all()


def test_a_layout_that_does_not_fit_is_refused_with_the_size_needed() -> None:
    with pytest.raises(UsageError, match="relative_position: needs a canvas of at least 274 px, canvas_px is 256"):
        task(gap_px=48, jitter_px=17)


@pytest.mark.parametrize(
    ("option", "value"),
    [("patch_px", 0), ("gap_px", -4), ("jitter_px", -1), ("pairs_per_image", 0), ("color", "sepia"), ("gap", 4)],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=option):
        validate(RelativePositionConfig, {option: value}, source="x.yaml")


def test_geometry_is_golden() -> None:
    # A change here changes every pretraining run: it must be deliberate.
    geometry = task().draw(BatchRng(0, [0], ["sample"], "relative_position"))
    assert {name: value.tolist() for name, value in geometry.items()} == {
        "position": [[5]],
        "corner_xy": [[[[150, 12], [14, 156]]]],
        "channel": [[[0, 2]]],
        "noise_start": [[[105283, 1037461]]],
        "resample_px": [[[96, 96]]],
    }


def test_the_choice_of_color_moves_no_patch() -> None:
    first, *others = (drawn(task(color=color), 5) for color in ("drop", "project", "gray", "keep"))
    for other in others:
        assert first.keys() == other.keys()
        assert all(np.array_equal(first[name], other[name]) for name in first)


def test_drop_keeps_one_channel_of_each_patch() -> None:
    of = task(color="drop", resample_probability=0)
    pixels = photos(30)
    geometry = drawn(of, 30)
    batch = of.make(pixels, geometry, [""] * 30)
    kept = task(**PLAIN).make(pixels, geometry, [""] * 30).inputs
    is_kept = (batch.inputs == kept).flatten(3).all(-1)
    assert (is_kept.sum(-1) == 1).all()
    assert torch.equal(is_kept.int().argmax(-1), torch.from_numpy(geometry["channel"][:, 0]))
    assert (is_kept[:, 0] != is_kept[:, 1]).any()
    assert is_kept.flatten(0, 1).any(0).all()


def test_dropped_channels_are_noise_of_one_level_around_the_mean() -> None:
    batch = make(task(color="drop"), torch.zeros(20, 256, 256, 3, dtype=torch.uint8))
    for channel, mean in enumerate((123.68, 116.779, 103.939)):
        values = batch.inputs[:, :, channel].flatten(2) * 255
        dropped = values[values.mean(-1) > 1]
        assert (dropped - mean).abs().max() <= 0.501
        # The standard deviation of a uniform number over one level is 0.289.
        np.testing.assert_allclose(dropped.std(-1), 0.289, atol=0.01)


def test_noise_differs_between_patches_and_repeats_for_the_same_geometry() -> None:
    pixels = torch.zeros(8, 64, 64, 3, dtype=torch.uint8)
    one, two = make(task(64), pixels).inputs, make(task(64), pixels).inputs
    assert torch.equal(one, two)
    assert len(one.flatten(0, 1).flatten(1).unique(dim=0)) == 16


def test_project_removes_green_magenta_and_nothing_of_gray() -> None:
    inputs = make(task(color="project", resample_probability=0), photos(5)).inputs
    amount = torch.einsum("rvchw,c->rvhw", inputs, torch.tensor([-1.0, 2.0, -1.0]))
    assert amount.abs().max() < 1e-5
    gray = make(task(color="project"), photos(5)[..., :1].expand(-1, -1, -1, 3)).inputs
    assert (gray.amax(2) - gray.amin(2)).max() < 1e-5


def test_project_stays_in_0_to_1_for_the_strongest_colors() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([0, 255], dtype=torch.uint8)] * 3)
    pixels = corners.view(8, 1, 1, 3).expand(8, 64, 64, 3)
    inputs = make(task(64, color="project"), pixels).inputs
    assert inputs.min() >= -1e-6
    assert inputs.max() <= 1 + 1e-6


@pytest.mark.parametrize("options", [{"color": "gray"}, {"gray": True}, {"gray": True, "color": "drop"}])
def test_gray_and_harmonized_inputs_are_lightness(options: dict[str, object]) -> None:
    pixels = photos(4)
    inputs = make(task(resample_probability=0, **options), pixels).inputs
    plain = make(task(**PLAIN), pixels).inputs.mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    assert torch.equal(inputs, lightness(plain).unsqueeze(2).expand(-1, -1, 3, -1, -1))


@pytest.mark.parametrize("small_px", [4, 9, 20, 31, 35])
@pytest.mark.parametrize("axes", [(), (3,)])
def test_both_ways_of_resampling_are_equal(small_px: int, axes: tuple[int, ...]) -> None:
    planes = torch.rand(1, *axes, 36, 36)
    matrices = resampling.resampled_device(planes.clone(), np.array([small_px]))
    opencv = resampling.resampled_cpu(planes.clone(), np.array([small_px]))
    torch.testing.assert_close(opencv, matrices, atol=1e-5, rtol=0)


def test_resampling_averages_areas_then_interpolates() -> None:
    patch = np.random.default_rng(0).random((36, 36)).astype(np.float32)
    small = patch.reshape(12, 3, 12, 3).mean((1, 3))
    expected = skimage_resize(small, (36, 36), order=1, mode="edge")
    planes = resampling.resampled(torch.from_numpy(patch)[None].clone(), np.array([12]))
    np.testing.assert_allclose(planes[0], expected, atol=1e-5)


def test_only_chosen_patches_are_resampled() -> None:
    planes = torch.rand(4, 3, 36, 36)
    out = resampling.resampled(planes.clone(), np.array([36, 10, 36, 35]))
    assert (out == planes).flatten(1).all(1).tolist() == [True, False, True, False]


def test_a_third_of_patches_is_resampled_with_uniform_area() -> None:
    resample_px = drawn(task(pairs_per_image=64), 40)["resample_px"].ravel()
    small = resample_px[resample_px < 96]
    # 5120 draws: standard deviation of the share 0.0066.
    assert abs(len(small) / len(resample_px) - 0.33) < 0.035
    assert small.min() >= 10
    area = (small**2 - 100) / (95**2 - 100)
    assert abs(area.mean() - 0.5) < 0.04
    assert (drawn(task(resample_probability=0), 20)["resample_px"] == 96).all()


@pytest.mark.parametrize("options", [{}, {"pairs_per_image": 4}, {"color": "project"}, {"gray": True}])
def test_the_batch_keeps_what_the_spec_promises(options: dict[str, object]) -> None:
    of = task(64, **options)
    batch = make(of, photos(3, 64))
    assert len(batch.weight) == 3 * of.examples_per_sample
    for name, tensor in {"inputs": batch.inputs, "weight": batch.weight, **batch.target}.items():
        promise = of.spec(3)[name]
        assert (tuple(tensor.shape), tensor.dtype) == (promise.shape, promise.dtype)
        assert promise.low - 1e-6 <= tensor.min() <= tensor.max() <= promise.high + 1e-6


def test_making_a_batch_changes_neither_pixels_nor_geometry() -> None:
    of, pixels = task(64), photos(3, 64)
    geometry = drawn(of, 3)
    before = {name: value.copy() for name, value in geometry.items()}
    kept = pixels.clone()
    of.make(pixels, geometry, ["a", "b", "c"])
    assert torch.equal(pixels, kept)
    assert all(np.array_equal(before[name], geometry[name]) for name in before)


@pytest.mark.cuda
@pytest.mark.parametrize("color", ["drop", "project", "gray", "keep"])
def test_the_gpu_gives_the_same_batch(color: str) -> None:
    of = task(color=color)
    cpu, gpu = make(of, photos(6)), make(of, photos(6).cuda()).to("cpu")
    assert torch.equal(cpu.target["position"], gpu.target["position"])
    # Lightness is rounded to 8 bits on the CPU; all else differs by rounding alone.
    torch.testing.assert_close(cpu.inputs, gpu.inputs, atol=1.5 / 255 if color == "gray" else 1e-3, rtol=0)
