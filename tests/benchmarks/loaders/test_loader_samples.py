"""The samples that are compared: which are taken, and that files, shards, boxes and reference are of the same ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.loaders import CompareOptions
from benchmarks.loaders.loader_samples import Samples, prepare_samples
from pipelines.base.errors import UsageError
from pipelines.read.reader import SampleReader
from pipelines.shards.format.manifest import load_manifest
from tests.made.pictures import Stored, encode, smooth_picture, write_folder


def sideways(content: bytes) -> bytes:
    """A JPEG with the note that it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    block = b"Exif\x00\x00" + exif.tobytes().removeprefix(b"Exif\x00\x00")
    return content[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + content[2:]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11 samples; the third is a PNG and the sixth is turned."""
    samples = []
    for index in range(11):
        width, height = 60 + index, 50
        suffix = "png" if index == 2 else "jpg"
        content = encode(smooth_picture(index, width, height), suffix)
        content = sideways(content) if index == 5 else content
        samples.append(
            Stored(key=f"train{index:04d}", suffix=suffix, encoded=content, width=width, height=height, label=0)
        )
    return write_folder(tmp_path_factory.mktemp("samples") / "shards", samples, per_shard=4)


def prepared(shards: Path, folder: Path, **changes: Any) -> Samples:
    folder.mkdir()
    given = {"batch_size": 2, "num_samples": 11, "canvas_px": 32, "num_cores": 1} | changes
    return prepare_samples(CompareOptions(shards=shards, **given), folder)


def test_only_upright_jpegs_are_taken_and_the_others_counted(shards: Path, tmp_path: Path) -> None:
    found = prepared(shards, tmp_path / "a")
    assert (found.num_samples, found.num_left_out) == (8, 2)  # the ninth fills no batch
    widths = [Image.open(path).width for path in sorted((tmp_path / "a" / "files").iterdir())]
    assert widths == [60, 61, 63, 64, 66, 67, 68, 69]
    assert found.median_width_px == np.median(widths)
    assert found.median_height_px == 50


def test_fewer_samples_are_taken_evenly(shards: Path, tmp_path: Path) -> None:
    assert prepared(shards, tmp_path / "a", num_samples=4).num_samples == 4
    widths = [Image.open(path).width for path in sorted((tmp_path / "a" / "files").iterdir())]
    assert widths == [60, 63, 66, 70]


def test_shards_hold_the_files_under_their_numbers(shards: Path, tmp_path: Path) -> None:
    found = prepared(shards, tmp_path / "a")
    table = load_manifest(tmp_path / "a" / "shards").select("image", "train")
    reader = SampleReader(table)
    assert sorted(int(key) for key in table.keys) == list(range(found.num_samples))
    assert len(table.shards) >= 2
    for row, key in enumerate(table.keys):
        assert bytes(reader.read(row)) == (tmp_path / "a" / "files" / f"{int(key):06d}.jpg").read_bytes()


def test_boxes_lie_within_the_images_and_cut_out_what_the_reference_shows(shards: Path, tmp_path: Path) -> None:
    prepared(shards, tmp_path / "a")
    boxes_N4, reference_NHW3 = np.load(tmp_path / "a" / "boxes.npy"), np.load(tmp_path / "a" / "reference.npy")
    for path, box, canvas in zip(sorted((tmp_path / "a" / "files").iterdir()), boxes_N4, reference_NHW3, strict=True):
        with Image.open(path) as image:
            assert 0 <= box[0] < box[2] <= image.width
            assert 0 <= box[1] < box[3] <= image.height
            pixels = image.resize((32, 32), Image.Resampling.BILINEAR, box=tuple(box.tolist()))
        # Not cut out first: near the edge of the box the filter sees a pixel more.
        assert np.abs(np.asarray(pixels, float) - canvas)[3:-3, 3:-3].max() <= 2


def test_the_same_samples_every_time(shards: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        prepared(shards, tmp_path / name)
    for name in ("boxes.npy", "reference.npy", "shards/manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_too_few_for_a_batch_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"9 of the 11 images looked at .* need at least one batch of 10"):
        prepared(shards, tmp_path / "a", batch_size=10)
