import os
from pathlib import Path

import pytest

from pipelines.base.errors import UsageError
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.making.planning import plan_build, probe_videos
from pipelines.shards.sources.items import SourceItem
from tests.made.media import gray_frames, write_image, write_video


def config(*sources: Path, **options: object) -> BuildConfig:
    return BuildConfig.model_validate({"sources": list(sources), "out": sources[0].parent / "out"} | options)


def test_images_and_videos_are_listed_and_planned(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / "src" / f"{index}.jpg", index)
    write_video(tmp_path / "src" / "v.mp4", gray_frames([2 * index for index in range(70)]))
    (tmp_path / "src" / "notes.txt").write_text("")
    told: list[int] = []
    planned = plan_build(config(tmp_path / "src", samples_per_shard=3), tmp_path, told.append)
    found = [(one.name, one.num_items, one.num_samples) for one in planned.plan.outlines]
    assert found == [
        ("train-images-000000.tar", 3, 3),
        ("train-images-000001.tar", 1, 1),
        ("train-clips-000000.tar", 1, 3),
        ("train-clips-000001.tar", 1, 3),
        ("train-clips-000002.tar", 1, 1),
    ]
    assert (planned.num_items, planned.listing.num_ignored, told) == (5, 1, [5])
    assert not (tmp_path / "out").exists()


def test_rejects_of_the_listing_are_items_too(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "list.csv").write_text('path\na.jpg\n""\n')
    planned = plan_build(config(tmp_path / "list.csv"), tmp_path)
    assert (planned.num_items, planned.plan.num_items, len(planned.listing.rejects)) == (2, 1, 1)


def test_nothing_to_pack_is_a_usage_error_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "plan").mkdir()
    with pytest.raises(UsageError, match="no files found"):
        plan_build(config(tmp_path / "src"), tmp_path / "plan")
    assert list((tmp_path / "plan").iterdir()) == []


def test_videos_are_probed_whatever_is_wrong_with_them(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", gray_frames([5] * 30))
    (tmp_path / "b.mp4").write_bytes(b"no video")
    items = [SourceItem(str(tmp_path / f"{name}.mp4"), "file", 0, -1, 0, name, name, "clip") for name in "abc"]
    found = probe_videos(items)
    assert found[1:] == [None, None]
    assert found[0] is not None
    assert (found[0].width, found[0].height) == (64, 48)
    assert found[0].duration_s == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize(
    ("folders", "is_told"),
    [
        (["train2017", "val2017"], True),
        (["train_images", "Test-images", "extra"], True),
        (["training", "unlabeled", "validation set"], True),
        (["train", "bus", "car"], False),
        (["trains", "tests"], False),
        (["vals", "cat"], False),
    ],
)
def test_classes_that_look_like_splits_are_told(tmp_path: Path, folders: list[str], is_told: bool) -> None:
    for folder in folders:
        write_image(tmp_path / "src" / folder / "1.jpg")
    warnings = list(plan_build(config(tmp_path / "src"), tmp_path).warnings())
    assert any("if they are splits" in line for line in warnings) == is_told


@pytest.mark.parametrize(
    ("folders", "is_told"), [(["train", "val"], True), (["train", "test"], False), (["a", "b"], False)]
)
def test_a_rule_that_divides_nothing_is_told(tmp_path: Path, folders: list[str], is_told: bool) -> None:
    for folder in folders:
        write_image(tmp_path / "src" / folder / "1.jpg")
    warnings = list(plan_build(config(tmp_path / "src", val="every:2"), tmp_path).warnings())
    assert any("divides nothing" in line for line in warnings) == is_told


@pytest.mark.parametrize("kind", ["folder", "csv", "jsonl"])
def test_labels_that_are_no_utf8_are_told(tmp_path: Path, kind: str) -> None:
    names = [b"caf\xe9", b"caf\xe8"]
    for name in names:
        folder = tmp_path / "src" / os.fsdecode(name)
        write_image(folder / "1.jpg")
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg")
    (tmp_path / "l.csv").write_bytes(b"path,label\na.jpg,%b\nb.jpg,%b\n" % tuple(names))
    (tmp_path / "l.jsonl").write_text('{"path": "a.jpg", "label": "\\ud800"}\n{"path": "b.jpg", "label": "\\ud801"}\n')
    source = tmp_path / {"folder": "src", "csv": "l.csv", "jsonl": "l.jsonl"}[kind]
    planned = plan_build(config(source), tmp_path)
    assert len(planned.plan.labels) == 2
    assert any("2 classes have names that are no UTF-8" in line for line in planned.warnings())
