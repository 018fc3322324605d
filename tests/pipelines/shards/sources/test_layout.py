"""Which folders are splits and which are classes: the same by streaming names (tars) and by searching a tree."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.shards.sources.folders import folder_items
from pipelines.shards.sources.items import SourceItem, kind_of
from pipelines.shards.sources.layout import Layout, LayoutFinder, split_of_folder

TREES = {
    "classes": (["cat/1.jpg", "dog/2.jpg"], {"cat/1.jpg": ("cat", None), "dog/2.jpg": ("dog", None)}),
    "train and test": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg"],
        {"train/cat/1.jpg": ("cat", None), "train/dog/1.jpg": ("dog", None), "test/cat/2.jpg": ("cat", "test")},
    ),
    "train and val": (
        ["x/Train/cat/1.jpg", "x/Train/dog/1.jpg", "x/Valid/dog/2.jpg"],
        {
            "x/Train/cat/1.jpg": ("cat", "train"),
            "x/Train/dog/1.jpg": ("dog", "train"),
            "x/Valid/dog/2.jpg": ("dog", "val"),
        },
    ),
    "flat splits": (["train/1.jpg", "val/1.jpg"], {"train/1.jpg": (None, "train"), "val/1.jpg": (None, "val")}),
    "classes in one split, none in the other": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "validation/1.jpg", "test/2.jpg"],
        {
            "train/cat/1.jpg": ("cat", "train"),
            "train/dog/1.jpg": ("dog", "train"),
            "validation/1.jpg": (None, "val"),
            "test/2.jpg": (None, "test"),
        },
    ),
    "wrapped in each split": (
        ["train/images/cat/1.jpg", "dev/images/dog/1.jpg", "info.jpg"],
        {"train/images/cat/1.jpg": ("cat", "train"), "dev/images/dog/1.jpg": ("dog", "val"), "info.jpg": (None, None)},
    ),
    "videos": (
        ["train/run/1.mp4", "test/jump/2.mp4"],
        {"train/run/1.mp4": (None, None), "test/jump/2.mp4": (None, "test")},
    ),
    "a split and another folder": (
        ["train/1.jpg", "extra/2.jpg", "test/3.jpg"],
        {"train/1.jpg": ("train", None), "extra/2.jpg": ("extra", None), "test/3.jpg": ("test", None)},
    ),
    "train alone": (
        ["train/cat/1.jpg", "train/dog/2.jpg"],
        {"train/cat/1.jpg": ("cat", None), "train/dog/2.jpg": ("dog", None)},
    ),
    "test alone": (
        ["test/cat/1.jpg", "test/dog/2.jpg"],
        {"test/cat/1.jpg": ("cat", "test"), "test/dog/2.jpg": ("dog", "test")},
    ),
    "a split below an image of train": (
        ["train/1.jpg", "train/val/1.jpg"],
        {"train/1.jpg": (None, None), "train/val/1.jpg": (None, "val")},
    ),
    "splits inside of classes": (
        ["bottle/train/1.jpg", "bottle/test/2.jpg", "cable/train/3.jpg"],
        {
            "bottle/train/1.jpg": ("bottle", None),
            "bottle/test/2.jpg": ("bottle", None),
            "cable/train/3.jpg": ("cable", None),
        },
    ),
    "YOLO": (
        ["images/train/1.jpg", "images/val/2.jpg", "labels/train/1.txt", "labels/val/2.txt"],
        {"images/train/1.jpg": (None, "train"), "images/val/2.jpg": (None, "val")},
    ),
}


def streamed(names: list[str]) -> Layout:
    finder = LayoutFinder()
    for name in names:
        if kind := kind_of(name):
            finder.add(name.split("/")[:-1], is_image=kind == "image")
    return finder.layout()


def by_stream(names: list[str]) -> dict[str, tuple[str | None, str | None]]:
    layout = streamed(names)
    found = {name: layout.of(name.split("/")[:-1]) for name in names if kind_of(name)}
    return {name: (label if kind_of(name) == "image" else None, split) for name, (label, split) in found.items()}


def by_search(root: Path, names: list[str]) -> dict[str, tuple[str | None, str | None]]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    found = folder_items(str(root), with_labels=True)
    return {one.source: (one.label, one.split) for one in found if isinstance(one, SourceItem)}


@pytest.mark.parametrize(("names", "expected"), TREES.values(), ids=TREES)
def test_labels_and_splits_of_usual_trees(
    tmp_path: Path, names: list[str], expected: dict[str, tuple[str | None, str | None]]
) -> None:
    assert by_stream(names) == expected
    assert by_stream(names[::-1]) == expected
    assert by_search(tmp_path, names) == expected


PARTS = st.sampled_from(["train", "val", "test", "cat", "dog"])
NAMES = st.lists(st.lists(PARTS, max_size=3), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(NAMES, st.lists(st.sampled_from(["jpg", "mp4"]), min_size=6, max_size=6))
def test_streaming_and_searching_agree(
    tmp_path_factory: pytest.TempPathFactory, folders: list[list[str]], suffixes: list[str]
) -> None:
    names = list(
        dict.fromkeys("/".join([*parts, f"1.{suffix}"]) for parts, suffix in zip(folders, suffixes, strict=False))
    )
    assert by_stream(names) == by_search(tmp_path_factory.mktemp("tree"), names)


@pytest.mark.parametrize(
    "name", ["train", "Train", " VAL ", "valid", "validation", "TEST", "training", "testing", "dev"]
)
def test_names_of_splits(name: str) -> None:
    assert split_of_folder(name) in ("train", "val", "test")
    assert split_of_folder(f"{name}s") is None


def test_splits_that_must_be_several() -> None:
    finder = LayoutFinder()
    finder.add(["data", "test", "a"], is_image=True)
    assert finder.has_split_level
    assert finder.layout().split_level == 1
    assert finder.layout(min_splits=2).split_level is None
    finder.add(["data", "other"], is_image=True)
    assert not finder.has_split_level
