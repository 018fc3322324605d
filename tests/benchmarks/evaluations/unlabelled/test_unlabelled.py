from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.evaluations.base import Context
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.evaluations.unlabelled.cutout_pairs import cutout_pairs
from benchmarks.evaluations.unlabelled.unlabelled import UnlabelledConfig, check, content, run
from pipelines.base.errors import DataError, UsageError
from tests.made.tiny_shards import coloured, write_shards
from training.trunk import Trunk, TrunkConfig, save_trunk


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Twelve images of one split, unlike each other; a trunk in `run`, another in `other`; five cut-outs."""
    rng = np.random.default_rng(0)
    images = [(coloured(i % 4, rng) // 2 + rng.integers(0, 120, 3)).astype(np.uint8) for i in range(12)]
    write_shards(tmp_path / "shards", {"val": [(0, image) for image in images]})
    for seed, name in enumerate(("run", "other")):
        torch.manual_seed(seed)
        (tmp_path / name).mkdir()
        save_trunk(Trunk(TrunkConfig(depth=18, width=0.125)), tmp_path / name)
    (tmp_path / "cutouts").mkdir()
    for index in range(5):
        picture = np.dstack([np.full((20, 12, 3), 50 * index, np.uint8), np.full((20, 12), 255, np.uint8)])
        cv2.imwrite(str(tmp_path / "cutouts" / f"{index}.png"), picture)
    return Context(trunk=TrunkSource(run=tmp_path / "run"), images=tmp_path / "shards", store=tmp_path / "kept")


def test_all_measures_of_a_trunk_twice_alike(context: Context, tmp_path: Path) -> None:
    others = [tmp_path / "run", tmp_path / "other"]
    config = UnlabelledConfig(canvas_px=32, against=others, cutouts=tmp_path / "cutouts")
    check(context, config)
    first, second = run(context, config), run(context, config)
    assert first | {"seconds_all": 0} == second | {"seconds_all": 0}
    assert 1 <= first["effective_rank"] <= 12
    assert np.diag(first["cka_units"]).tolist() == pytest.approx([1, 1])
    own, other = first["cka_against"].values()
    assert own == pytest.approx(1)
    assert other < 0.999
    # Twelve images by chance: 8 %.
    assert first["crop_retrieval_pct"] > 30
    assert first["num_cutouts"] == 5


def test_composites_show_the_object_on_both_backgrounds(tmp_path: Path) -> None:
    picture = np.zeros((10, 10, 4), np.uint8)
    picture[..., 2], picture[..., 3] = 255, 255  # red, in OpenCV's order
    path = tmp_path / "red.png"
    cv2.imwrite(str(path), picture)
    backgrounds = iter([np.full((40, 40, 3), value, np.uint8) for value in (10, 90)])
    for composite, value in zip(next(cutout_pairs([path], backgrounds, 0)), (10, 90), strict=True):
        red = (composite == [255, 0, 0]).all(axis=2)
        assert 0.4**2 * 0.8 < red.mean() < 0.7**2 * 1.1
        assert (composite[~red] == value).all()


def test_key_follows_the_content_of_what_it_is_compared_with(context: Context, tmp_path: Path) -> None:
    one = content(UnlabelledConfig(against=[tmp_path / "run"], cutouts=tmp_path / "cutouts"))
    other = content(UnlabelledConfig(against=[tmp_path / "other"], cutouts=tmp_path / "cutouts"))
    assert one["cutouts"] == other["cutouts"]
    assert one["against"] != other["against"]


def test_what_is_missing_is_told(context: Context, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 PNG files"):
        check(context, UnlabelledConfig(cutouts=tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="crop_scale"):
        check(context, UnlabelledConfig(crop_scale=(0.9, 0.2)))
    with pytest.raises(UsageError, match=r"trunk\.pt"):
        check(context, UnlabelledConfig(against=[tmp_path / "shards"]))
    cv2.imwrite(str(tmp_path / "cutouts" / "0.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="alpha"):
        check(context, UnlabelledConfig(cutouts=tmp_path / "cutouts"))
