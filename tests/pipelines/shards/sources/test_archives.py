"""Tars as sources: items by offset, labels from sidecars or folders, and nothing that could do harm."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest

from pipelines.base.errors import UsageError
from pipelines.shards.sources import archives
from pipelines.shards.sources.archives import archive_items
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import Ignored, Note, Reject, SourceItem

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
    num_ignored = sum(isinstance(one, Ignored) for one in found)
    return items, [one for one in found if isinstance(one, Reject)], num_ignored


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


@pytest.mark.parametrize("names", [("only/1.jpg", "only/2.jpg"), ("a/1.mp4", "b/2.mp4"), ("1.jpg",)])
def test_no_classes_without_two_folders_of_images(tmp_path: Path, names: tuple[str, ...]) -> None:
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


def numbered(*names: str, label: str = "cls") -> list[Entry]:
    """An image and a label member for each name; the label is its position."""
    return [
        entry
        for index, name in enumerate(names)
        for entry in ((f"{name}.jpg", b"x"), (f"{name}.{label}", b"%d" % index if label == "cls" else json_of(index)))
    ]


def json_of(label: object) -> bytes:
    return json.dumps({"label": label}).encode()


DOTTED: dict[str, list[Entry]] = {
    "frames": numbered("clip.000", "clip.001", "clip.002"),
    "frames with json": numbered("clip.000", "clip.001", label="json"),
    "versions and dates": numbered("v1.0.2", "v1.0.3", "2026.11.30", "2026.12.01"),
    "in folders with dots": numbered("a.b/c.1", "a.b/c.2", "a.b/d"),
    "more than a group holds": numbered(*(f"video.{n:06d}" for n in range(2500))),
    "all images before all labels": [
        *((f"clip.{n}.jpg", b"x") for n in range(5)),
        *((f"clip.{n}.cls", b"%d" % n) for n in range(5)),
    ],
    "labels before images": [entry for n in range(1500) for entry in ((f"c.{n}.cls", b"%d" % n), (f"c.{n}.jpg", b"x"))],
    "the name with its suffix": [
        ("a.jpg", b"x"),
        ("a.jpg.json", json_of(0)),
        ("b.1.png", b"x"),
        ("b.1.png.json", json_of(1)),
    ],
    "a name without a label between": [("c.0.jpg", b"x"), ("c.1.jpg", b"x"), ("c.1.cls", b"1"), ("c.2.jpg", b"x")],
    "a label without an image between": [("c.0.jpg", b"x"), ("c.9.cls", b"9"), ("c.1.jpg", b"x"), ("c.1.cls", b"1")],
    "shared by a sample": [("s.left.jpg", b"x"), ("s.right.jpg", b"x"), ("s.cls", b"7"), ("t.left.jpg", b"x")],
    "own before shared": [("s.jpg", b"x"), ("s.left.jpg", b"x"), ("s.left.cls", b"8"), ("s.cls", b"7")],
}


def plain_labels(path: Path) -> dict[str, str | None]:
    """What tarfile says: the label of an image's own name, else that of the name up to the first dot."""
    contents = {}
    with tarfile.open(path) as tar:
        for member in tar:
            contents[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    found: dict[str, str | None] = {}
    for name in contents:
        if name.endswith((".jpg", ".png")):
            folder, _, base = name.rpartition("/")
            stems = [name, name.rpartition(".")[0], f"{folder}/{base.partition('.')[0]}".lstrip("/")]
            members = [
                f"{stem}.{suffix}" for stem in stems for suffix in ("json", "cls") if f"{stem}.{suffix}" in contents
            ]
            text = contents[members[0]].decode() if members else None
            found[name] = text if text is None or members[0].endswith("cls") else str(json.loads(text)["label"])
    return found


@pytest.mark.parametrize("entries", DOTTED.values(), ids=DOTTED)
def test_every_image_has_the_label_of_its_own_name(tmp_path: Path, entries: list[Entry]) -> None:
    path = made_tar(tmp_path / "x.tar", *entries)
    items, rejects, _ = listed(path)
    assert {item.source.removeprefix("x.tar/"): item.label for item in items} == plain_labels(path)
    assert rejects == []


REPEATED: dict[str, tuple[list[Entry], list[str | None], int, int]] = {
    "each with its label": ([*numbered("a"), ("a.jpg", b"y"), ("a.cls", b"5")], ["0", "5"], 0, 0),
    "label first": ([("a.cls", b"0"), ("a.jpg", b"x"), ("a.cls", b"5"), ("a.jpg", b"y")], ["0", "5"], 0, 0),
    "later in the tar": ([*numbered("a", "b"), ("a.jpg", b"y")], ["0", "1", None], 0, 0),
    "only the first has one": ([*numbered("a"), ("a.jpg", b"y")], ["0", None], 0, 0),
    "with json": ([*numbered("a", label="json"), ("a.jpg", b"y"), ("a.json", json_of(5))], ["0", "5"], 0, 0),
    "shared, then again": ([("s.l.jpg", b"x"), ("s.cls", b"3"), ("s.l.jpg", b"y"), ("s.cls", b"4")], ["3", "4"], 0, 0),
    "unclear": ([("a.jpg", b"x"), ("a.jpg", b"y"), ("a.cls", b"0"), ("a.cls", b"5")], ["0"], 1, 1),
    "no label at all": ([("a.jpg", b"x"), ("a.jpg", b"y")], [None, None], 0, 0),
}


@pytest.mark.parametrize(("entries", "expected", "num_rejects", "num_ignored"), REPEATED.values(), ids=REPEATED)
def test_a_name_that_occurs_again_inherits_no_label(
    tmp_path: Path, entries: list[Entry], expected: list[str | None], num_rejects: int, num_ignored: int
) -> None:
    items, rejects, found = listed(made_tar(tmp_path / "x.tar", *entries))
    assert [item.label for item in items] == expected
    assert (len(rejects), found) == (num_rejects, num_ignored)


def test_labels_that_are_none_and_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    contents = [b"-1", b"nan", b"", b" 3\n", b"3.0", b"caf\xe9", b"caf\xe8"]
    entries = [entry for n, content in enumerate(contents) for entry in ((f"{n}.jpg", b"x"), (f"{n}.cls", content))]
    found = labels(made_tar(tmp_path / "x.tar", *entries))
    assert found[:5] == [None, None, None, "3", "3"]
    assert found[5] != found[6]
    assert all(label and label.encode() for label in found[5:])


def test_class_folders_that_are_no_utf8_stay_apart(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("caf\xe9/1.jpg", "caf\xe8/1.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    assert len(set(labels(tmp_path / "x.tar"))) == 2


SPLITS = [
    ["data/train/cat/1.jpg", "data/train/dog/1.jpg", "data/val/cat/2.jpg"],
    ["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg"],
    ["Train/cat/1.jpg", "Train/dog/1.jpg", "TEST/1.jpg"],
    ["./train/imgs/cat/1.jpg", "./train/imgs/dog/1.jpg", "./valid/imgs/dog/1.jpg", "./overview.jpg"],
    ["train/cat/1.jpg", "validation/cat/1.jpg", "validation/dog/1.jpg", "test/1.jpg"],
    ["test/cat/1.jpg", "test/dog/1.jpg"],
]


@pytest.mark.parametrize("names", SPLITS)
def test_folders_of_splits_are_no_classes(tmp_path: Path, names: list[str]) -> None:
    items, _, _ = listed(made_tar(tmp_path / "x.tar", *[(name, b"x") for name in names]))
    ours = {"valid": "val", "validation": "val"}
    for item, name in zip(items, names, strict=True):
        folders = [ours.get(part.lower(), part.lower()) for part in name.split("/")[:-1]]
        assert (item.split or "train") == next((one for one in folders if one in ("val", "test")), "train")
        assert item.label == next((one for one in folders if one in ("cat", "dog")), None)


def notes(path: Path, **options: object) -> list[Note]:
    found = archive_items(path, **{"with_labels": True, **options})  # type: ignore[arg-type]
    return [one for one in found if isinstance(one, Note)]


def test_keys_of_json_are_named_where_no_label_was_found(tmp_path: Path) -> None:
    entries = ("a.jpg", b"x"), ("a.json", json.dumps({"caption": "a cat", "species": "lynx"}).encode())
    path = made_tar(tmp_path / "x.tar", *entries)
    (note,) = notes(path)
    assert "caption, species" in note.text
    assert notes(path, label_column="species") == notes(path, with_labels=False) == []


def test_a_tar_that_begins_flat_says_that_its_folders_are_no_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FLAT_AFTER", 3)
    names = [*(f"{n}.jpg" for n in range(3)), "cat/1.jpg", "dog/1.jpg"]
    path = made_tar(tmp_path / "x.tar", *[(name, b"x") for name in names])
    assert set(labels(path)) == {None}
    assert "no classes" in notes(path)[0].text
    monkeypatch.setattr(archives, "FLAT_AFTER", 4)
    assert labels(path) == [None, None, None, "cat", "dog"]
