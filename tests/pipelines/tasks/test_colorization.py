"""Targets against scikit-image and brute force; weights against hand-made priors."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from skimage.color import rgb2lab

from pipelines.base.config import validate
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import ManifestWriter
from pipelines.shards.format.storage import storage_of
from pipelines.targets.color import lab as color
from pipelines.targets.color.color_prior import class_rebalancing
from pipelines.tasks.base import CanvasSpec, TaskBatch
from pipelines.tasks.colorization import Colorization, ColorizationConfig

SIDE_PX = 32
COLORS = ((200, 40, 30), (20, 60, 180), (90, 90, 90), (30, 160, 60))


def quadrants() -> torch.Tensor:
    """uint8 (1, 32, 32, 3): four flat squares, the third of them gray."""
    pixels = torch.empty(1, SIDE_PX, SIDE_PX, 3, dtype=torch.uint8)
    for index, rgb in enumerate(COLORS):
        y, x = 16 * (index // 2), 16 * (index % 2)
        pixels[0, y : y + 16, x : x + 16] = torch.tensor(rgb, dtype=torch.uint8)
    return pixels


def noise(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=np.uint8))


def task(**options: object) -> Colorization:
    return Colorization(ColorizationConfig.model_validate(options), CanvasSpec(canvas_px=SIDE_PX))


def make(pixels: torch.Tensor, **options: object) -> TaskBatch:
    return task(**options).make(pixels, {}, [str(row) for row in range(len(pixels))])


def test_inputs_are_lightness_three_times_without_a_copy() -> None:
    inputs = make(noise(2)).inputs
    assert inputs.shape == (2, 3, SIDE_PX, SIDE_PX)
    assert inputs.stride(1) == 0
    np.testing.assert_allclose(inputs[:, 0], rgb2lab(noise(2).numpy())[..., 0] / 100, atol=1.5 / 255)


def test_each_block_gets_the_bin_nearest_to_its_color() -> None:
    nearest = make(quadrants()).target["bins"][0, 0]
    ab = rgb2lab(np.array([COLORS], np.uint8))[0, :, 1:]
    expected = cKDTree(color.ab_bins()).query(ab)[1].reshape(2, 2)
    np.testing.assert_array_equal(nearest, expected.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("num_neighbors", [5, 10])
def test_soft_targets_are_gaussian_over_the_nearest_bins(num_neighbors: int) -> None:
    target = make(quadrants(), num_neighbors=num_neighbors).target
    ab = rgb2lab(np.array([COLORS[0]], np.uint8)[None])[0, 0, 1:]
    distance, bins = cKDTree(color.ab_bins()).query(ab, k=num_neighbors)
    weights = np.exp(-(distance**2) / 50)
    np.testing.assert_array_equal(target["bins"][0, :, 0, 0], bins)
    np.testing.assert_allclose(target["bin_weights"][0, :, 0, 0], weights / weights.sum(), atol=2e-3)


def test_a_hard_target_is_the_first_bin_of_the_soft_one() -> None:
    hard, soft = make(noise(2), target="hard").target, make(noise(2)).target
    assert torch.equal(hard["bins"], soft["bins"][:, :1])
    assert (hard["bin_weights"] == 1).all()


def test_decoding_the_target_gives_the_colors_back() -> None:
    target = make(quadrants()).target
    ab = color.decode_bins(target["bins"].permute(0, 2, 3, 1), target["bin_weights"].permute(0, 2, 3, 1))
    expected = rgb2lab(quadrants().numpy())[:, ::8, ::8, 1:]
    # The mean of five bins of a lattice of 10; saturated colors lie at the border of the gamut, with bins inside only.
    assert np.abs(ab.numpy() - expected).max() < 6


def test_without_a_prior_every_block_weighs_1() -> None:
    assert (make(quadrants()).weight == 1).all()


def test_gray_images_weigh_0_unless_kept() -> None:
    pixels = torch.cat([quadrants(), quadrants()[..., :1].expand(-1, -1, -1, 3)])
    assert make(pixels).weight.flatten(1).unique(dim=1).tolist() == [[1], [0]]
    assert (make(pixels, mask_gray=False).weight == 1).all()


@pytest.fixture
def counted(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder whose counted colors are known: its prior file written by hand, over no shards."""
    prior = np.random.default_rng(3).dirichlet(np.full(313, 0.2))
    ManifestWriter(storage_of(tmp_path), ()).close()
    content = {"format_version": 1, "split": "train", "shards": {}, "prior": prior.tolist()}
    (tmp_path / "color_prior.json").write_text(json.dumps(content))
    return tmp_path, prior


def test_a_block_weighs_what_its_nearest_bin_does(counted: tuple[Path, np.ndarray]) -> None:
    batch = make(noise(2), prior=counted[0], mask_gray=False)
    expected = class_rebalancing(counted[1])[batch.target["bins"][:, 0].numpy()]
    np.testing.assert_allclose(batch.weight, expected, rtol=1e-6)
    assert len(batch.weight.unique()) > 1


def test_rebalancing_can_be_turned_off_and_tuned(counted: tuple[Path, np.ndarray]) -> None:
    assert (make(noise(1), prior=counted[0], rebalance=False).weight == 1).all()
    torch.testing.assert_close(make(noise(1), prior=counted[0], uniform_share=1.0).weight, torch.ones(1, 4, 4))


def test_a_prior_that_was_not_counted_is_refused_with_the_command(tmp_path: Path) -> None:
    ManifestWriter(storage_of(tmp_path), ()).close()
    with pytest.raises(UsageError, match=f"fourfold shards stats {tmp_path}"):
        task(prior=tmp_path)


def test_a_canvas_that_is_no_multiple_of_8_is_refused() -> None:
    with pytest.raises(UsageError, match="canvas_px = 100; need a multiple of 8, for example 96"):
        Colorization(ColorizationConfig(), CanvasSpec(canvas_px=100))


@pytest.mark.parametrize(
    ("option", "value"),
    [("num_neighbors", 0), ("num_neighbors", 33), ("sigma", 0), ("target", "warm"), ("uniform_share", 0), ("gamma", 1)],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=option):
        validate(ColorizationConfig, {option: value}, source="x.yaml")


@pytest.mark.parametrize("options", [{}, {"num_neighbors": 10}, {"target": "hard"}])
def test_the_batch_keeps_what_the_spec_promises(options: dict[str, object], counted: tuple[Path, np.ndarray]) -> None:
    batch = make(noise(3), prior=counted[0], **options)
    for name, tensor in {"inputs": batch.inputs, "weight": batch.weight, **batch.target}.items():
        promise = task(prior=counted[0], **options).spec(3)[name]
        assert (tuple(tensor.shape), tensor.dtype) == (promise.shape, promise.dtype)
        assert promise.low <= tensor.min() <= tensor.max() <= promise.high


def test_both_paths_give_the_same_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = make(noise(4))
    paths: dict[str, Callable[..., object]] = {
        "_lightness_cpu": lambda pixels, _: color.lightness_torch(pixels),
        "_blocks_cpu": color._blocks_torch,
        "_ab_cpu": lambda blocks: color.linear_to_lab(color.linear_table(blocks.device)[blocks.int()])[..., 1:],
    }
    for name, path in paths.items():
        monkeypatch.setattr(color, name, path)
    device = make(noise(4))
    assert torch.equal(cpu.target["bins"], device.target["bins"])
    torch.testing.assert_close(cpu.inputs, device.inputs, atol=3e-4, rtol=0)


@pytest.mark.cuda
def test_the_gpu_gives_the_same_batch() -> None:
    cpu, gpu = make(noise(4)), make(noise(4).cuda()).to("cpu")
    # Lab within a rounding error: a step of 1/64 in ab may differ, and so a bin at equal distance.
    assert (cpu.target["bins"][:, 0] == gpu.target["bins"][:, 0]).float().mean() > 0.999
    torch.testing.assert_close(cpu.inputs, gpu.inputs, atol=1.5 / 255, rtol=0)
