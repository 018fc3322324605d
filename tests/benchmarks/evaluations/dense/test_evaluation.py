from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.evaluations.dense.composites import open_composites
from benchmarks.evaluations.dense.evaluation import DenseConfig, cell_labels, measure_dense, open_masks
from benchmarks.evaluations.dense.iou import IGNORED
from pipelines.base.errors import FourfoldError
from training.trunk import Trunk, TrunkConfig


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 RGB of 48 x 64 with a colored rectangle on noise, and its mask."""
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(60, 120, (48, 64, 3)), np.zeros((48, 64), np.uint8)
    top, left = int(rng.integers(0, 20)), int(rng.integers(0, 30))
    mask[top : top + 24, left : left + 28] = 1
    image[mask == 1] = (240, 60, 20)
    return image.astype(np.uint8), mask


def write_davis(folder: Path, num_sequences: int = 6, masks: int = 255) -> Path:
    for sequence in range(num_sequences):
        for part in ("JPEGImages", "Annotations"):
            (folder / part / f"s{sequence}").mkdir(parents=True)
        for frame in range(2):
            image, mask = scene(10 * sequence + frame)
            cv2.imwrite(str(folder / f"JPEGImages/s{sequence}/{frame:05}.jpg"), image[..., ::-1])
            Image.fromarray((mask * masks).astype(bool)).save(folder / f"Annotations/s{sequence}/{frame:05}.png")
    return folder


def write_voc_masks(folder: Path) -> Path:
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for index in range(6):
        image, mask = scene(index)
        stored = np.where(mask == 1, 15, 0).astype(np.uint8)
        stored[:2] = IGNORED
        palette = Image.fromarray(stored, mode="P")
        palette.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
        palette.save(folder / f"SegmentationClass/{index}.png")
        cv2.imwrite(str(folder / f"JPEGImages/{index}.jpg"), image[..., ::-1])
    (folder / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n3\n")
    (folder / "ImageSets/Segmentation/test.txt").write_text("4\n5\n")
    return folder


def write_cutouts(folder: Path) -> Path:
    for part in ("cutouts", "photos"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(6):
        cutout = np.zeros((40, 30, 4), np.uint8)
        cutout[5:35, 5:25] = (255, 0, 255, 255)
        cv2.imwrite(str(folder / f"cutouts/c{index}.png"), cutout)
        cv2.imwrite(str(folder / f"photos/p{index}.jpg"), rng.integers(60, 120, (80, 100, 3)).astype(np.uint8))
    return folder


def measure(data: Path, **changes: Any) -> dict[str, Any]:
    torch.manual_seed(3)
    trunk = Trunk(TrunkConfig(depth=10, width=0.25)).eval()
    small = {"height_px": 48, "width_px": 64, "num_cells": 400, "l2_grid": [1e-3, 0.1], "per_cutout": 1}
    return measure_dense(trunk, DenseConfig(data=data, **small | changes))


@pytest.mark.parametrize("make", [write_davis, write_voc_masks, write_cutouts])
def test_objects_of_another_color_are_segmented_by_random_features(tmp_path: Path, make: Any) -> None:
    results = measure(make(tmp_path / "data"))
    assert results["mean_iou_pct"] > results["place"]["mean_iou_pct"] + 5
    assert results["mean_iou_pct"] > 55
    assert results == measure(tmp_path / "data")


def test_voc_masks_keep_their_class_numbers_and_borders(tmp_path: Path) -> None:
    train, _ = open_masks(DenseConfig(data=write_voc_masks(tmp_path / "voc")))
    mask = train.read(0).mask_HW
    assert train.class_names[15] == "person"
    assert set(np.unique(mask)) == {0, 15, IGNORED}
    np.testing.assert_array_equal(mask[2:] == 15, scene(0)[1][2:] == 1)


def test_davis_splits_are_of_whole_sequences(tmp_path: Path) -> None:
    data = write_davis(tmp_path / "davis")
    train, test = open_masks(DenseConfig(data=data))
    assert (sorted(set(train.groups)), sorted(set(test.groups))) == (["s0", "s1", "s3", "s4"], ["s2", "s5"])
    (data / "test.txt").write_text("s1\n")
    assert set(open_masks(DenseConfig(data=data))[1].groups) == {"s1"}


def test_composites_share_no_cutout_and_repeat(tmp_path: Path) -> None:
    data = write_cutouts(tmp_path / "cut")
    train, test = open_composites(data, ["train", "test"], per_cutout=2)
    assert not set(train.groups) & set(test.groups)
    one, again, other = train.read(3), train.read(3), train.read(2)
    np.testing.assert_array_equal(one.rgb_HW3, again.rgb_HW3)
    assert not np.array_equal(one.rgb_HW3, other.rgb_HW3)
    inside = one.rgb_HW3[cv2.erode(one.mask_HW, np.ones((5, 5), np.uint8)) == 1]
    assert np.abs(inside.astype(int) - (255, 0, 255)).max() <= 3
    assert np.abs(one.rgb_HW3[cv2.dilate(one.mask_HW, np.ones((5, 5), np.uint8)) == 0].astype(int) - 90).max() < 60


def test_label_of_a_cell_is_that_of_most_of_its_pixels() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[:2, 2:4] = [[1, 1], [1, 0]]
    mask[2:, 4:] = [[IGNORED, IGNORED], [IGNORED, 2]]
    assert cell_labels(mask, 3, 2, 3).tolist() == [[0, 1, 0], [0, 0, IGNORED]]


@pytest.mark.parametrize(
    ("make", "spoil", "words"),
    [
        (write_davis, lambda data: (data / "Annotations/s1/00001.png").unlink(), "s1/00001.png is missing"),
        (write_davis, lambda data: (data / "JPEGImages").rename(data / "x"), "has no folder JPEGImages"),
        (write_davis, lambda data: (data / "train.txt").write_text("gone\n"), "sequence gone"),
        (write_voc_masks, lambda data: (data / "ImageSets/Segmentation/test.txt").unlink(), "no split test"),
        (
            write_voc_masks,
            lambda data: Image.new("P", (5, 5)).save(data / "SegmentationClass/1.png"),
            r"1\.png is \(5, 5\), its image \(64, 48\)",
        ),
        (write_cutouts, lambda data: [path.unlink() for path in (data / "photos").iterdir()], "photos: 0 images"),
    ],
)
def test_wrong_layouts_are_one_message(tmp_path: Path, make: Any, spoil: Any, words: str) -> None:
    data = make(tmp_path / "data")
    spoil(data)
    with pytest.raises(FourfoldError, match=words):
        open_masks(DenseConfig(data=data))
