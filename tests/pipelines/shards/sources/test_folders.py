"""Folders, here and behind URLs: all files in the order of their names, classes from folders, links that circle."""

import os
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.base.errors import UsageError
from pipelines.shards.sources.folders import folder_items
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import Ignored, SourceItem


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def listed(location: Path | str, *, with_labels: bool = True) -> list[SourceItem]:
    found = folder_items(str(location), with_labels=with_labels)
    return [one for one in found if isinstance(one, SourceItem)]


def sources(location: Path | str) -> list[str]:
    return [item.source for item in listed(location)]


def labels(root: Path) -> dict[str, str | None]:
    return {item.source: item.label for item in listed(root)}


def test_size_time_and_place(tmp_path: Path) -> None:
    (item,) = listed(touch(tmp_path, "sub/a.jpg"))
    facts = (tmp_path / "sub/a.jpg").stat()
    assert item == SourceItem(
        str(tmp_path / "sub/a.jpg"), "file", 0, 1, facts.st_mtime_ns, "sub/a.jpg", "sub/a", "image", None, None
    )


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "readme.txt", "x.csv", ".hidden.jpg", ".git/b.jpg", "archive.tar")
    found = list(folder_items(str(tmp_path), with_labels=True))
    assert [one.source for one in found if isinstance(one, Ignored)] == ["archive.tar", "readme.txt", "x.csv"]
    assert len(found) == 4


@given(names=st.lists(st.lists(st.sampled_from(["a", "a-b", "a.b", "ab", "b"]), min_size=1, max_size=4), max_size=12))
def test_order_is_that_of_the_whole_names(tmp_path_factory: pytest.TempPathFactory, names: list[list[str]]) -> None:
    root = tmp_path_factory.mktemp("order")
    paths = {"/".join(parts) + ".jpg" for parts in names}
    assert sources(touch(root, *paths)) == sorted(paths)


def test_same_order_and_labels_behind_a_url(tmp_path: Path) -> None:
    names = ["dog/a-b/1.jpg", "dog/a.jpg", "cat/2.PNG", "cat/x.mp4", "cat/.hidden.jpg", "cat/note.txt"]
    touch(tmp_path, *names)
    memory = fsspec.filesystem("memory")
    for name in names:
        memory.pipe_file(f"/pets/{tmp_path.name}/{name}", b"x")
    there = listed(f"memory://pets/{tmp_path.name}/")
    assert [item[5:] for item in there] == [item[5:] for item in listed(tmp_path)]
    assert {item.size for item in there} == {1}
    assert ItemReader().read(there[0]) == b"x"


def test_class_folders_become_labels(tmp_path: Path) -> None:
    touch(tmp_path, "dog/2.jpg", "cat/deep/1.jpg", "cat/v.mp4", "notes/readme.txt")
    assert labels(tmp_path) == {"cat/deep/1.jpg": "cat", "cat/v.mp4": None, "dog/2.jpg": "dog"}
    assert {item.label for item in listed(tmp_path, with_labels=False)} == {None}


def test_lone_wrapping_folder_is_not_a_class(tmp_path: Path) -> None:
    touch(tmp_path, "data/images/dog/2.jpg", "data/images/cat/1.jpg", "data/about.txt")
    assert set(labels(tmp_path).values()) == {"cat", "dog"}


@pytest.mark.parametrize(
    "names",
    [
        ("only/1.jpg", "only/2.jpg"),
        ("a/x.mp4", "b/y.mp4"),
        ("only/a/1.jpg", "only/1.jpg"),
    ],
)
def test_no_labels_without_at_least_two_class_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert set(labels(touch(tmp_path, *names)).values()) == {None}


STRAYS = {
    "beside the classes": ["dog/1.jpg", "cat/1.jpg", "loose.jpg"],
    "above a wrapping folder": ["overview.png", "data/cat/1.jpg", "data/dog/1.jpg"],
    "inside of the wrapping folder": ["data/x.webp", "data/cat/1.jpg", "data/dog/1.jpg"],
    "more strays than classes": [*(f"{n}.jpg" for n in range(20)), "a/1.jpg", "b/1.jpg"],
    "first and last by name": ["0.jpg", "a/1.jpg", "b/1.jpg", "z.jpg"],
    "a folder of other files": ["notes/a.txt", "0.jpg", "cat/1.jpg", "dog/deep/2.jpg"],
    "behind a split": ["train/stray.jpg", "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg"],
}


@pytest.mark.parametrize("names", STRAYS.values(), ids=STRAYS)
def test_a_stray_image_leaves_the_other_labels_alone(tmp_path: Path, names: list[str]) -> None:
    """Judge: an image in a folder called as a class has it for its label, any other has none."""
    wanted = {"cat", "dog", "a", "b"}
    pictures = [name for name in names if not name.endswith(".txt")]
    expected = {name: next((part for part in Path(name).parts[:-1] if part in wanted), None) for name in pictures}
    assert labels(touch(tmp_path, *names)) == expected


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert sources(tmp_path) == ["a/1.jpg", "b/2.jpg"]


def test_linked_folders_and_files_are_searched(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "file.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    assert sources(tmp_path / "root") == ["file.jpg", "link/1.jpg"]


def test_links_that_lead_nowhere_are_kept_for_the_rejects(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "none.jpg")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    found = listed(tmp_path)
    assert [(item.source, item.size) for item in found] == [("gone.jpg", -1), ("self.jpg", -1)]
    for item in found:
        with pytest.raises(OSError):
            ItemReader().read(item)


def test_odd_names(tmp_path: Path) -> None:
    names = ["日本/bär.jpg", "with space.jpg", "new\nline.jpg", "x" * 240 + ".jpg", "a#b?c%20.jpg"]
    touch(tmp_path, *names)
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    found = listed(tmp_path)
    assert {item.source for item in found} == {*names, "caf?.jpg"}
    assert {ItemReader().read(item) for item in found} == {b"x"}
    for item in found:
        "".join([item.location, item.source, item.key]).encode()


def test_folder_nobody_may_list_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg")
    scan = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("a/"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"a/: cannot list this folder \(Permission denied\)"):
        listed(tmp_path)


def test_missing_folder_behind_a_url() -> None:
    with pytest.raises(UsageError, match=r"memory://none/: cannot list this folder"):
        listed("memory://none")
