"""Tars as sources: items by offset, labels from sidecars or folders, and nothing that could do harm."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest

from pipelines.base.errors import UsageError
from pipelines.shards.sources.archives import archive_items
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import Reject, SourceItem

Entry = tuple[str, bytes]


def made_tar(path: Path, *entries: Entry, links: tuple[str, ...] = ()) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    return path


def listed(location: Path | str, **options: object) -> tuple[list[SourceItem], list[Reject], int]:
    found = list(archive_items(location, **{"with_labels": True, **options}))  # type: ignore[arg-type]
    items = [one for one in found if isinstance(one, SourceItem)]
    return items, [one for one in found if isinstance(one, Reject)], found.count(None)


def labels(path: Path, **options: object) -> list[str | None]:
    return [item.label for item in listed(path, **options)[0]]


def test_items_are_read_by_offset(tmp_path: Path) -> None:
    path = made_tar(tmp_path / "x.tar", ("b/one.jpg", b"first"), ("a/two.MP4", b"second"))
    items, rejects, _ = listed(path)
    assert [(item.source, item.key, item.kind) for item in items] == [
        ("x.tar/b/one.jpg", "b/one", "image"),
        ("x.tar/a/two.MP4", "a/two", "clip"),
    ]
    assert {item.modified_ns for item in items} == {path.stat().st_mtime_ns}
    assert [ItemReader().read(item) for item in items] == [b"first", b"second"]
    assert rejects == []


def test_label_of_a_webdataset_sample_whatever_the_order(tmp_path: Path) -> None:
    path = made_tar(
        tmp_path / "x.tar",
        *[("000.cls", b"3"), ("000.jpg", b"x")],
        *[("001.jpg", b"x"), ("001.cls", b"12\n")],
        *[("002.jpg", b"x"), ("002.txt", b"a caption")],
    )
    items, _, num_ignored = listed(path)
    assert [item.label for item in items] == ["3", "12", None]
    assert num_ignored == 1


def test_name_in_json_wins_over_the_number(tmp_path: Path) -> None:
    entries = ("a.cls", b"0"), ("a.jpg", b"x"), ("a.json", json.dumps({"label": "cat", "species": "lynx"}).encode())
    path = made_tar(tmp_path / "x.tar", *entries)
    assert labels(path) == ["cat"]
    assert labels(path, label_column="species") == ["lynx"]
    assert labels(path, with_labels=False) == [None]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"{}", b'{"label": null}', b'{"label": {"a": 1}}', b"\xff\xfe"])
def test_json_without_a_label_is_no_harm(tmp_path: Path, content: bytes) -> None:
    assert labels(made_tar(tmp_path / "x.tar", ("a.jpg", b"x"), ("a.json", content))) == [None]


def test_class_folders(tmp_path: Path) -> None:
    names = ("data/cat/1.jpg", "data/dog/deep/2.jpg", "data/cat/3.jpg", "data/clip.mp4")
    path = made_tar(tmp_path / "x.tar", *[(f"./{name}", b"x") for name in names])
    assert labels(path) == ["cat", "dog", "cat", None]
    assert labels(path, with_labels=False) == [None] * 4
    assert [item.key for item in listed(path)[0]][:2] == ["data/cat/1", "data/dog/deep/2"]


@pytest.mark.parametrize("names", [("only/1.jpg", "only/2.jpg"), ("cat/1.jpg", "dog/1.jpg", "3.jpg"), ("1.jpg",)])
def test_no_classes_without_two_folders_for_all(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert set(labels(made_tar(tmp_path / "x.tar", *[(name, b"x") for name in names]))) == {None}


@pytest.mark.parametrize("name", ["../up.jpg", "a/../../up.jpg", "/etc/root.jpg", "../../etc/passwd"])
def test_unsafe_names_are_rejected(tmp_path: Path, name: str) -> None:
    items, (reject,), _ = listed(made_tar(tmp_path / "x.tar", (name, b"x"), ("good.jpg", b"x")))
    assert [item.key for item in items] == ["good"]
    assert reject.source == f"x.tar/{name}"
    assert "unsafe name" in reject.reason


def test_links_are_rejected(tmp_path: Path) -> None:
    items, (reject,), num_ignored = listed(made_tar(tmp_path / "x.tar", links=("link.jpg", "link.cls", "link")))
    assert items == []
    assert (reject.source, num_ignored) == ("x.tar/link.jpg", 2)
    assert "a link" in reject.reason


def test_hidden_members_are_left_out(tmp_path: Path) -> None:
    items, rejects, num_ignored = listed(made_tar(tmp_path / "x.tar", ("._a.jpg", b"x"), (".git/b.jpg", b"x")))
    assert (items, rejects, num_ignored) == ([], [], 0)


def test_damaged_tar_gives_what_comes_before(tmp_path: Path) -> None:
    path = made_tar(tmp_path / "x.tar", ("a.jpg", b"x"), ("b.jpg", b"x"))
    content = bytearray(path.read_bytes())
    content[1030] ^= 255
    path.write_bytes(content)
    items, (reject,), _ = listed(path)
    assert [item.key for item in items] == ["a"]
    assert reject.reason.startswith("damaged tar (damaged header at byte 1024)")


@pytest.mark.parametrize("content", [b"", b"not a tar", b"x" * 5000])
def test_other_files_named_tar_are_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    items, (reject,), _ = listed(tmp_path / "x.tar")
    assert items == []
    assert "damaged tar" in reject.reason


def test_compressed_tar_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(made_tar(tmp_path / "x.tar", ("a.jpg", b"x")).read_bytes()))
    with pytest.raises(UsageError, match=r"compressed.* Uncompress it first, for example with gunzip"):
        archive_items(path, with_labels=True)


def test_missing_tar(tmp_path: Path) -> None:
    for location in (tmp_path / "x.tar", "memory://none/x.tar"):
        with pytest.raises(UsageError, match=r"x\.tar: cannot read this tar"):
            archive_items(location, with_labels=True)


def test_tar_behind_a_url(tmp_path: Path) -> None:
    path = made_tar(tmp_path / "x.tar", ("cat/a.jpg", b"AAA"), ("dog/b.jpg", b"BB"))
    fsspec.filesystem("memory").pipe_file("/tars/x.tar", path.read_bytes())
    items, _, _ = listed("memory://tars/x.tar")
    assert [(item.label, ItemReader().read(item)) for item in items] == [("cat", b"AAA"), ("dog", b"BB")]
    assert [item[2:] for item in items] == [(*item[2:4], 0, *item[5:]) for item in listed(path)[0]], (
        "all but the location and the time are those of the local tar"
    )
