from pathlib import Path

import pytest

from pipelines.base.errors import UsageError
from pipelines.shards.adopting.tar_list import list_tars


def made(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"], ["train", "val"]),
        (["train/00000.tar", "val/00000.tar", "test/00000.tar"], ["train", "val", "test"]),
        (["cc3m_valid_1.tar", "cc3m_training_1.tar"], ["val", "train"]),
        (["00000.tar", "val/00000.tar"], [None, None]),
        (["train_val-0.tar", "train-1.tar"], [None, None]),
        (["my-test-data/0.tar", "my-test-data/1.tar"], [None, None]),
        (["VAL-0.tar"], ["val"]),
    ],
)
def test_splits_by_name(tmp_path: Path, names: list[str], splits: list[str | None]) -> None:
    assert [tar.split for tar in list_tars(made(tmp_path / "d", *names))] == splits
    assert {tar.split for tar in list_tars(made(tmp_path / "d", *names), "dev")} == {"dev"}


def test_ranges_are_those_of_webdataset() -> None:
    listed = list_tars(["http://x/{00..02}-{8..9}.tar"])
    assert [tar.location for tar in listed] == [f"http://x/0{a}-{b}.tar" for a in range(3) for b in (8, 9)]
    assert list_tars(["http://x/a.tar?token=1/2"])[0].name == "a.tar"


def test_folders_are_searched_and_patterns_expanded(tmp_path: Path) -> None:
    paths = made(tmp_path, "b.tar", "a/c.tar", "a/d.txt", ".hidden.tar")
    assert [tar.location for tar in list_tars([tmp_path])] == sorted(path for path in paths[:2])
    assert [tar.location for tar in list_tars([tmp_path / "*.tar"])] == [paths[0]]


def test_names_are_unique_and_can_be_written(tmp_path: Path) -> None:
    paths = made(tmp_path, "a/0.tar", "b/0.tar", "c/b/0.tar", "d e.tar", "x" * 200 + ".tar")
    names = [tar.name for tar in list_tars(paths)]
    assert names == ["0.tar", "b-0.tar", "0-2.tar", "d_e.tar", "x" * 150 + ".tar"]


@pytest.mark.parametrize("split", ["a/b", "", "train-1"])
def test_impossible_splits_are_refused(split: str) -> None:
    with pytest.raises(UsageError, match="need letters, digits"):
        list_tars(["http://x/a.tar"], split)


def test_a_tar_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"http://x/1\.tar is named 2 times"):
        list_tars(["http://x/{0..3}.tar", "http://x/1.tar"])
