import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.evaluations.detection.boxed_images import check_classes
from benchmarks.evaluations.detection.coco import open_coco
from benchmarks.evaluations.detection.evaluation import DetectionConfig, open_boxes
from benchmarks.evaluations.detection.voc import open_voc
from pipelines.base.errors import FourfoldError
from tests.made.boxed_data import scene, voc_xml, write_coco, write_voc
from tests.made.cutouts import write_cutouts


def test_voc_and_coco_layouts_give_the_same_boxes(tmp_path: Path) -> None:
    (voc,) = open_voc(write_voc(tmp_path / "voc"), ["trainval"])
    (coco,) = open_coco(write_coco(tmp_path / "coco"), ["train2017"])
    assert voc.class_names == coco.class_names == ("disc", "square")  # sorted by name, and by id
    for index, (one, other) in enumerate(zip(voc.images, coco.images, strict=True)):
        _, objects = scene(index)
        np.testing.assert_array_equal(one.boxes_K4, [box for _, box in objects])
        np.testing.assert_array_equal(one.boxes_K4, other.boxes_K4)
        assert one.classes_K.tolist() == other.classes_K.tolist() == [1, 0]
    assert voc.num_boxes == 8


def test_difficult_and_crowd_boxes_are_ignored(tmp_path: Path) -> None:
    data = write_voc(tmp_path / "voc")
    (data / "Annotations/scene0.xml").write_text(voc_xml(scene(0)[1], difficult=1))
    (voc,) = open_voc(data, ["trainval"])
    assert (voc.images[0].ignored_K.tolist(), voc.num_boxes) == ([True, True], 6)
    path = write_coco(tmp_path / "coco") / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    (coco,) = open_coco(tmp_path / "coco", ["val2017"])
    assert coco.num_boxes == 3


def test_boxes_that_leave_the_image_by_a_pixel_are_cut(tmp_path: Path) -> None:
    data = write_voc(tmp_path / "voc")
    (data / "Annotations/scene0.xml").write_text(voc_xml([("disc", (-1, 0, 65, 49))]))
    (voc,) = open_voc(data, ["trainval"])
    assert voc.images[0].boxes_K4.tolist() == [[0, 0, 64, 48]]


def annotation(text: str) -> Callable[[Path], object]:
    return lambda data: (data / "Annotations/scene1.xml").write_text(text)


def instances(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def spoil(data: Path) -> None:
        path = data / "annotations/instances_val2017.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


BAD_BOXES = "1 images or boxes are unfit: scene1 has the box"


@pytest.mark.parametrize(
    ("make", "spoil", "words"),
    [
        (write_voc, annotation(voc_xml([("disc", (9, 5, 9, 20))])), [BAD_BOXES, "9 5 9 20", "64 x 48"]),
        (write_voc, annotation(voc_xml([("disc", (0, 0, 70, 20))])), [BAD_BOXES, "0 0 70 20"]),
        (write_voc, annotation(voc_xml([("disc", (1, 1, 9, 9))]).replace(">9<", ">nan<")), [BAD_BOXES, "nan"]),
        (write_voc, annotation("<annotation><object>"), ["scene1.xml: no VOC annotation"]),
        (write_voc, annotation("<annotation><object><name>a</name></object></annotation>"), ["lacks its name or one"]),
        (write_voc, annotation('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'), ["entity definitions"]),
        (write_voc, lambda data: (data / "Annotations/scene1.xml").unlink(), ["scene1.xml: missing"]),
        (write_voc, lambda data: (data / "JPEGImages/scene1.jpg").write_bytes(b"x"), ["scene1.jpg is missing or no"]),
        (write_voc, lambda data: (data / "ImageSets/Main/test.txt").unlink(), ["no split test", "trainval"]),
        (write_voc, lambda data: (data / "ImageSets/Main/test.txt").write_text("\n"), ["names no image"]),
        (write_voc, lambda data: (data / "JPEGImages").rename(data / "images"), ["no folder JPEGImages", "VOC2007"]),
        (
            write_voc,
            lambda data: (data / "Annotations/scene4.xml").write_text(voc_xml([("cat", (1, 1, 20, 20))])),
            ["no box of cat in the train split"],
        ),
        (write_coco, lambda data: (data / "annotations/instances_val2017.json").unlink(), ["instances_train2017.json"]),
        (write_coco, instances(lambda content: content.pop("images")), ["no COCO annotations (KeyError"]),
        (write_coco, instances(lambda content: content["annotations"][0].update(category_id=9)), ["category_id exist"]),
        (write_coco, instances(lambda content: content["annotations"][0].update(bbox=[1, 1, 0, 5])), ["1 1 1 6"]),
        (write_coco, instances(lambda content: content["categories"][0].update(name="cube")), ["cube", "square"]),
    ],
)
def test_unfit_data_is_one_message(
    tmp_path: Path, make: Callable[[Path], Path], spoil: Callable[[Path], object], words: list[str]
) -> None:
    data = make(tmp_path / "data")
    spoil(data)
    splits = {} if make is write_voc else {"train_split": "train2017", "test_split": "val2017"}
    with pytest.raises(FourfoldError) as raised:
        open_boxes(DetectionConfig(data=data, **splits))
    assert [word for word in words if word not in str(raised.value)] == []


def test_a_folder_in_neither_layout(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCdevkit/VOC2007")
    for data, hint in ((tmp_path, f"Give {tmp_path}/VOCdevkit/VOC2007"), (tmp_path / "gone", "is no folder")):
        with pytest.raises(FourfoldError) as raised:
            open_boxes(DetectionConfig(data=data))
        words = (hint, "VOCtest_06-Nov-2007.tar of http://host.robots.ox.ac.uk", "https://cocodataset.org/#download")
        assert [word for word in words if word not in str(raised.value)] == []


def test_boxes_of_composites_are_exact(tmp_path: Path) -> None:
    """The box holds all magenta pixels, and each of its sides touches one."""
    train, test = open_boxes(DetectionConfig(data=write_cutouts(tmp_path / "cut"), per_cutout=3))
    assert (len(train.images), len(test.images), train.class_names) == (12, 6, ("object",))
    for image in (*train.images, *test.images):
        rgb = image.read().astype(int)
        is_object = (np.abs(rgb - (255, 0, 255)).max(axis=2)) < 100
        rows, columns = (np.flatnonzero(is_object.any(axis=axis)) for axis in (1, 0))
        wanted = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(image.boxes_K4[0] - wanted).max() <= 1


def test_a_cutout_that_nothing_is_seen_of_is_named(tmp_path: Path) -> None:
    data = write_cutouts(tmp_path / "cut")
    cv2.imwrite(str(data / "cutouts/c1.png"), np.zeros((20, 20, 4), np.uint8))
    with pytest.raises(FourfoldError, match=r"c1\.png: the cut-out has no opaque pixel"):
        open_boxes(DetectionConfig(data=data))


def test_real_voc_folders(shared_data: Path, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(shared_data / "voc.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    for name, num_images, num_boxes in (("animals", 364, 483), ("cards", 363, 670)):
        train, test = open_voc(tmp_path / "voc_subset" / name, ["trainval", "test"])
        check_classes(train, test, where=name)
        assert (len(train.images) + len(test.images), train.num_boxes + test.num_boxes) == (num_images, num_boxes)
