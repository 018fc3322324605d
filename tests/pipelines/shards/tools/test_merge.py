import errno
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipelines.base.errors import DataError, UsageError
from pipelines.shards.format.manifest import load_manifest
from pipelines.shards.tools import merge
from pipelines.shards.tools.merge import merge_shards
from pipelines.shards.tools.verify import verify_shards
from tests.made.pictures import Stored, stored_clips, stored_images
from tests.made.whole_shards import write_splits, write_whole

FIRST_LABELS = ("bird", "fish", "plant")
OTHER_LABELS = ("ant", "bird", "zebra")


def other_images(count: int) -> list[Stored]:
    return [replace(sample, key=f"other/{sample.key}") for sample in stored_images(count)]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Images and a clip; images in two splits, with labels of which one is the same; a clip.

    In the union of the labels, those of the second folder's val split keep their numbers.
    """
    first = write_whole(tmp_path / "a", [*stored_images(4), *stored_clips(1, num_frames=2)], labels=FIRST_LABELS)
    others = other_images(6)
    second = write_splits(tmp_path / "b", {"val": others[:2], "train": others[2:]}, labels=OTHER_LABELS)
    third = write_whole(tmp_path / "c", [replace(stored_clips(1, num_frames=3)[0], key="third")])
    return [first, second, third]


def contents(folder: Path) -> dict[str, dict[str, bytes]]:
    """Members by name of every tar of a folder, by `tarfile`."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found[path.name] = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    return found


def published(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_merged_folder_is_whole_and_in_order(folders: list[Path], tmp_path: Path) -> None:
    summary = merge_shards(folders, tmp_path / "out")
    assert verify_shards(tmp_path / "out", decode=True, num_workers=1) == []
    assert [(shard.name, shard.num_samples) for shard in load_manifest(tmp_path / "out").shards] == [
        ("train-images-000000.tar", 3),
        ("train-images-000001.tar", 1),
        ("train-images-000002.tar", 3),
        ("train-images-000003.tar", 1),
        ("val-images-000000.tar", 2),
        ("train-clips-000000.tar", 1),
        ("train-clips-000001.tar", 1),
    ]
    assert (summary.num_folders, summary.num_images, summary.num_clips, summary.shards) == (3, 10, 2, 7)
    assert summary.bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))


def test_labels_are_united_by_name(folders: list[Path], tmp_path: Path) -> None:
    summary = merge_shards(folders, tmp_path / "out")
    assert summary.labels == ("ant", "bird", "fish", "plant", "zebra")
    table = load_manifest(tmp_path / "out").select("image", "train")
    members = {name: content for tar in contents(tmp_path / "out").values() for name, content in tar.items()}
    for row, key in enumerate(table.keys):
        # The sidecar has the name that the source folder gave.
        name = json.loads(members[f"{key}.json"])["label"]
        assert summary.labels[table.label[row]] == name
        assert int(members[f"{key}.cls"]) == table.label[row]


def test_all_but_the_class_numbers_stays_as_it_was(folders: list[Path], tmp_path: Path) -> None:
    merge_shards(folders, tmp_path / "out")
    before = [item for folder in folders for tar in contents(folder).values() for item in tar.items()]
    after = [item for tar in contents(tmp_path / "out").values() for item in tar.items()]
    kept = [{name: content for name, content in items if not name.endswith(".cls")} for items in (before, after)]
    assert kept[0] == kept[1]
    assert len(before) == len(after)


def test_shards_that_stay_the_same_share_their_bytes(folders: list[Path], tmp_path: Path) -> None:
    summary = merge_shards(folders, tmp_path / "out")
    assert (summary.num_linked, summary.num_copied, summary.num_rewritten, summary.num_reused) == (3, 0, 4, 0)
    assert (tmp_path / "out/val-images-000000.tar").samefile(folders[1] / "val-images-000000.tar")
    assert (tmp_path / "out/train-clips-000001.tar").samefile(folders[2] / "train-clips-000000.tar")
    assert (tmp_path / "out/train-clips-000001.idx").samefile(folders[2] / "train-clips-000000.idx")


def test_labels_that_keep_their_numbers_need_no_rewriting(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", stored_images(4), labels=FIRST_LABELS)
    write_whole(tmp_path / "b", other_images(4), labels=FIRST_LABELS)
    assert merge_shards([tmp_path / "a", tmp_path / "b"], tmp_path / "out").num_linked == 4


def test_another_disk_gets_copies_with_the_same_bytes(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_shards(folders, tmp_path / "linked")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "cross-device link")))
    summary = merge_shards(folders, tmp_path / "copied")
    assert (summary.num_linked, summary.num_copied, summary.num_rewritten) == (0, 3, 4)
    assert published(tmp_path / "copied") == published(tmp_path / "linked")


def test_interrupted_merge_goes_on_and_gives_the_same_bytes(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_shards(folders, tmp_path / "whole")
    move = merge._move

    def dying(one: Any, storage: Any) -> Any:
        if one.shard.name in ("train-images-000003.tar", "train-clips-000001.tar"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return move(one, storage)

    monkeypatch.setattr(merge, "_move", dying)
    with pytest.raises(DataError, match=r"No space left on device\. Make room or mend it, then merge again"):
        merge_shards(folders, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))
    monkeypatch.setattr(merge, "_move", move)
    summary = merge_shards(folders, tmp_path / "out")
    assert summary.num_reused >= 3
    assert summary.num_rewritten + summary.num_linked + summary.num_reused == 7
    assert published(tmp_path / "out") == published(tmp_path / "whole")
    assert merge_shards(folders, tmp_path / "out").num_reused == 7


def test_doubled_keys_are_refused_by_name(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", stored_images(3), labels=FIRST_LABELS)
    write_whole(tmp_path / "b", stored_images(2), labels=FIRST_LABELS)
    with pytest.raises(UsageError, match=r"2 keys are there more than once: train0000, train0001\. .*--prefix-keys"):
        merge_shards([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prefix_makes_keys_different(tmp_path: Path) -> None:
    write_whole(tmp_path / "my cats", stored_images(2), labels=FIRST_LABELS)
    write_whole(tmp_path / "b", stored_images(2), labels=FIRST_LABELS)
    merge_shards([tmp_path / "my cats", f"{tmp_path}/b/"], tmp_path / "out", prefix_keys=True)
    assert verify_shards(tmp_path / "out") == []
    keys = tuple(load_manifest(tmp_path / "out").select("image", "train").keys)
    assert keys == ("my_cats/train0000", "my_cats/train0001", "b/train0000", "b/train0001")
    (first, _) = contents(tmp_path / "out").values()
    assert first["my_cats/train0000.jpg"] == stored_images(1)[0].encoded


def test_prefix_that_makes_names_too_long_is_a_data_error(tmp_path: Path) -> None:
    write_whole(tmp_path / "abc", [replace(stored_images(1)[0], key="k" * 93)], labels=FIRST_LABELS)
    write_whole(tmp_path / "b", stored_images(1), labels=FIRST_LABELS)
    with pytest.raises(DataError, match="does not fit a ustar header"):
        merge_shards([tmp_path / "abc", tmp_path / "b"], tmp_path / "out", prefix_keys=True)


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"], ["a", "out"]])
def test_two_folders_and_another_are_needed(folders: list[Path], tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(UsageError, match="need two different folders or more, and another"):
        merge_shards([tmp_path / name for name in names], tmp_path / "out")


def test_folder_of_something_else_is_left_alone(folders: list[Path], tmp_path: Path) -> None:
    merge_shards(folders[:2], tmp_path / "out")
    before = published(tmp_path / "out")
    with pytest.raises(UsageError, match=r"out: holds other shards\. Merge into a new folder"):
        merge_shards(folders, tmp_path / "out")
    with pytest.raises(UsageError, match="c: holds other shards"):
        merge_shards(folders[:2], folders[2])
    assert published(tmp_path / "out") == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "name", "match"),
    [
        (cut, "c/train-clips-000000.tar", r"\d+ bytes, the manifest says \d+\. .*fourfold shards verify"),
        (Path.unlink, "c/train-clips-000000.tar", "no bytes, the manifest says"),
        (flip, "a/train-images-000000.tar", "sha256 differs from the manifest"),
        (cut, "a/samples.arrow", r"samples\.arrow: \d+ bytes"),
    ],
)
def test_damaged_folder_is_named_and_not_made_look_whole(
    folders: list[Path], tmp_path: Path, damage: Callable[[Path], None], name: str, match: str
) -> None:
    damage(tmp_path / name)
    with pytest.raises(DataError, match=match):
        merge_shards(folders, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()


def test_rejects_of_all_folders_are_kept(folders: list[Path], tmp_path: Path) -> None:
    (folders[0] / "rejects.jsonl").write_text('{"key": "x"}\n')
    (folders[2] / "rejects.jsonl").write_text('{"key": "y"}\n{"key": "z"}\n')
    merge_shards(folders, tmp_path / "out")
    assert [json.loads(line)["key"] for line in (tmp_path / "out/rejects.jsonl").open()] == ["x", "y", "z"]


def test_folders_and_result_may_be_elsewhere(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    merge_shards(folders, tmp_path / "out")
    memory = fsspec.filesystem("memory")
    try:
        for folder in folders:
            memory.put(str(folder), f"/merge-{folder.name}", recursive=True)
        summary = merge_shards([f"memory://merge-{folder.name}" for folder in folders], "memory://merge-out")
        assert (summary.num_copied, summary.num_rewritten) == (3, 4)
        for name, content in published(tmp_path / "out").items():
            assert memory.cat(f"/merge-out/{name}") == content
        assert verify_shards("memory://merge-out") == []
    finally:
        for path in ("a", "b", "c", "out"):
            if memory.exists(f"/merge-{path}"):
                memory.rm(f"/merge-{path}", recursive=True)
