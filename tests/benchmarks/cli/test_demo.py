"""The demo's pictures: training and test crops share no pixel, every fourth is a test crop, nothing is fetched."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.cli import demo
from pipelines.base.errors import UsageError

needs_pictures = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("skimage", "sklearn", "skvideo")),
    reason="the extra demo is not installed",
)


def numbered(height: int, width: int) -> np.ndarray:
    """Every pixel is its own number, in float so that enlarging keeps neighbours apart."""
    return np.arange(height * width, dtype=np.float32).reshape(height, width)


def test_crops_of_train_and_test_share_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "resize", lambda crop, size, interpolation: crop)
    test, train = demo.crops(numbered(83, 121))
    in_test = {int(value) for crop in test for value in crop.ravel()}
    in_train = {int(value) for crop in train for value in crop.ravel()}
    assert not in_test & in_train
    assert (len(test), len(train)) == (16, 48)


def test_every_row_and_column_of_cells_has_one_test_cell() -> None:
    assert sorted(row for row, _ in demo.TEST_CELLS) == sorted(column for _, column in demo.TEST_CELLS) == [0, 1, 2, 3]


def test_names_are_unique_and_the_filmed_videos_train() -> None:
    names = [scene.name for scene in demo.SCENES]
    assert len(set(names)) == len(names) >= demo.MIN_SCENES
    assert min(demo.VIDEOS) == "bigbuckbunny.mp4"


@needs_pictures
def test_photos_follow_the_validation_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = demo.SCENES[:8]
    monkeypatch.setattr(demo, "SCENES", scenes)
    folder = tmp_path / "photos"
    assert demo.write_photos(folder, tmp_path / "scenes") == 64 * len(scenes)
    test, train = demo.crops(demo._load(scenes[0]))
    assert {path.stem for path in (tmp_path / "scenes").glob("*.jpg")} == {scene.name for scene in scenes}
    files = sorted((folder / scenes[0].name).glob("*.jpg"))
    for place, expected in ((0, test[0]), (1, train[0]), (3, train[2]), (4, test[1]), (63, train[47])):
        difference = cv2.imread(str(files[place])).astype(int) - expected
        assert np.abs(difference).mean() < 8  # JPEG of quality 90


@needs_pictures
def test_photos_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_scenes = demo.SCENES
    monkeypatch.setattr(demo, "SCENES", all_scenes[:8])
    folder = tmp_path / "photos"
    demo.write_photos(folder, tmp_path / "scenes")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    demo.write_photos(folder, tmp_path / "scenes")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == before
    monkeypatch.setattr(demo, "SCENES", all_scenes[1:9])
    demo.write_photos(folder, tmp_path / "scenes")
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {scene.name for scene in all_scenes[1:9]}


@needs_pictures
def test_frames_of_a_video_are_scenes(tmp_path: Path) -> None:
    scene = next(scene for scene in demo.SCENES if scene.frame_index is not None)
    image = demo._load(scene)
    assert image is not None
    assert image.shape == (272, 640, 3)
    assert demo.write_videos(tmp_path) == 3


def test_without_the_pictures_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_package_file", lambda package, path: None)
    with pytest.raises(UsageError, match=r"found 0 of .* pip install 'fourfold\[demo\]'"):
        demo.write_photos(tmp_path / "photos", tmp_path / "scenes")
    assert demo.write_videos(tmp_path / "videos") == 0
