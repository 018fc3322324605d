"""Counting colors of hand-made shards, and rebalancing weights against the formula."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from skimage.color import rgb2lab

from pipelines.base.errors import DataError, UsageError
from pipelines.base.progress import quiet_progress
from pipelines.run.color_counts import count_prior
from pipelines.targets.color.color_prior import PRIOR_NAME, class_rebalancing, load_prior
from pipelines.targets.color.lab import ab_bins
from tests.made import tiny_shards

RED, BLUE, GRAY = (200, 40, 30), (20, 60, 180), (90, 90, 90)


def write_shards(folder: Path, colors: list[tuple[int, int, int]]) -> Path:
    """One shard of flat images, lossless and not square."""
    images = [np.full((40, 48, 3), rgb, np.uint8) for rgb in colors]
    return tiny_shards.write_shards(folder, {"train": [(0, image) for image in images]})


def nearest_bin(rgb: tuple[int, int, int]) -> int:
    ab = rgb2lab(np.array([[rgb]], np.uint8))[0, 0, 1:]
    return int(((ab_bins() - ab) ** 2).sum(1).argmin())


def test_counts_every_image_once_and_leaves_gray_out(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [RED, RED, RED, BLUE, GRAY])
    with quiet_progress():
        result = count_prior(folder, canvas_px=32, batch_size=2, num_threads=1, num_neighbors=1)
    assert (result.num_images, result.num_gray_images) == (5, 1)
    assert result.prior[nearest_bin(RED)] == pytest.approx(0.75)
    assert result.prior[nearest_bin(BLUE)] == pytest.approx(0.25)
    assert sum(result.prior) == pytest.approx(1)


def test_the_saved_prior_is_the_one_counted(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [RED, BLUE])
    with quiet_progress():
        result = count_prior(folder, canvas_px=32, num_threads=1)
    np.testing.assert_array_equal(load_prior(folder), result.prior)
    saved = json.loads((folder / PRIOR_NAME).read_text())
    assert (saved["num_images"], saved["split"], saved["num_neighbors"]) == (2, "train", 5)
    assert sorted(path.name for path in folder.iterdir()) == [
        "color_prior.json",
        "manifest.json",
        "samples.arrow",
        "train-images-000000.tar",
    ]


def test_a_remote_folder_keeps_its_own_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    folder = write_shards(tmp_path / "shards", [RED, BLUE])
    fsspec.filesystem("memory").put(str(folder), "/colors/shards", recursive=True)
    assert load_prior("memory://colors/shards") is None
    with quiet_progress():
        result = count_prior("memory://colors/shards", canvas_px=32, num_threads=1)
    np.testing.assert_array_equal(load_prior("memory://colors/shards"), result.prior)
    assert fsspec.filesystem("memory").exists("/colors/shards/color_prior.json")
    assert not (folder / PRIOR_NAME).exists()


def test_a_folder_without_counts_has_no_prior(tmp_path: Path) -> None:
    assert load_prior(write_shards(tmp_path / "shards", [RED])) is None


def test_a_prior_of_other_shards_is_refused(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [RED])
    with quiet_progress():
        count_prior(folder, canvas_px=32, num_threads=1)
    write_shards(folder, [BLUE])
    with pytest.raises(DataError, match=r"other shards .* fourfold shards stats"):
        load_prior(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"prior": [1.0]},
        {"prior": [1.0] * 313},
        {"prior": [-1.0, 2.0] + [0.0] * 311},
        {"prior": [float("nan")] + [0.0] * 312},
        {"prior": "many"},
        {"format_version": 99},
        {"shards": None, "split": None},
    ],
)
def test_a_damaged_prior_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = write_shards(tmp_path / "shards", [RED])
    with quiet_progress():
        count_prior(folder, canvas_px=32, num_threads=1)
    path = folder / PRIOR_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"color_prior\.json"):
        load_prior(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"prior"'])
def test_a_file_that_is_no_prior_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_shards(tmp_path / "shards", [RED])
    (folder / PRIOR_NAME).write_text(text)
    with pytest.raises(DataError, match="damaged"):
        load_prior(folder)


def test_only_gray_images_are_refused(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [GRAY, GRAY])
    with quiet_progress(), pytest.raises(DataError, match="all 2 images of split train are gray"):
        count_prior(folder, canvas_px=32, num_threads=1)
    assert not (folder / PRIOR_NAME).exists()


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [RED])
    with pytest.raises(UsageError, match="no images in split val"):
        count_prior(folder, "val")


def test_rebalancing_is_the_papers_formula() -> None:
    prior = np.random.default_rng(0).dirichlet(np.full(313, 0.1))
    bins = ab_bins().astype(float)
    smooth = np.zeros(313)
    for source in range(313):
        kernel = np.exp(-((bins - bins[source]) ** 2).sum(1) / (2 * 5.0**2))
        smooth += prior[source] * kernel / kernel.sum()
    expected = 1 / (0.5 * smooth + 0.5 / 313)
    expected /= (smooth * expected).sum()
    weight = class_rebalancing(prior)
    np.testing.assert_allclose(weight, expected, rtol=1e-5)
    assert (weight.shape, weight.dtype) == ((313,), np.float32)


def test_rare_colors_weigh_more_and_at_most_as_lambda_allows() -> None:
    prior = np.full(313, 1e-6)
    prior[100] = 1 - 312e-6
    weight = class_rebalancing(prior)
    assert weight.argmin() == 100
    near = np.argsort(((ab_bins() - ab_bins()[100]) ** 2).sum(1))[:5]
    assert weight.max() > 10 * weight[near].max()


def test_a_uniform_share_of_1_rebalances_nothing() -> None:
    prior = np.random.default_rng(0).dirichlet(np.full(313, 0.1))
    np.testing.assert_allclose(class_rebalancing(prior, uniform_share=1), 1, rtol=1e-6)
