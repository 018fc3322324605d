"""Warnings of what is left out: number, example, and formats that hold pictures said first."""

import pytest

from pipelines.shards.sources import left_out as module
from pipelines.shards.sources.items import Ignored, Note, SourceItem
from pipelines.shards.sources.left_out import LeftOut


def item(name: str, label: str | None) -> SourceItem:
    kind = "image" if name.endswith("jpg") else "clip"
    return SourceItem(name, "file", 0, 1, 0, name, name, kind, label)  # type: ignore[arg-type]


def test_nothing_left_out_is_no_line() -> None:
    left_out = LeftOut()
    assert left_out.add_items([item("a.jpg", "x"), item("b.mp4", None)], with_labels=True) == 1
    assert list(left_out.warnings()) == []


@pytest.mark.parametrize("name", ["a.heic", "b.avif", "00001.MTS", "photos.zip", "x.jxl", "c.CR2", "more.tar"])
def test_pictures_in_other_formats_are_named(name: str) -> None:
    left_out = LeftOut()
    for index in range(500):
        left_out.add_ignored(Ignored(f"data/{index}.json"))
    for other in "abcdefghij":
        left_out.add_ignored(Ignored(f"a.{other}{other}"))
    left_out.add_ignored(Ignored(f"data/{name}"))
    (line,) = left_out.warnings()
    assert line.startswith("511 files are left out")
    assert line.index(name) < line.index("500 .json")
    assert any(remedy in line for remedy in ("convert", "unpack", "name as sources"))


def test_images_without_a_label_are_counted_where_others_have_one() -> None:
    left_out = LeftOut()
    left_out.add_items([item("a.jpg", None), item("b.jpg", None)], with_labels=True)
    assert list(left_out.warnings()) == []
    left_out.add_items([item("c.jpg", "cat"), item("d.mp4", None)], with_labels=True)
    assert list(left_out.warnings()) == ["2 of 3 images have no label, for example a.jpg"]


def test_labels_of_videos_are_told() -> None:
    left_out = LeftOut()
    left_out.add_items([item("a.mp4", "run"), item("b.mp4", "jump")], with_labels=True)
    (line,) = left_out.warnings()
    assert line.startswith("labels of 2 videos are left out, for example of a.mp4")


def test_the_same_note_of_many_sources_is_one_line() -> None:
    left_out = LeftOut()
    for index in range(100):
        left_out.add_note(Note(f"{index}.tar", "no label found"))
    left_out.add_note(Note("x.csv", "another"))
    assert list(left_out.warnings()) == ["0.tar and 99 other sources: no label found", "x.csv: another"]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KINDS", 5)
    left_out = LeftOut()
    for index in range(100):
        left_out.add_ignored(Ignored(f"a.{index}"))
    assert left_out.num_ignored == 100
    assert len(left_out._ignored) == 5
