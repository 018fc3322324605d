import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.features import extract, store
from benchmarks.evaluations.features.extract import image_inputs
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.features.store import Features, features_of
from benchmarks.evaluations.trunk_source import TrunkSource
from pipelines.base.errors import UsageError
from tests.made.tiny_shards import coloured, write_shards
from training.trunk import Trunk, TrunkConfig, load_trunk, save_trunk


@pytest.fixture
def images(tmp_path: Path) -> list[np.ndarray]:
    """Seven images in `tmp_path/shards` and a random trunk in `tmp_path/run`."""
    rng = np.random.default_rng(0)
    made = [coloured(index % 3, rng) for index in range(7)]
    write_shards(tmp_path / "shards", {"train": [(index % 3, image) for index, image in enumerate(made)]})
    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    save_trunk(Trunk(TrunkConfig(depth=18, width=0.125)), tmp_path / "run")
    return made


def context(tmp_path: Path, *wanted: FeatureRequest) -> Context:
    return Context(
        trunk=TrunkSource(run=tmp_path / "run"), images=tmp_path / "shards", store=tmp_path / "kept", wanted=wanted
    )


def request(**changes: Any) -> FeatureRequest:
    return FeatureRequest(**{"split": "train", "canvas_px": 32, "batch_size": 3} | changes)


def features(tmp_path: Path, **changes: Any) -> Features:
    return features_of(context(tmp_path), [request(**changes)])[0]


def by_hand(tmp_path: Path, image: np.ndarray, unit: int) -> np.ndarray:
    """3 x 3 maxima of a 4 x 4 map of a 32 px image: windows start at 0, 1, 2 and are 2 wide."""
    trunk = load_trunk(tmp_path / "run")
    with torch.no_grad():
        maps = trunk(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255).units[unit][0].numpy()
    rows = [maps[:, y : y + 2, x : x + 2].max(axis=(1, 2)) for y in range(3) for x in range(3)]
    return np.stack(rows, axis=1).ravel()


def test_features_are_the_pooled_last_map_in_shard_order(tmp_path: Path, images: list[np.ndarray]) -> None:
    found = features(tmp_path)
    assert found.last_ND().shape == (7, load_trunk(tmp_path / "run").num_channels * 9)
    assert found.last_ND().dtype == np.float32
    assert found.labels_N.tolist() == [0, 1, 2, 0, 1, 2, 0]
    for row, image in enumerate(images):
        np.testing.assert_allclose(found.last_ND()[row], by_hand(tmp_path, image, -1), rtol=1e-3, atol=1e-4)


def test_all_units_and_mirrored_view(tmp_path: Path, images: list[np.ndarray]) -> None:
    found = features(tmp_path, flipped_view=True, units="all")
    assert (len(found.values_MVND), len(found.values_MVND[0])) == (load_trunk(tmp_path / "run").num_units, 2)
    expected = by_hand(tmp_path, images[4][:, ::-1], 0)
    np.testing.assert_allclose(found.values_MVND[0][1][4], expected, rtol=1e-3, atol=1e-4)


def test_mean_of_the_map_equals_the_mean_of_its_places(tmp_path: Path, images: list[np.ndarray]) -> None:
    trunk = load_trunk(tmp_path / "run")
    with torch.no_grad():
        maps = trunk(torch.from_numpy(images[2].copy()).permute(2, 0, 1)[None].float() / 255).last[0].numpy()
    found = features(tmp_path, pooling="mean", pool=1)
    np.testing.assert_allclose(found.last_ND()[2], maps.mean(axis=(1, 2)), rtol=1e-3, atol=1e-4)


def test_inputs_are_the_images_in_zero_to_one(tmp_path: Path, images: list[np.ndarray]) -> None:
    device = torch.device("cpu")
    batches = list(image_inputs(tmp_path / "shards", "train", canvas_px=32, batch_size=4, device=device))
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 32, 32), (3, 3, 32, 32)]
    np.testing.assert_allclose(batches[1][0].permute(1, 2, 0), images[4] / 255, atol=0.01)


def test_too_little_room_is_told_before_the_work(
    tmp_path: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(UsageError, match=r"features need .* GiB are free"):
        features(tmp_path)
    assert list((tmp_path / "kept").glob("*.npy")) == []


def test_a_pass_that_fails_leaves_nothing_half_written(
    tmp_path: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_features", fail)
    with pytest.raises(KeyboardInterrupt):
        features(tmp_path)
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".lock"]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Files that each pass over a split writes."""
    seen: list[int] = []
    real = store.write_features

    def counted(trunk: Any, table: Any, files: Any, **sizes: Any) -> None:
        seen.append(len(files))
        real(trunk, table, files, **sizes)

    monkeypatch.setattr(store, "write_features", counted)
    return seen


def test_one_pass_makes_what_all_evaluations_want(tmp_path: Path, images: list[np.ndarray], passes: list[int]) -> None:
    probe, knn = request(flipped_view=True), request(pooling="mean", pool=1)
    features_of(context(tmp_path, probe, knn), [probe])
    assert passes == [3]
    features_of(context(tmp_path), [knn])
    features_of(context(tmp_path), [request(), request(flipped_view=True)])
    assert passes == [3]


def test_features_follow_content_and_not_place(tmp_path: Path, images: list[np.ndarray], passes: list[int]) -> None:
    features(tmp_path)
    (tmp_path / "shards").rename(tmp_path / "elsewhere")
    moved = Context(trunk=TrunkSource(run=tmp_path / "run"), images=tmp_path / "elsewhere", store=tmp_path / "kept")
    features_of(moved, [request()])
    assert passes == [1]
    features_of(moved, [request(canvas_px=24)])
    assert passes == [1, 1]
    torch.manual_seed(1)
    save_trunk(Trunk(TrunkConfig(depth=18, width=0.125)), tmp_path / "run")
    features_of(moved, [request()])
    assert passes == [1, 1, 1]


def test_memory_of_extraction_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated million of images: while they pass, the process grows by less than their features take."""
    num_images, batch, num_features = 1_000_000, 5_000, 16
    pixels = torch.zeros((batch, 1, 1, 3), dtype=torch.uint8)
    process, seen_bytes = psutil.Process(), []

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1, num_features, 1, 1))

        def forward(self, image: torch.Tensor) -> Any:
            return SimpleNamespace(units=[image[:, :1] + self.scale])

    def canvases(_: Any, prepare: Any, **__: Any) -> Any:
        for _ in range(num_images // batch):
            seen_bytes.append(process.memory_info().rss)
            yield prepare(SimpleNamespace(pixels=pixels))

    monkeypatch.setattr(extract, "prepared_canvases", canvases)
    with (tmp_path / "rows").open("wb") as file:
        target = extract.FeatureFile(file=file, unit=0, is_flipped=False, pooling="max", pool=1)
        extract.write_features(Tiny(), None, [target], canvas_px=1, batch_size=batch)  # type: ignore[arg-type]
    assert (tmp_path / "rows").stat().st_size == num_images * num_features * 4
    # Their features take 61 MiB. The first batches are left out: libraries load what they need.
    assert max(seen_bytes) - seen_bytes[5] < 20 * 2**20
