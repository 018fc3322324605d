"""Shards that `build_shards` makes, opened by the readers of others: webdataset, DALI, Hugging Face datasets."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from pipelines.base.progress import quiet_progress
from pipelines.read.reader import SampleReader
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.shards.format.index import index_path
from pipelines.shards.format.manifest import Kind, load_manifest
from tests.made.media import encoded_image, gray_frames, picture, write_image, write_video

LABELS = ("bird", "fish")
EXTENSIONS: dict[Kind, str] = {"image": "jpg", "clip": "mp4"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 shards of 5 labelled JPEGs, among them gray and turned ones with more facts in their sidecars; 2 clips."""
    root = tmp_path_factory.mktemp("elsewhere")
    for index in range(10):
        path = root / "source" / LABELS[index % 2] / f"img_{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        mode, orientation = "L" if index % 4 == 1 else "RGB", 6 if index % 4 == 2 else None
        path.write_bytes(encoded_image(picture(64, 48, index), mode=mode, orientation=orientation))
    write_video(root / "source/v.mp4", gray_frames([10 * index for index in range(20)]))
    with quiet_progress():
        build_shards(BuildConfig(sources=[root / "source"], out=root / "out", samples_per_shard=5, num_workers=1))
    return root / "out"


def tars(folder: Path, kind: Kind) -> list[str]:
    return sorted(str(path) for path in folder.glob(f"train-{kind}s-*.tar"))


def expected(folder: Path, kind: Kind) -> dict[str, tuple[bytes, int]]:
    """Encoded file and label by key, in order, as fourfold reads them."""
    table = load_manifest(folder).select(kind, "train")
    reader = SampleReader(table)
    return {key: (bytes(reader.read(row)), int(table.label[row])) for row, key in enumerate(table.keys)}


@pytest.mark.parametrize("kind", ["image", "clip"])
def test_webdataset_finds_every_sample_whole(folder: Path, kind: Kind) -> None:
    samples = list(webdataset.WebDataset(tars(folder, kind), shardshuffle=False))
    found = {one["__key__"]: (one[EXTENSIONS[kind]], int(one.get("cls", b"-1"))) for one in samples}
    assert list(found.items()) == list(expected(folder, kind).items())
    assert len(found) == {"image": 10, "clip": 2}[kind]
    assert all(json.loads(one["json"])["source"].partition(".")[0] in one["__key__"] for one in samples)


def test_webdataset_decodes_by_extension(folder: Path) -> None:
    dataset = (
        webdataset.WebDataset(tars(folder, "image"), shardshuffle=False).decode("pil").to_tuple("jpg", "cls", "json")
    )
    for (image, label, facts), (encoded, expected_label) in zip(
        dataset, expected(folder, "image").values(), strict=True
    ):
        np.testing.assert_array_equal(image, Image.open(io.BytesIO(encoded)).convert("RGB"))
        assert LABELS[label] == LABELS[expected_label] == facts["label"]


@pytest.mark.parametrize("kind", ["image", "clip"])
def test_dali_reads_by_our_index(folder: Path, kind: Kind) -> None:
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed")
    from nvidia.dali import fn, pipeline_def

    paths = tars(folder, kind)
    names = [EXTENSIONS[kind], "json", *(["cls"] if kind == "image" else [])]

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def graph() -> tuple[object, ...]:
        indexes = [str(index_path(Path(path))) for path in paths]
        read = fn.readers.webdataset(paths=paths, index_paths=indexes, ext=names, missing_component_behavior="error")
        return tuple(read)

    pipeline = graph()
    pipeline.build()
    for encoded, label in expected(folder, kind).values():
        found = [bytes(np.asarray(output[0])) for output in pipeline.run()]
        assert found[0] == encoded
        assert json.loads(found[1])["width"] > 0
        assert kind == "clip" or int(found[2]) == label


def dali_shapes(folder: Path, tar: str, ext: str, decode: str, batch_size: int) -> list[tuple[int, ...]]:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=batch_size, num_threads=1, device_id=None)
    def reading() -> Any:
        encoded, _ = fn.readers.webdataset(
            paths=[str(folder / tar)],
            index_paths=[str((folder / tar).with_suffix(".idx"))],
            ext=[ext, "json"],
            missing_component_behavior="error",
        )
        return fn.decoders.video(encoded) if decode == "video" else fn.decoders.image(encoded)

    (out,) = reading().run()
    return [out.at(index).shape for index in range(batch_size)]


def test_dali_decodes_image_shards(tmp_path: Path) -> None:
    for index in range(12):
        write_image(tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index:02d}.jpg", index)
    build_shards(BuildConfig(sources=[tmp_path / "photos"], out=tmp_path / "out"))
    shapes = dali_shapes(tmp_path / "out", "train-images-000000.tar", "jpg", "image", 12)
    assert shapes == [(48, 64, 3)] * 12


@pytest.mark.parametrize("codec", ["mjpeg", "vp9"])
def test_dali_decodes_clip_shards(tmp_path: Path, codec: str) -> None:
    write_video(tmp_path / "src" / "v.mp4", [picture(70, 50, seed=index) for index in range(30)])
    build_shards(BuildConfig(sources=[tmp_path / "src"], out=tmp_path / "out", codec=codec))
    shapes = dali_shapes(tmp_path / "out", "train-clips-000000.tar", "mp4", "video", 3)
    assert shapes == [(10, 50, 70, 3)] * 3


def test_hugging_face_datasets_stream_images(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    files = {"train": tars(folder, "image")}
    rows = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))
    for row, (key, (encoded, label)) in zip(rows, expected(folder, "image").items(), strict=True):
        assert (row["__key__"], row["cls"], row["json"]["label"]) == (key, label, LABELS[label])
        with Image.open(io.BytesIO(encoded)) as image:
            assert row["jpg"].size in (image.size, image.size[::-1])


def test_hugging_face_datasets_stream_clips(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    files = {"train": tars(folder, "clip")}
    rows = datasets.load_dataset(
        "webdataset", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path)
    ).cast_column("mp4", datasets.Video(decode=False))
    found = {row["__key__"]: row["mp4"]["bytes"] for row in rows}
    assert found == {key: encoded for key, (encoded, _) in expected(folder, "clip").items()}
