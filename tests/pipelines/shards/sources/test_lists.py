"""Lists of every format: columns given and guessed, paths relative to the list, and rows that cannot be used."""

import json
import math
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import Found, Reject, SourceItem
from pipelines.shards.sources.lists import ListColumns, label_text, list_items, split_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png", "v.mp4", "bär.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def listed(location: Path | str, *, with_labels: bool = True, **columns: str) -> list[Found]:
    return list(list_items(location, ListColumns(**columns), with_labels=with_labels))


def rows(location: Path | str, **columns: str) -> list[tuple[str, str | None, str | None]]:
    return [(one.key, one.label, one.split) for one in listed(location, **columns) if isinstance(one, SourceItem)]


def reasons(location: Path, **columns: str) -> list[str]:
    return [f"{one.source}: {one.reason}" for one in listed(location, **columns) if isinstance(one, Reject)]


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_csv(folder: Path) -> None:
    path = text(folder / "list.csv", 'file,label,split\na.jpg,cat,train\n"b.png","dog, large",validation\nv.mp4,,\n')
    assert rows(path) == [("a", "cat", "train"), ("b", "dog, large", "val"), ("v", None, None)]
    assert [ItemReader().read(one) for one in listed(path)][:2] == [b"a.jpg", b"b.png"]  # type: ignore[arg-type]


def test_items_know_size_time_and_kind(folder: Path) -> None:
    image, clip = listed(text(folder / "list.txt", "a.jpg\nv.mp4\n"))
    facts = (folder / "a.jpg").stat()
    assert image == SourceItem(
        str(folder / "a.jpg"), "file", 0, 5, facts.st_mtime_ns, "a.jpg", "a", "image", None, None
    )
    assert isinstance(clip, SourceItem)
    assert clip.kind == "clip"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_has_the_same_rows(folder: Path, suffix: str) -> None:
    table = [{"url": "a.jpg", "class": "x", "key": "one.1"}, {"url": "bär.jpg", "class": "y", "key": "two"}]
    path = folder / f"list.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    elif suffix == "jsonl":
        text(path, "".join(json.dumps(row) + "\n\n" for row in table))
    else:
        separator = {"csv": ",", "tsv": "\t"}[suffix]
        text(path, "\r\n".join(separator.join(row) for row in [["url", "class", "key"], *(r.values() for r in table)]))
    assert rows(path) == [("one_1", "x", None), ("two", "y", None)]


def test_columns_by_name(folder: Path) -> None:
    path = text(folder / "list.csv", "path,photo,breed,fold,id\nb.png,a.jpg,cat,test,k7\n")
    assert rows(path, path="photo", label="breed", split="fold", key="id") == [("k7", "cat", "test")]


@pytest.mark.parametrize("content", ["path,label\na.jpg,x\n", '{"path": "a.jpg", "label": "x"}\n'])
def test_unknown_column_names_what_there_is(folder: Path, content: str) -> None:
    path = text(folder / ("list.csv" if content[0] == "p" else "list.jsonl"), content)
    with pytest.raises(UsageError, match=r"no column breed; it has path, label\. Set label_column"):
        listed(path, label="breed")


def test_list_without_header(folder: Path) -> None:
    with pytest.raises(UsageError, match="It seems to have no header line"):
        listed(text(folder / "list.csv", "a.jpg,cat\nb.png,dog\n"))


def test_no_column_of_paths(folder: Path) -> None:
    with pytest.raises(UsageError, match="no column of paths or URLs among name, label"):
        listed(text(folder / "list.csv", "name,label\nx,y\n"))


def test_paths_are_relative_to_the_list(folder: Path) -> None:
    (folder / "lists").mkdir()
    absolute = folder / "v.mp4"
    found = listed(text(folder / "lists" / "list.txt", f"../a.jpg\n./../b.png\n{absolute}\nfile://{absolute}\n"))
    assert [ItemReader().read(one) for one in found[:2]] == [b"a.jpg", b"b.png"]  # type: ignore[arg-type]
    items = [one for one in found if isinstance(one, SourceItem)]
    assert [item.source for item in items[:2]] == ["a.jpg", "b.png"]
    assert items[2] == items[3]
    assert items[2].source == str(absolute).lstrip("/")


def test_missing_files_are_items_that_cannot_be_read(folder: Path) -> None:
    (one,) = listed(text(folder / "list.txt", "gone.jpg\n"))
    assert isinstance(one, SourceItem)
    assert one.size == -1
    with pytest.raises(FileNotFoundError):
        ItemReader().read(one)


def test_rows_that_cannot_be_items_are_rejected_by_line(folder: Path) -> None:
    content = "path,split\n,train\na.txt,train\n\na.jpg,../x\na.jpg\nnul\0.jpg,train\n"
    path = text(folder / "list.csv", content)
    assert reasons(path) == [
        "list.csv:2: no path in this row",
        "list.csv:3 a.txt: neither an image nor a video, by its suffix",
        "list.csv:5 a.jpg: split '../x'; need one word of letters and digits, such as train or val",
        "list.csv:7 nul\0.jpg: embedded null byte",
    ]
    assert rows(path) == [("a", None, None)]


def test_broken_json_lines_are_rejected_by_line(folder: Path) -> None:
    path = text(folder / "list.jsonl", '{"path": "a.jpg"}\n{oops\n[1]\n{"path": 7}\n{"path": "b.png", "label": [1]}\n')
    assert [reason.partition(": ")[0] for reason in reasons(path)] == [
        "list.jsonl:2",
        "list.jsonl:3",
        "list.jsonl:4 7",
        "list.jsonl:5 b.png",
    ]


def test_json_rows_may_differ_in_their_columns(folder: Path) -> None:
    path = text(folder / "list.jsonl", '{"path": "a.jpg"}\n{"file_name": "b.png", "label": 3}\n')
    assert rows(path) == [("a", None, None), ("b", "3", None)]


def test_urls(folder: Path) -> None:
    content = "https://h.org/x/a.jpg?w=2\nhttps://h.org/photo?id=1\ns3://b/v.mp4\n"
    found = [one for one in listed(text(folder / "list.txt", content)) if isinstance(one, SourceItem)]
    assert [(one.location, one.key, one.kind) for one in found] == [
        ("https://h.org/x/a.jpg?w=2", "h_org/x/a", "image"),
        ("https://h.org/photo?id=1", "h_org/photo_id_1", "image"),
        ("s3://b/v.mp4", "b/v", "clip"),
    ]
    assert {one.size for one in found} == {-1}


def test_list_behind_a_url(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/lists/list.csv", b"path,label\nimages/a.jpg,cat\n")
    memory.pipe_file("/lists/images/a.jpg", b"AAA")
    (one,) = listed("memory://lists/list.csv")
    assert isinstance(one, SourceItem)
    assert (one.location, one.source, one.label) == ("memory://lists/images/a.jpg", "images/a.jpg", "cat")
    assert ItemReader().read(one) == b"AAA"


def test_names_that_are_no_utf8(folder: Path) -> None:
    (folder / "list.txt").write_bytes(b"caf\xe9.jpg\n")
    with open(bytes(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    (one,) = listed(folder / "list.txt")
    assert isinstance(one, SourceItem)
    one.location.encode()
    assert (one.source, ItemReader().read(one)) == ("caf?.jpg", b"x")


def test_byte_order_mark_is_no_part_of_a_name(folder: Path) -> None:
    (folder / "list.csv").write_bytes(b"\xef\xbb\xbfpath\na.jpg\n")
    assert rows(folder / "list.csv") == [("a", None, None)]


def test_labels_can_be_left_out(folder: Path) -> None:
    path = text(folder / "list.csv", "path,label\na.jpg,cat\n")
    (one,) = listed(path, with_labels=False)
    assert isinstance(one, SourceItem)
    assert one.label is None


def test_pictures_inside_of_parquet_say_what_to_do(folder: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": "a.jpg"}]}), folder / "list.parquet")
    with pytest.raises(UsageError, match=r"column image holds struct.* save_to_disk"):
        listed(folder / "list.parquet")


@pytest.mark.parametrize("name", ["list.parquet", "list.csv"])
def test_damaged_lists(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b'path\n"' + b"x" * 200_000)
    with pytest.raises(DataError, match=f"{name}: damaged list"):
        listed(folder / name)


def test_empty_lists(folder: Path) -> None:
    for name in ("a.csv", "a.txt", "a.jsonl"):
        assert listed(text(folder / name, "")) == []


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read this list"):
        listed(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("cat", "cat"), (3, "3"), (3.0, "3"), (0, "0"), (2.5, "2.5"), ("", None), (None, None), (math.nan, None)],
)
def test_label_text(value: object, expected: str | None) -> None:
    assert label_text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("Train", "train"), ("training", "train"), ("validation", "val"), ("dev", "val"), ("test", "test"), ("", None)],
)
def test_split_name(value: str, expected: str | None) -> None:
    assert split_name(value) == expected
