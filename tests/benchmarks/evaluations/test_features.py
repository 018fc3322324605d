from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.evaluations import features as module
from benchmarks.evaluations.features import frozen_features, image_inputs
from pipelines.base.errors import UsageError
from tests.made.tiny_shards import coloured, write_shards
from training.trunk import Trunk, TrunkConfig


@pytest.fixture
def images(tmp_path: Path) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = [coloured(index % 3, rng) for index in range(7)]
    write_shards(tmp_path, {"train": [(index % 3, image) for index, image in enumerate(made)]})
    return made


@pytest.fixture
def trunk() -> Trunk:
    torch.manual_seed(0)
    return Trunk(TrunkConfig(depth=18, width=0.125)).eval()


def by_hand(trunk: Trunk, image: np.ndarray, unit: int) -> np.ndarray:
    """3 x 3 maxima of a 4 x 4 map of a 32 px image: windows start at 0, 1, 2 and are 2 wide."""
    with torch.no_grad():
        maps = trunk(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255).units[unit][0].numpy()
    rows = [maps[:, y : y + 2, x : x + 2].max(axis=(1, 2)) for y in range(3) for x in range(3)]
    return np.stack(rows, axis=1).ravel()


def test_features_are_the_pooled_last_map_in_shard_order(
    tmp_path: Path, images: list[np.ndarray], trunk: Trunk
) -> None:
    found = frozen_features(trunk, tmp_path, "train", canvas_px=32, pool=3, batch_size=3)
    assert found.values_MVND.shape == (1, 1, 7, trunk.num_channels * 9)
    assert found.values_MVND.dtype == np.float32
    assert found.labels_N.tolist() == [0, 1, 2, 0, 1, 2, 0]
    for row, image in enumerate(images):
        np.testing.assert_allclose(found.values_MVND[0, 0, row], by_hand(trunk, image, -1), rtol=1e-3, atol=1e-4)


def test_all_units_and_mirrored_view(tmp_path: Path, images: list[np.ndarray], trunk: Trunk) -> None:
    found = frozen_features(trunk, tmp_path, "train", canvas_px=32, pool=3, flipped_view=True, all_units=True)
    assert found.values_MVND.shape == (trunk.num_units, 2, 7, trunk.num_channels * 9)
    expected = by_hand(trunk, images[4][:, ::-1], 0)
    np.testing.assert_allclose(found.values_MVND[0, 1, 4], expected, rtol=1e-3, atol=1e-4)


def test_inputs_are_the_images_in_zero_to_one(tmp_path: Path, images: list[np.ndarray]) -> None:
    device = torch.device("cpu")
    batches = list(image_inputs(tmp_path, "train", canvas_px=32, batch_size=4, device=device))
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 32, 32), (3, 3, 32, 32)]
    np.testing.assert_allclose(batches[1][0].permute(1, 2, 0), images[4] / 255, atol=0.01)


def test_too_little_memory_is_told_before_the_work(
    tmp_path: Path, images: list[np.ndarray], trunk: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 1000

    monkeypatch.setattr(module.psutil, "virtual_memory", Memory)
    with pytest.raises(UsageError, match="GiB for features"):
        frozen_features(trunk, tmp_path, "train", canvas_px=32, pool=3)
