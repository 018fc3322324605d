"""Hand-made detection data: bright squares and dark discs on gray, in VOC and in COCO layout."""

import json
from pathlib import Path

import cv2
import numpy as np

Object = tuple[str, tuple[int, int, int, int]]


def scene(seed: int, height: int = 48, width: int = 64) -> tuple[np.ndarray, list[Object]]:
    """uint8 RGB, and name and box (x0, y0, x1, y1; x1 and y1 just outside) of one square and one disc."""
    rng = np.random.default_rng(seed)
    image = rng.normal(128, 8, (height, width, 3))
    objects: list[Object] = []
    for name, left_most in (("square", 2), ("disc", width // 2)):
        side = int(rng.integers(14, 22))
        x0, y0 = left_most + int(rng.integers(0, 8)), int(rng.integers(0, height - side))
        if name == "square":
            image[y0 : y0 + side, x0 : x0 + side] = (250, 220, 40)
        else:
            ys, xs = np.mgrid[:height, :width] + 0.5
            image[np.hypot(ys - y0 - side / 2, xs - x0 - side / 2) <= side / 2] = (10, 30, 120)
        objects.append((name, (x0, y0, x0 + side, y0 + side)))
    return np.clip(image, 0, 255).astype(np.uint8), objects


def voc_xml(objects: list[Object], *, difficult: int = 0) -> str:
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}"
        f"</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in objects
    ]
    return f"<annotation>{''.join(parts)}</annotation>"


def write_voc(folder: Path, num_train: int = 4, num_test: int = 2) -> Path:
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    names = [f"scene{index}" for index in range(num_train + num_test)]
    for index, name in enumerate(names):
        image, objects = scene(index)
        cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), image[..., ::-1])
        (folder / "Annotations" / f"{name}.xml").write_text(voc_xml(objects))
    (folder / "ImageSets/Main/trainval.txt").write_text("\n".join(names[:num_train]) + "\n")
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(names[num_train:]) + "\n")
    return folder


def write_coco(folder: Path, num_train: int = 4, num_test: int = 2) -> Path:
    (folder / "annotations").mkdir(parents=True)
    categories = [{"id": 7, "name": "square"}, {"id": 3, "name": "disc"}]
    ids = {"square": 7, "disc": 3}
    for split, seeds in (("train2017", range(num_train)), ("val2017", range(num_train, num_train + num_test))):
        (folder / split).mkdir()
        images, annotations = [], []
        for seed in seeds:
            image, objects = scene(seed)
            cv2.imwrite(str(folder / split / f"{seed}.jpg"), image[..., ::-1])
            images.append({"id": 100 + seed, "file_name": f"{seed}.jpg"})
            for name, (x0, y0, x1, y1) in objects:
                box = [x0, y0, x1 - x0, y1 - y0]
                annotations.append({"image_id": 100 + seed, "category_id": ids[name], "bbox": box, "iscrowd": 0})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder
