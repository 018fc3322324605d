"""Lists of every format: columns given and guessed, paths relative to the list, and rows that cannot be used."""

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import Found, Note, Reject, SourceItem
from pipelines.shards.sources.lists import ListColumns, list_items


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png", "v.mp4", "bär.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def listed(location: Path | str, *, with_labels: bool = True, **columns: str) -> list[Found]:
    found = list_items(location, ListColumns(**columns), with_labels=with_labels)
    return [one for one in found if not isinstance(one, Note)]


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


@pytest.mark.parametrize("header", ["Label", "LABELS", " class ", "Class_Name", "category", "Target"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_label_columns_are_found_whatever_their_case(folder: Path, header: str, suffix: str) -> None:
    path = folder / f"list.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"PATH": ["a.jpg"], header: ["cat"]}), path)
    else:
        text(path, f"Path,{header}\na.jpg,cat\n" if suffix == "csv" else json.dumps({"Path": "a.jpg", header: "cat"}))
    assert rows(path) == [("a", "cat", None)]


def test_a_label_of_zero_is_one(folder: Path) -> None:
    path = text(folder / "list.jsonl", '{"path": "a.jpg", "label": 0}\n{"path": "b.png", "label": false}\n')
    assert [label for _, label, _ in rows(path)] == ["0", "False"]


def test_columns_are_named_where_no_label_was_found(folder: Path) -> None:
    for name, content in (("a.csv", "path,kind,w\na.jpg,cat,3\n"), ("a.jsonl", '{"path": "a.jpg", "kind": 1, "w": 2}')):
        found = list(list_items(text(folder / name, content), ListColumns(), with_labels=True))
        (note,) = [one for one in found if isinstance(one, Note)]
        assert (note.source, "kind, w" in note.text) == (name, True)
    for content in ("path\na.jpg\n", "path,kind,label\na.jpg,1,cat\n"):
        found = list(list_items(text(folder / "b.csv", content), ListColumns(), with_labels=True))
        assert not [one for one in found if isinstance(one, Note)]


def test_lists_in_parquet_are_no_labels_by_guess(folder: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg"], "labels": [[1, 2]], "target": [3]}), folder / "list.parquet")
    assert rows(folder / "list.parquet") == [("a", "3", None)]


def test_bytes_that_are_no_utf8_keep_classes_apart(folder: Path) -> None:
    (folder / "list.csv").write_bytes(b"path,label\na.jpg,caf\xe9\nb.png,caf\xe8\n")
    assert len({label for _, label, _ in rows(folder / "list.csv")}) == 2


def test_file_urls_are_percent_decoded(folder: Path) -> None:
    names = ["with space.jpg", "100%.jpg", "a#b?c.jpg", "%20.jpg", "plus+and&.jpg", "bär.jpg"]
    for name in names:
        (folder / name).write_bytes(name.encode())
    path = text(folder / "list.txt", "".join(f"{(folder / name).as_uri()}\n" for name in names))
    assert [ItemReader().read(one) for one in listed(path)] == [name.encode() for name in names]  # type: ignore[arg-type]


TREES = {
    "train and test": ["train/1.jpg", "train/2.jpg", "test/3.jpg"],
    "train and val below": ["data/train/cat/1.jpg", "data/val/cat/1.jpg"],
    "three": ["Train/1.jpg", "Valid/2.jpg", "TEST/3.jpg"],
    "one is no split": ["train/1.jpg", "extra/2.jpg", "test/3.jpg"],
    "train alone": ["train/1.jpg", "train/2.jpg"],
    "a folder called test around all": ["test/a/1.jpg", "test/b/2.jpg"],
}


@pytest.mark.parametrize("names", TREES.values(), ids=TREES)
def test_splits_by_folders_where_all_paths_lie_in_such(tmp_path: Path, names: list[str]) -> None:
    """Judge: pathlib. All folders at one level are called train, val, test and so on, and there are two at least."""
    words = {"train": "train", "val": "val", "valid": "val", "test": "test"}
    columns = list(zip(*[Path(name).parts[:2] for name in names], strict=False))
    level = next((at for at, parts in enumerate(columns) if len({words.get(p.lower()) for p in parts}) > 1), 0)
    splits = [words.get(Path(name).parts[level].lower()) for name in names]
    if None in splits or len(set(splits)) < 2:
        splits = [None] * len(names)
    elif "val" not in splits:
        splits = [None if one == "train" else one for one in splits]
    assert [split for _, _, split in rows(text(tmp_path / "list.txt", "\n".join(names)))] == splits
    in_column = text(tmp_path / "list.csv", "path,split\n" + "".join(f"{name},fold1\n" for name in names))
    assert {split for _, _, split in rows(in_column)} == {"fold1"}
