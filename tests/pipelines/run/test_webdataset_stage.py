"""Batches made inside a WebDataset pipeline, against those of `build_pipeline` for the same keys and pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from pipelines.base.errors import DataError, UsageError
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.run.webdataset_stage import WebDatasetStage
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.tasks.base import TaskBatch
from tests.made.media import write_image

MakeShards = Callable[..., Path]
CLASSES = ("cat", "dog", "owl")
TASKS: dict[str, Any] = {"relative_position": {}, "colorization": {}, "exemplar": {}, "supervised": {}}


@pytest.fixture
def labelled(tmp_path: Path) -> MakeShards:
    """labelled(12, per_shard=5) -> folder of shards of PNGs of 56 x 48 to 70 x 61 px, in three classes."""

    def make(images: int, per_shard: int = 5) -> Path:
        for index in range(images):
            path = tmp_path / "photos" / CLASSES[index % 3] / f"{index:03d}.png"
            write_image(path, index, width=56 + index % 15, height=48 + index % 14, kind="PNG")
        build_shards(
            BuildConfig(
                sources=[tmp_path / "photos"], out=tmp_path / "shards", samples_per_shard=per_shard, num_workers=1
            )
        )
        return tmp_path / "shards"

    return make


def config_of(folder: Path | None = None, **changed: Any) -> PipelineConfig:
    settings = {"tasks": TASKS, "canvas_px": 96, "batch_size": 4, "num_threads": 1, "images": folder} | changed
    return PipelineConfig(**settings)


def tars_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.tar"))


def decoded(folder: Path, how: str = "rgb8") -> dict[str, dict[str, Any]]:
    """All samples of a folder by key, read and decoded by webdataset."""
    dataset = webdataset.WebDataset(tars_of(folder), shardshuffle=False).decode(how)
    return {sample["__key__"]: sample for sample in dataset}


def assert_same(one: TaskBatch, other: TaskBatch) -> None:
    assert one.keys == other.keys
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.weight, other.weight)
    assert one.target.keys() == other.target.keys()
    for name in one.target:
        assert torch.equal(one.target[name], other.target[name]), name
    for name in other.geometry:
        np.testing.assert_array_equal(one.geometry[name], other.geometry[name])


@pytest.mark.parametrize(
    "changed",
    [{}, {"share_decode": False}, {"harmonize": "all"}, {"canvas_scale": (0.3, 0.5), "flip_probability": 1.0}],
    ids=str,
)
def test_batches_are_those_of_the_pipeline(labelled: MakeShards, changed: dict[str, Any]) -> None:
    folder = labelled(12)
    samples, config = decoded(folder), config_of(folder, **changed)
    stage = WebDatasetStage(config, seed=7)
    with build_pipeline(config, seed=7) as pipeline:
        for _ in range(3):  # one epoch
            batches = next(pipeline).batches
            keys = next(iter(batches.values())).keys
            stage.set_epoch(0)
            (made,) = stage([samples[key] for key in keys])
            assert list(made) == list(batches)
            for name in made:
                assert_same(made[name], batches[name])


def test_a_second_pass_is_the_second_epoch(labelled: MakeShards) -> None:
    folder = labelled(8)
    samples, config = decoded(folder), config_of(folder)
    stage = WebDatasetStage(config, seed=7)
    with build_pipeline(config, seed=7) as pipeline:
        for epoch in range(3):
            for _ in range(2):
                batches = next(pipeline).batches
                again = WebDatasetStage(config, seed=7)
                again.set_epoch(epoch)
                (made,) = again([samples[key] for key in batches["exemplar"].keys])
                assert_same(made["exemplar"], batches["exemplar"])
    passes = [list(stage(samples.values())) for _ in range(2)]
    boxes = [np.concatenate([one["exemplar"].geometry["box"] for one in made]) for made in passes]
    assert (boxes[0] != boxes[1]).any()


@pytest.mark.parametrize("how", ["rgb8", "rgb", "torchrgb8", "torchrgb", "pil"])
def test_runs_inside_a_webdataset_pipeline(labelled: MakeShards, how: str) -> None:
    folder = labelled(10, per_shard=10)
    stage = WebDatasetStage(config_of(), seed=3)
    dataset = webdataset.WebDataset(tars_of(folder), shardshuffle=False).shuffle(10).decode(how).compose(stage)
    found = list(dataset)
    assert [len(one["colorization"].keys) for one in found] == [4, 4, 2]
    # The same rows whatever came before them: a sample's numbers depend on its key alone.
    rows = {key: one["colorization"].inputs[row] for one in found for row, key in enumerate(one["colorization"].keys)}
    ordered = WebDatasetStage(config_of(batch_size=10), seed=3)
    (whole,) = ordered(decoded(folder, how).values())
    batch = whole["colorization"]
    assert len(rows) == 10
    assert all(torch.equal(batch.inputs[row], rows[key]) for row, key in enumerate(batch.keys))
    assert batch.geometry["label"].tolist() == [CLASSES.index(key.partition("/")[0]) for key in batch.keys]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_of_a_loader_make_the_same(labelled: MakeShards, persistent: bool) -> None:
    folder = labelled(8, per_shard=4)
    stage = WebDatasetStage(config_of(tasks={"relative_position": {}}), seed=3)
    dataset = webdataset.WebDataset(tars_of(folder), shardshuffle=False).decode("rgb8").compose(stage)
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=2, persistent_workers=persistent)
    for epoch in (0, 5):
        stage.set_epoch(epoch)
        found = {one["relative_position"].keys: one["relative_position"] for one in loader}
        here = WebDatasetStage(config_of(tasks={"relative_position": {}}), seed=3)
        here.set_epoch(epoch)
        expected = list(here(decoded(folder).values()))
        assert len(found) == len(expected) == 2
        for one in expected:
            assert_same(found[one["relative_position"].keys], one["relative_position"])


def test_the_last_short_batch_may_be_left_out(labelled: MakeShards) -> None:
    samples = list(decoded(labelled(9)).values())
    assert len(list(WebDatasetStage(config_of(), seed=0, drop_last=True)(samples))) == 2
    # Exemplar compares two images, so a last batch of one is left out in any case.
    assert len(list(WebDatasetStage(config_of(), seed=0)(samples))) == 2
    assert len(list(WebDatasetStage(config_of(tasks={"colorization": {}}), seed=0)(samples))) == 3
    assert list(WebDatasetStage(config_of(), seed=0)([])) == []


def test_fields_can_be_named_and_labels_be_missing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 130, 3)).astype(np.uint8)
    samples = [{"__key__": str(n), "left.png": pixels, "jpg": None, "class": n} for n in range(2)]
    config = config_of(tasks={"colorization": {}}, batch_size=2)
    (made,) = WebDatasetStage(config, seed=0, image_field="left.png", label_field="class")(samples)
    assert made["colorization"].geometry["label"].tolist() == [0, 1]
    (made,) = WebDatasetStage(config, seed=0, image_field="left.png")(samples)
    assert made["colorization"].geometry["label"].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"__key__": "a", "jpg": b"\xff\xd8"}, r'sample a: jpg is encoded bytes; .*\.decode\("rgb8"\)'),
        ({"__key__": "a", "jpg": np.zeros((9, 9), np.uint8)}, r"uint8 \(9, 9\)"),
        ({"__key__": "a", "jpg": np.zeros((9, 9, 3), np.int32)}, "int32"),
        ({"__key__": "a", "txt": "x"}, "sample a: no image; it has txt"),
        ({"jpg": np.zeros((9, 9, 3), np.uint8)}, "__key__ None"),
    ],
)
def test_samples_that_are_no_images_are_named(sample: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        next(WebDatasetStage(config_of(), seed=0)([sample, sample]))


@pytest.mark.parametrize(
    ("seed", "tasks", "message"),
    [(-1, TASKS, "seed -1"), (0, {}, "tasks none"), (0, {"motion_segmentation": {}}, "tasks motion_segmentation")],
)
def test_what_cannot_work_is_refused_at_once(seed: int, tasks: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WebDatasetStage(config_of(tasks=tasks), seed=seed)


def test_gray_and_transparent_pillow_images_become_rgb() -> None:
    images = [Image.new(mode, (130, 120), 90) for mode in ("L", "RGBA", "P")]
    samples = [{"__key__": str(row), "png": image} for row, image in enumerate(images)]
    (made,) = WebDatasetStage(config_of(tasks={"colorization": {}}, batch_size=3), seed=0)(samples)
    assert made["colorization"].inputs.shape == (3, 3, 96, 96)
