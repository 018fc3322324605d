"""Saved Hugging Face datasets: every row an item, labels by name, bytes as they were stored."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.sources.hf_dataset import dataset_items, is_dataset
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import Found, Note, Reject, SourceItem, UnusableError
from pipelines.shards.sources.lists import ListColumns

pytestmark = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs Hugging Face datasets")


def made(contents: list[bytes | None], **columns: Any) -> Any:
    import datasets

    images = [content and {"bytes": content} if content != b"" else {"bytes": b""} for content in contents]
    given = {"image": (images, datasets.Image()), **columns}
    features = datasets.Features({name: feature for name, (_, feature) in given.items()})
    return datasets.Dataset.from_dict({name: values for name, (values, _) in given.items()}, features=features)


def classes(*labels: int) -> tuple[list[int], Any]:
    import datasets

    return list(labels), datasets.ClassLabel(names=["cat", "dog"])


def numbers(*values: int) -> tuple[list[int], Any]:
    import datasets

    return list(values), datasets.Value("int64")


def texts(*values: str) -> tuple[list[str], Any]:
    import datasets

    return list(values), datasets.Value("string")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    import datasets

    datasets.disable_progress_bars()


def save(dataset: Any, folder: Path) -> Path:
    dataset.save_to_disk(str(folder))
    return folder


def listed(folder: Path, *, with_labels: bool = True, **columns: str) -> list[Found]:
    found = dataset_items(folder, ListColumns(**columns), with_labels=with_labels)
    return [one for one in found if not isinstance(one, Note)]


def test_rows_become_items(tmp_path: Path) -> None:
    folder = save(made([b"first", b"second!", b""], label=classes(1, 0, -1)), tmp_path / "pets")
    items = [one for one in listed(folder) if isinstance(one, SourceItem)]
    assert [(item.source, item.label, item.size, item.kind) for item in items] == [
        ("pets/00000000", "dog", 5, "image"),
        ("pets/00000001", "cat", 7, "image"),
        ("pets/00000002", None, 0, "image"),
    ]
    assert [ItemReader().read(item) for item in items] == [b"first", b"second!", b""]
    assert {item.label for item in listed(folder, with_labels=False)} == {None}  # type: ignore[union-attr]


def test_shuffled_and_selected_before_saving(tmp_path: Path) -> None:
    dataset = made([b"%d" % number for number in range(9)]).select([7, 2, 5])
    reader = ItemReader()
    assert [reader.read(one) for one in listed(save(dataset, tmp_path / "d"))] == [b"7", b"2", b"5"]  # type: ignore[arg-type]


def test_splits_of_a_dataset_dict(tmp_path: Path) -> None:
    import datasets

    parts = {"train": made([b"a"]), "validation": made([b"b"]), "test": made([b"c"])}
    folder = save(datasets.DatasetDict(parts), tmp_path / "d")
    assert is_dataset(folder)
    found = [one for one in listed(folder) if isinstance(one, SourceItem)]
    assert [(one.split, one.key) for one in found] == [
        ("train", "d/train/00000000"),
        ("val", "d/validation/00000000"),
        ("test", "d/test/00000000"),
    ]
    assert [ItemReader().read(one) for one in found] == [b"a", b"b", b"c"]


def test_columns_by_name(tmp_path: Path) -> None:
    dataset = made(
        [b"a", b"b"], label=classes(0, 1), breed=numbers(7, 8), name=texts("x.1", ""), fold=texts("dev", "train")
    )
    found = listed(save(dataset, tmp_path / "d"), label="breed", key="name", split="fold")
    assert [(one.key, one.label, one.split) for one in found if isinstance(one, SourceItem)] == [
        ("x_1", "7", "val"),
        ("d/00000001", "8", "train"),
    ]


def test_rows_that_only_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"outside")
    folder = save(made([b"x", b"x", b"inside"]), tmp_path / "d")
    # Older versions of `datasets` saved the path alone; these do so no longer, so the file is written by hand.
    names = ["a.jpg", "gone.jpg"]
    rows = [*({"bytes": None, "path": str(tmp_path / name)} for name in names), {"bytes": b"inside", "path": None}]
    image_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(rows, image_type)})
    with pa.OSFile(str(next(folder.glob("*.arrow"))), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    first, gone, inside = listed(folder)
    assert isinstance(first, SourceItem)
    assert (first.key, ItemReader().read(first)) == ("d/00000000", b"outside")
    assert isinstance(gone, SourceItem)
    with pytest.raises(FileNotFoundError):
        ItemReader().read(gone)
    assert ItemReader().read(inside) == b"inside"  # type: ignore[arg-type]


def test_rows_without_an_image_are_rejected(tmp_path: Path) -> None:
    reject, item = listed(save(made([None, b"x"]), tmp_path / "d"))
    assert isinstance(reject, Reject)
    assert (reject.source, reject.reason) == ("d/00000000", "no image in this row")
    assert isinstance(item, SourceItem)


def test_dataset_that_shrank(tmp_path: Path) -> None:
    (item,) = listed(save(made([b"x"]), tmp_path / "d"))
    assert isinstance(item, SourceItem)
    with pytest.raises(UnusableError, match="has only 1 rows now"):
        ItemReader().read(item._replace(offset=3))


def test_dataset_without_images(tmp_path: Path) -> None:
    import datasets

    folder = save(datasets.Dataset.from_dict({"text": ["a"]}), tmp_path / "d")
    with pytest.raises(UsageError, match=r"no column of type Image or Video; it has text \(Value\)"):
        listed(folder)


def test_damaged_dataset(tmp_path: Path) -> None:
    folder = save(made([b"x"]), tmp_path / "d")
    next(folder.glob("*.arrow")).write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot load this dataset"):
        listed(folder)


def test_dataset_that_vanished_is_an_os_error(tmp_path: Path) -> None:
    (item,) = listed(save(made([b"x"]), tmp_path / "d"))
    assert isinstance(item, SourceItem)
    with pytest.raises(OSError, match="cannot load this dataset"):
        ItemReader().read(item._replace(location=str(tmp_path / "none#image")))


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(made([b"x"]), tmp_path / "d")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"fourfold\[hf\]"):
        listed(folder)


def test_ordinary_folders_are_no_datasets(tmp_path: Path) -> None:
    assert not is_dataset(tmp_path)


def told(folder: Path, **columns: str) -> list[str]:
    return [
        one.text for one in dataset_items(folder, ListColumns(**columns), with_labels=True) if isinstance(one, Note)
    ]


def test_splits_with_dots_in_their_names(tmp_path: Path) -> None:
    import datasets

    names = ["train.clean.100", "train.clean.360", "dev.clean", "test.other", "validation"]
    folder = save(datasets.DatasetDict({name: made([name.encode()]) for name in names}), tmp_path / "d")
    found = {ItemReader().read(one).decode(): one.split for one in listed(folder) if isinstance(one, SourceItem)}
    assert found == {
        "train.clean.100": "train_clean_100",
        "train.clean.360": "train_clean_360",
        "dev.clean": "dev_clean",
        "test.other": "test_other",
        "validation": "val",
    }


@pytest.mark.parametrize("names", [["a.b", "a_b"], ["val", "validation"], ["Épreuve"], ["x" * 40]])
def test_splits_that_cannot_be_kept_apart_or_named(tmp_path: Path, names: list[str]) -> None:
    import datasets

    folder = save(datasets.DatasetDict({name: made([b"x"]) for name in names}), tmp_path / "d")
    with pytest.raises(UsageError, match=r"split.*[Rr]ename"):
        listed(folder)


def test_a_lone_class_label_is_the_label_whatever_its_name(tmp_path: Path) -> None:
    folder = save(made([b"x"], fine_label=classes(1), note=texts("a")), tmp_path / "one")
    assert [one.label for one in listed(folder) if isinstance(one, SourceItem)] == ["dog"]
    folder = save(made([b"x"], fine_label=classes(1), coarse_label=classes(0)), tmp_path / "two")
    assert [one.label for one in listed(folder) if isinstance(one, SourceItem)] == [None]
    assert "fine_label, coarse_label" in told(folder)[0]
    assert [one.label for one in listed(folder, label="coarse_label") if isinstance(one, SourceItem)] == ["cat"]


@pytest.mark.parametrize("name", ["Label", "LABELS", "category", "Class", "target"])
def test_usual_names_whatever_their_case(tmp_path: Path, name: str) -> None:
    folder = save(made([b"x", b"y"], **{name: texts("cat", "nan")}), tmp_path / "d")
    assert [one.label for one in listed(folder) if isinstance(one, SourceItem)] == ["cat", None]
    assert told(folder) == []


def test_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    folder = save(made([b"x"], label=classes(0)), tmp_path / "d")
    for role in ("label", "split", "key"):
        with pytest.raises(UsageError, match=rf"no column none; it has image, label\. Set {role}_column"):
            listed(folder, **{role: "none"})


def test_columns_that_hold_no_label_are_named(tmp_path: Path) -> None:
    assert told(save(made([b"x"]), tmp_path / "alone")) == []
    assert "kind, size" in told(save(made([b"x"], kind=texts("cat"), size=numbers(3)), tmp_path / "others"))[0]
