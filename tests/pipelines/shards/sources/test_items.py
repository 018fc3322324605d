"""Items: keys that every reader takes, and the bytes of files, tar members and what lies behind URLs."""

import io
import os
import tarfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.sources import item_reader
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import Reject, SourceItem, UnusableError, kind_of, local_item, safe_key


@pytest.fixture
def reader() -> ItemReader:
    return ItemReader()


def item(location: Path | str, **changes: object) -> SourceItem:
    one = SourceItem(str(location), "file", 0, -1, 0, "x.jpg", "x", "image")
    return one._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("cat/0001.jpg", "cat/0001"),
        ("v1.0/my photo.final.jpg", "v1_0/my_photo_final"),
        ("v1.0/readme", "v1_0/readme"),
        ("bär/日本.png", "bär/日本"),
        ("a'b\n\"c.jpg", "a_b__c"),
        ("/root/a.jpg", "root/a"),
        ("../up.jpg", "__/up"),
        ("a/", "a"),
        (".jpg", "_jpg"),
        ("", "_"),
    ],
)
def test_safe_key(source: str, key: str) -> None:
    assert safe_key(source) == key


def test_key_is_never_a_name_that_webdataset_leaves_out() -> None:
    assert safe_key("__MACOSX__/a.jpg") == "MACOSX__/a"
    assert safe_key("__a.jpg") == "__a"


@given(st.text(min_size=1, max_size=200))
def test_key_never_breaks_webdataset_or_ustar(stem: str) -> None:
    key = safe_key(f"{stem}.jpg")
    assert key
    assert "." not in key
    assert not any(character.isspace() for character in key)
    assert len(key.encode()) <= 80
    assert key.strip("/") == key


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    assert safe_key("x" * 200 + "1.jpg") != safe_key("x" * 200 + "2.jpg")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.JPG", "image"), ("a.tif", "image"), ("a.b.Mp4", "clip"), ("a.gif", "clip"), ("jpg", None), ("a.txt", None)],
)
def test_kind_follows_the_suffix_whatever_its_case(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("size", [-1, 5])
def test_local_file(tmp_path: Path, reader: ItemReader, size: int) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    assert reader.read(item(tmp_path / "a.jpg", size=size)) == b"12345"


@pytest.mark.parametrize("size", [-1, 0])
def test_empty_file(tmp_path: Path, reader: ItemReader, size: int) -> None:
    (tmp_path / "a.jpg").touch()
    assert reader.read(item(tmp_path / "a.jpg", size=size)) == b""


@pytest.mark.parametrize(("size", "now"), [(4, "at least 5"), (6, "5")])
def test_a_file_that_changed_is_refused(tmp_path: Path, reader: ItemReader, size: int, now: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    with pytest.raises(UnusableError, match=f"changed since it was listed: {size} bytes then, {now} now"):
        reader.read(item(tmp_path / "a.jpg", size=size))


def test_missing_files_and_folders_are_os_errors(tmp_path: Path, reader: ItemReader) -> None:
    with pytest.raises(FileNotFoundError):
        reader.read(item(tmp_path / "none.jpg"))
    with pytest.raises((UnusableError, IsADirectoryError)):
        reader.read(item(tmp_path))


def test_a_pipe_does_not_hold_the_reader_up(tmp_path: Path, reader: ItemReader) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnusableError, match="not a regular file"):
        reader.read(item(tmp_path / "pipe.jpg"))
    found = local_item(str(tmp_path / "pipe.jpg"), "pipe.jpg", "image", os.stat(tmp_path / "pipe.jpg"))
    assert isinstance(found, Reject)
    assert "not a regular file" in found.reason


def test_too_large_for_an_image(tmp_path: Path, reader: ItemReader) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(2**40)
    for size in (-1, 2**40):
        with pytest.raises(UnusableError, match="1099511627776 bytes; at most"):
            reader.read(item(tmp_path / "a.jpg", size=size))


def test_names_that_are_no_utf8(tmp_path: Path, reader: ItemReader) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/caf\xe9%20.jpg")
    Path(path).write_bytes(b"x")
    one = local_item(path, os.path.basename(path), "image", os.stat(path))
    assert isinstance(one, SourceItem)
    assert (one.source, one.key) == ("caf?%20.jpg", "caf__20")
    one.location.encode()
    assert reader.read(one) == b"x"
    assert reader.open_video(one) == path


def made_tar(path: Path, contents: list[bytes]) -> list[tuple[int, int]]:
    with tarfile.open(path, "w") as tar:
        for index, content in enumerate(contents):
            info = tarfile.TarInfo(f"{index}.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as tar:
        return [(member.offset_data, member.size) for member in tar]


def test_tar_members_and_cut_off_tars(tmp_path: Path, reader: ItemReader) -> None:
    contents = [b"a" * 700, b"", b"ccc"]
    places = made_tar(tmp_path / "x.tar", contents)
    members = [item(tmp_path / "x.tar", via="tar", offset=offset, size=size) for offset, size in places]
    assert [reader.read(one) for one in members] == contents
    os.truncate(tmp_path / "x.tar", places[0][0] + 10)
    with pytest.raises(UnusableError, match=r"its tar ends inside it \(10 of 700"):
        reader.read(members[0])


def test_few_tars_stay_open(tmp_path: Path, reader: ItemReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_reader, "MAX_OPEN_TARS", 2)
    members = []
    for number in range(5):
        ((offset, size),) = made_tar(tmp_path / f"{number}.tar", [b"%d" % number])
        members.append(item(tmp_path / f"{number}.tar", via="tar", offset=offset, size=size))
    num_open = len(os.listdir("/proc/self/fd"))
    assert [reader.read(one) for one in members * 2] == [b"%d" % number for number in range(5)] * 2
    assert len(os.listdir("/proc/self/fd")) <= num_open + 2
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_local_videos_are_opened_by_their_path(tmp_path: Path, reader: ItemReader) -> None:
    assert reader.open_video(item(tmp_path / "v.mp4")) == str(tmp_path / "v.mp4")


@pytest.mark.parametrize("is_local", [True, False])
def test_videos_in_tars_are_files_of_their_own(tmp_path: Path, reader: ItemReader, is_local: bool) -> None:
    content = bytes(range(256)) * 20
    _, (offset, size) = made_tar(tmp_path / "x.tar", [b"first", content])
    location = str(tmp_path / "x.tar")
    if not is_local:
        fsspec.filesystem("memory").pipe_file("/videos/x.tar", (tmp_path / "x.tar").read_bytes())
        location = "memory://videos/x.tar"
    with reader.open_video(item(location, via="tar", offset=offset, size=size)) as file:  # type: ignore[union-attr]
        assert file.read(300) == content[:300]
        assert file.seek(-10, os.SEEK_END) == len(content) - 10
        assert file.read() == content[-10:]
        assert file.seek(256) == 256
        file.seek(4, os.SEEK_CUR)
        assert file.read(2) == content[260:262]
        assert file.seek(10**6) == 10**6
        assert file.read() == b""


def test_urls(reader: ItemReader) -> None:
    fsspec.filesystem("memory").pipe_file("/images/a.jpg", b"0123456789")
    url = "memory://images/a.jpg"
    assert reader.read(item(url)) == b"0123456789"
    assert reader.read(item(url, via="tar", offset=3, size=4)) == b"3456"
    assert reader.read(item(url, via="tar", offset=3, size=0)) == b""
    assert reader.read(item(url, size=10)) == b"0123456789"
    assert reader.open_video(item(url)).read() == b"0123456789"  # type: ignore[union-attr]
    with pytest.raises(UnusableError, match="changed"):
        reader.read(item(url, size=9))
    with pytest.raises(FileNotFoundError):
        reader.read(item("memory://images/none.jpg"))
