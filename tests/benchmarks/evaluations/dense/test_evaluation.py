from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.evaluations.dense.composites import open_composite_masks
from benchmarks.evaluations.dense.evaluation import DenseConfig, cell_labels, measure_dense, open_masks
from benchmarks.evaluations.dense.iou import IGNORED
from pipelines.base.errors import FourfoldError
from tests.made.cutouts import write_cutouts
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


def test_a_rare_object_is_answered_where_cells_are_balanced(tmp_path: Path) -> None:
    """Cells of noise among noise: as they come, background everywhere is the best answer."""
    data, rng = write_davis(tmp_path / "davis"), np.random.default_rng(0)
    for path in sorted((data / "Annotations").rglob("*.png")):
        mask = np.zeros((48, 64), np.uint8)
        top, left = 16 * int(rng.integers(3)), 16 * int(rng.integers(4))
        mask[top : top + 16, left : left + 16] = 1
        Image.fromarray(mask.astype(bool)).save(path)
        noise = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
        cv2.imwrite(str(data / "JPEGImages" / path.parent.name / f"{path.stem}.jpg"), noise)
    plain, balanced = (measure(data, balanced=one) for one in (False, True))
    assert plain["iou_by_class_pct"]["object"] < 5 < balanced["iou_by_class_pct"]["object"]
    assert (plain["place"]["iou_by_class_pct"]["object"], plain["num_cells"]) == (0, 8 * 48)
    assert balanced["num_cells"] == 8 * 2 * 4  # train images, classes, cells of an object


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
    # No third of them beside a list: s1 would be trained on and tested.
    with pytest.raises(FourfoldError, match=r"which sequences are split train\. Give one of test, or add train\.txt"):
        open_masks(DenseConfig(data=data))
    (data / "train.txt").write_text("s0\ns2\n")
    assert [set(split.groups) for split in open_masks(DenseConfig(data=data))] == [{"s0", "s2"}, {"s1"}]


def test_davis_2016_as_it_is_published(tmp_path: Path) -> None:
    """A resolution between, lists of frame pairs, objects in white of 8 bits."""
    data = write_davis(tmp_path / "davis", num_sequences=2)
    for part in ("JPEGImages", "Annotations"):
        (data / part).rename(tmp_path / part)
        (data / part).mkdir()
        (tmp_path / part).rename(data / part / "480p")
    path = data / "Annotations/480p/s1/00000.png"
    Image.fromarray(scene(10)[1] * 255).save(path)
    (data / "ImageSets/480p").mkdir(parents=True)
    for split, name in (("train", "s0"), ("val", "s1")):
        lines = [f"/JPEGImages/480p/{name}/0000{i}.jpg /Annotations/480p/{name}/0000{i}.png" for i in range(2)]
        (data / f"ImageSets/480p/{split}.txt").write_text("\n".join(lines) + "\n")
    train, val = open_masks(DenseConfig(data=data, test_split="val"))
    assert (train.names, val.names) == (("s0/00000", "s0/00001"), ("s1/00000", "s1/00001"))
    np.testing.assert_array_equal(val.read(0).mask_HW, scene(10)[1])


def test_composites_share_no_cutout_and_repeat(tmp_path: Path) -> None:
    data = write_cutouts(tmp_path / "cut")
    train, test = open_composite_masks(data, ["train", "test"], per_cutout=2)
    assert not set(train.groups) & set(test.groups)
    one, again, other = train.read(3), train.read(3), train.read(2)
    np.testing.assert_array_equal(one.rgb_HW3, again.rgb_HW3)
    assert not np.array_equal(one.rgb_HW3, other.rgb_HW3)
    inside = one.rgb_HW3[cv2.erode(one.mask_HW, np.ones((5, 5), np.uint8)) == 1]
    assert np.abs(inside.astype(int) - (255, 0, 255)).max() <= 3
    assert np.abs(one.rgb_HW3[cv2.dilate(one.mask_HW, np.ones((5, 5), np.uint8)) == 0].astype(int) - 90).max() < 60


def test_a_folder_in_no_layout_names_what_to_download(tmp_path: Path) -> None:
    write_davis(tmp_path / "unpacked/DAVIS")
    with pytest.raises(FourfoldError) as raised:
        open_masks(DenseConfig(data=tmp_path))
    words = ("Give " + str(tmp_path / "unpacked/DAVIS"), "davischallenge.org", "VOCdevkit/VOC2012", "cutouts/*.png")
    assert [word for word in words if word not in str(raised.value)] == []


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
        (
            write_cutouts,
            lambda data: [cv2.imwrite(str(data / f"cutouts/c{i}.png"), np.zeros((9, 9, 3), np.uint8)) for i in (0, 1)],
            r"2 of 12 files are unfit: .*c0\.png, .*c1\.png",
        ),
        (write_cutouts, lambda data: [path.unlink() for path in (data / "photos").iterdir()], "photos: 0 images"),
    ],
)
def test_wrong_layouts_are_one_message(tmp_path: Path, make: Any, spoil: Any, words: str) -> None:
    data = make(tmp_path / "data")
    spoil(data)
    with pytest.raises(FourfoldError, match=words):
        open_masks(DenseConfig(data=data))
