"""Listing: every sort of source in one go, in order and in batches, and clear errors for what is none."""

import io
import tarfile
from pathlib import Path

import fsspec
import pytest

from pipelines.base.errors import UsageError
from pipelines.shards.sources import listing as sources
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import SourceItem
from pipelines.shards.sources.listing import ListColumns, Listing, list_sources


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def made_tar(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    return path


def items(listing: Listing) -> list[SourceItem]:
    return [item for batch in listing.items for item in batch]


def test_all_sorts_of_sources_in_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "folder/cat/a.jpg", "folder/dog/b.jpg", "single.png", "clip.mp4")
    (tmp_path / "list.csv").write_text("path,label\nsingle.png,bird\n")
    tar = made_tar(tmp_path / "x.tar", "c.jpg", "c.txt")
    given = [tar, tmp_path / "folder", tmp_path / "clip.mp4", tmp_path / "list.csv", tmp_path / "single.png"]
    listing = list_sources(given)
    found = items(listing)
    assert [(item.source, item.via, item.label) for item in found] == [
        ("x.tar/c.jpg", "tar", None),
        ("cat/a.jpg", "file", "cat"),
        ("dog/b.jpg", "file", "dog"),
        ("clip.mp4", "file", None),
        ("single.png", "file", "bird"),
        ("single.png", "file", None),
    ]
    assert (listing.num_items, listing.num_ignored, listing.rejects) == (6, 1, [])
    assert {ItemReader().read(item) for item in found if item.kind == "image"} == {b"x"}


def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BATCH_ITEMS", 3)
    listing = list_sources([touch(tmp_path / "a", *[f"{n}.jpg" for n in range(7)]), touch(tmp_path / "b", "x.jpg")])
    assert [len(batch) for batch in listing.items] == [3, 3, 1, 1]
    assert listing.num_items == 8


def test_nothing_is_listed_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BATCH_ITEMS", 1)
    first, second = touch(tmp_path / "a", "1.jpg"), touch(tmp_path / "b", "2.jpg")
    listing = list_sources([first, second])
    next(listing.items)
    touch(second, "3.jpg")
    assert [item.source for item in items(listing)] == ["2.jpg", "3.jpg"]


def test_labels_can_be_switched_off(tmp_path: Path) -> None:
    touch(tmp_path, "folder/cat/a.jpg", "folder/dog/b.jpg")
    (tmp_path / "list.csv").write_text("path,label\nfolder/cat/a.jpg,bird\n")
    given = [tmp_path / "folder", tmp_path / "list.csv", made_tar(tmp_path / "x.tar", "a/1.jpg", "b/2.jpg")]
    assert {item.label for item in items(list_sources(given, labels="off"))} == {None}
    assert {item.label for item in items(list_sources(given))} == {"cat", "dog", "bird", "a", "b"}


def test_columns_are_handed_on(tmp_path: Path) -> None:
    (touch(tmp_path, "a.jpg") / "list.csv").write_text("photo,breed\na.jpg,lynx\n")
    (item,) = items(list_sources([tmp_path / "list.csv"], columns=ListColumns(path="photo", label="breed")))
    assert item.label == "lynx"


def test_rejects_are_collected(tmp_path: Path) -> None:
    (touch(tmp_path, "a.jpg") / "list.txt").write_text("a.jpg\nnotes.doc\n")
    listing = list_sources([tmp_path / "list.txt", made_tar(tmp_path / "x.tar", "../up.jpg")])
    assert len(items(listing)) == 1
    assert [reject.source for reject in listing.rejects] == ["list.txt:2 notes.doc", "x.tar/../up.jpg"]


def test_urls_of_every_sort(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    tar = made_tar(tmp_path / "x.tar", "t.jpg").read_bytes()
    contents = {"f/cat/a.jpg": b"x", "f/dog/b.jpg": b"x", "l.csv": b"path\nf/cat/a.jpg\n", "0.tar": tar, "1.tar": tar}
    for name, content in contents.items():
        memory.pipe_file(f"/every/{name}", content)
    given = ["memory://every/f", "memory://every/l.csv", "memory://every/*.tar", "memory://every/f/dog/b.jpg"]
    found = items(list_sources(given))
    names = ["cat/a.jpg", "dog/b.jpg", "f/cat/a.jpg", "0.tar/t.jpg", "1.tar/t.jpg", "b.jpg"]
    assert [item.source for item in found] == names
    assert {ItemReader().read(item) for item in found} == {b"x"}


def test_pattern_that_matches_nothing() -> None:
    with pytest.raises(UsageError, match="matches nothing"):
        list_sources(["memory://none/*.tar"])


def test_links_that_lead_nowhere_are_items(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "none.jpg")
    (item,) = items(list_sources([tmp_path / "gone.jpg"]))
    assert item.size == -1


def test_missing_path_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file or folder\. Give an image"):
        list_sources([tmp_path / "nowhere"])


def test_folder_without_images_names_what_is_allowed(tmp_path: Path) -> None:
    listing = list_sources([touch(tmp_path, "a.txt", "b.tar")])
    with pytest.raises(UsageError, match=r"2 files, but no image and no video found\. Allowed: .*\.jpg.* name tars"):
        items(listing)


@pytest.mark.parametrize("given", [[], ["empty"], ["list.txt"]])
def test_nothing_at_all_is_one_clear_error(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("x.doc\n")
    with pytest.raises(UsageError, match="no files found"):
        items(list_sources([tmp_path / name for name in given]))


def splits_of(listing: Listing) -> dict[str, str | None]:
    return {item.source: item.split for item in items(listing)}


@pytest.mark.parametrize("kind", ["folder", "tar", "list", "file", "folder of splits", "list with splits", "URL"])
def test_any_source_can_be_given_a_split(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, "d/cat/a.jpg", "d/dog/b.jpg", "s/train/a.jpg", "s/val/b.jpg", "one.jpg")
    (tmp_path / "l.csv").write_text("path\none.jpg\n")
    (tmp_path / "ls.csv").write_text("path,split\none.jpg,train\n")
    fsspec.filesystem("memory").pipe_file("/given/cat/a.jpg", b"x")
    source = {
        "folder": tmp_path / "d",
        "tar": made_tar(tmp_path / "x.tar", "train/a.jpg", "val/b.jpg"),
        "list": tmp_path / "l.csv",
        "file": tmp_path / "one.jpg",
        "folder of splits": tmp_path / "s",
        "list with splits": tmp_path / "ls.csv",
        "URL": "memory://given/",
    }[kind]
    found = items(list_sources([], splits={"fold_2": [source], "val": [tmp_path / "one.jpg"]}))
    assert [item.split for item in found] == ["fold_2"] * (len(found) - 1) + ["val"]
    assert {item.label for item in found} <= {"cat", "dog", None}


def test_train_is_left_to_the_rule_of_val_unless_a_val_is_given(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    given = {"train": [tmp_path / "a"], "test": [tmp_path / "b"]}
    assert [item.split for item in items(list_sources([], splits=given))] == [None, "test"]
    given["val"] = [tmp_path / "c"]
    assert [item.split for item in items(list_sources([], splits=given))] == ["train", "test", "val"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train", "val"], ["train", "val"]),
        (["Train", "Validation", "test"], ["train", "val", "test"]),
        (["train", "test"], [None, "test"]),
        (["train", "extra"], [None, None]),
        (["test"], [None]),
        (["val", "valid"], [None, None]),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "tar", "csv"])
def test_sources_that_are_all_called_as_splits_are_splits(
    tmp_path: Path, kind: str, names: list[str], expected: list[str | None]
) -> None:
    given = []
    for index, name in enumerate(names):
        touch(tmp_path / name, f"cat/{index}.jpg", f"dog/{index}.jpg")
        if kind == "tar":
            given.append(made_tar(tmp_path / f"{name}.tar", "cat/a.jpg", "dog/a.jpg"))
        elif kind == "csv":
            (tmp_path / f"{name}.csv").write_text(
                f"path,label\n{name}/cat/{index}.jpg,cat\n{name}/dog/{index}.jpg,dog\n"
            )
            given.append(tmp_path / f"{name}.csv")
        else:
            given.append(tmp_path / name)
    found = items(list_sources(given))
    assert [item.split for item in found] == [split for split in expected for _ in range(2)]
    assert {item.label for item in found} == {"cat", "dog"}


def test_the_split_of_a_row_wins_over_the_name_of_its_list(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    for name in ("train", "val"):
        (tmp_path / f"{name}.csv").write_text("path,split\na.jpg,test\nb.jpg,\n")
    found = items(list_sources([tmp_path / "train.csv", tmp_path / "val.csv"]))
    assert [item.split for item in found] == ["test", "train", "test", "val"]


def test_every_row_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "f/a.jpg", "f/b.heic", "f/c.txt", "f/v.mp4", "x.doc")
    (tmp_path / "l.csv").write_text("path,kind\nf/a.jpg,1\nnone.doc,2\n")
    listing = list_sources([tmp_path / "f", tmp_path / "l.csv", tmp_path / "x.doc"])
    found = items(listing)
    assert (listing.num_rows, len(found), listing.num_videos) == (7, 3, 1)
    assert (len(listing.rejects), listing.num_ignored) == (1, 3)
    first, second = listing.left_out.warnings()
    assert "1 .heic (b.heic)" in first
    assert second.startswith("l.csv: no label found among its columns kind")


def test_sources_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PHOTOS", str(tmp_path / "a b"))
    touch(tmp_path, "a b/1.jpg")
    for given in (
        "~/a b",
        "$PHOTOS",
        "${PHOTOS}/1.jpg",
        (tmp_path / "a b").as_uri(),
        (tmp_path / "a b/1.jpg").as_uri(),
    ):
        assert [item.source for item in items(list_sources([given]))] == ["1.jpg"]
