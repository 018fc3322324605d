import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.suite.costs.calibrate.image_slice import write_slice
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest
from tests.made.pictures import stored_images, write_splits


def bytes_by_key(folder: Path, split: str) -> dict[str, bytes]:
    table = load_manifest(folder).select("image", split)
    reader = SampleReader(table)
    return {key: bytes(reader.read(row)) for row, key in enumerate(table.keys)}


def test_a_slice_has_so_many_images_of_every_class_and_they_are_the_same(tmp_path: Path) -> None:
    images = write_splits(
        tmp_path / "shards", {"train": stored_images(31), "val": stored_images(9, split="val")}, per_shard=7
    )
    counts = write_slice(images, {"train": 4, "val": 100}, tmp_path / "slice")
    assert counts == {"train": 12, "val": 9}
    table = load_manifest(tmp_path / "slice").select("image", "train")
    assert Counter(table.label.tolist()) == {0: 4, 1: 4, 2: 4}
    # Spread over all shards, from the first image of a class to the last.
    assert table.keys[0] == "train0000"
    assert table.keys[-1] == "train0030"
    for split in ("train", "val"):
        whole = bytes_by_key(images, split)
        found = bytes_by_key(tmp_path / "slice", split)
        assert found == {key: whole[key] for key in found}


def test_a_slice_can_be_cut_of_a_slice_and_copies_nothing(small_shards: Callable[..., Path], tmp_path: Path) -> None:
    images = small_shards(images=30)
    write_slice(images, {"train": 5}, tmp_path / "one")
    assert write_slice(tmp_path / "one", {"train": 2}, tmp_path / "two") == {"train": 6}
    assert not list(tmp_path.glob("two/*.tar"))
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["labels"]
    assert np.unique(load_manifest(tmp_path / "two").select("image", "train").label).tolist() == [0, 1, 2]
