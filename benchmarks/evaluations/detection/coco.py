"""COCO layout: annotations/instances_SPLIT.json and SPLIT/FILE.jpg in, a boxed split out.

COCO boxes are x, y, width, height in pixels from 0. Class indices follow the order of category ids.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluations.detection.boxed_images import BoxedImage, BoxedSplit, checked_split
from pipelines.base.errors import DataError, UsageError

__all__ = ["COCO_NEEDS", "is_coco", "open_coco"]

COCO_NEEDS = (
    "COCO: annotations/instances_SPLIT.json and the images in SPLIT/. Unpack train2017.zip, val2017.zip and "
    "annotations_trainval2017.zip of https://cocodataset.org/#download in one folder and give it, with train_split: "
    "train2017, test_split: val2017"
)


def is_coco(data: Path) -> bool:
    """Return whether a folder has COCO's folder of annotations."""
    return (data / "annotations").is_dir()


def open_coco(data: Path, splits: Sequence[str]) -> list[BoxedSplit]:
    """Return the splits; their class names may differ, which `check_classes` reports. Raises UsageError or DataError.

    The JSON is read at once: COCO's train2017 takes about 2 GB of memory meanwhile.
    """
    return [_open_split(data, split) for split in splits]


def _open_split(data: Path, split: str) -> BoxedSplit:
    path = data / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        there = sorted(other.name for other in path.parent.glob("instances_*.json"))[:20]
        raise UsageError(
            f"{data}: has no {path.name} in annotations ({', '.join(there) or 'none there'}). {COCO_NEEDS}."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda one: int(one["id"]))
        index_of = {int(category["id"]): index for index, category in enumerate(categories)}
        found: dict[int, list[dict[str, Any]]] = {int(image["id"]): [] for image in content["images"]}
        for annotation in content["annotations"]:
            found[int(annotation["image_id"])].append(annotation)
        images = [_boxed(data / split, image, found[int(image["id"])], index_of) for image in content["images"]]
        class_names = [str(category["name"]) for category in categories]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no COCO annotations ({type(error).__name__}: {error}). Need images, categories and annotations "
            "whose image_id and category_id exist."
        ) from error
    return checked_split(images, class_names, where=f"{data}, split {split}")


def _boxed(
    folder: Path, image: dict[str, Any], annotations: Sequence[dict[str, Any]], index_of: dict[int, int]
) -> BoxedImage:
    boxes_K4 = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float32).reshape(-1, 4)
    boxes_K4[:, 2:] += boxes_K4[:, :2]
    return BoxedImage(
        name=str(image["file_name"]),
        path=folder / str(image["file_name"]),
        boxes_K4=boxes_K4,
        classes_K=np.array([index_of[int(one["category_id"])] for one in annotations], dtype=np.int64),
        ignored_K=np.array([bool(one.get("iscrowd", 0)) for one in annotations], dtype=np.bool_),
    )
