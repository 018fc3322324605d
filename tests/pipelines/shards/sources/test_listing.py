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
