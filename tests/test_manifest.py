import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import DataError, UsageError
from pipelines.shards.manifest import COLUMNS, Kind, Manifest, Shard, load_manifest, save_manifest


def shard(name: str, keys: tuple[str, ...], kind: Kind = "image", split: str = "train") -> Shard:
    rng = np.random.default_rng(len(name))
    return Shard(
        name=name,
        kind=kind,
        split=split,
        shard_bytes=2**40,
        sha256="0" * 64,
        keys=keys,
        columns={column: rng.integers(0, 2**40, len(keys)) for column in COLUMNS},
        fps=np.full(len(keys), 29.97),
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    shards = (
        shard("train-images-000000.tar", ("a", "b/ü", "c")),
        shard("train-images-000001.tar", ("d", "e")),
        shard("val-images-000000.tar", ("f",), split="val"),
        shard("train-clips-000000.tar", ("v_c000000",), kind="clip"),
    )
    return Manifest(folder=tmp_path, shards=shards, labels=("cat", "dog"))


def test_manifest_comes_back_as_saved(manifest: Manifest) -> None:
    save_manifest(manifest)
    loaded = load_manifest(manifest.folder)
    assert loaded.labels == manifest.labels
    for found, want in zip(loaded.shards, manifest.shards, strict=True):
        assert (found.name, found.kind, found.split, found.keys) == (want.name, want.kind, want.split, want.keys)
        assert (found.shard_bytes, found.sha256) == (want.shard_bytes, want.sha256)
        for column in COLUMNS:
            np.testing.assert_array_equal(found.columns[column], want.columns[column])
            assert found.columns[column].dtype == np.int64
        np.testing.assert_array_equal(found.fps, want.fps)


def test_saving_leaves_one_file_that_other_programs_can_read(manifest: Manifest) -> None:
    path = save_manifest(manifest)
    assert [found.name for found in manifest.folder.iterdir()] == ["manifest.json"]
    content = json.loads(path.read_text())
    assert content["num_samples"] == 7
    assert content["shards"][0]["samples"]["key"] == ["a", "b/ü", "c"]


def test_table_joins_the_shards_of_one_kind_and_split(manifest: Manifest) -> None:
    table = manifest.select("image", "train")
    assert (len(table), table.keys) == (5, ("a", "b/ü", "c", "d", "e"))
    assert table.shard_index.tolist() == [0, 0, 0, 1, 1]
    assert table.offset.tolist() == [
        *manifest.shards[0].columns["offset"].tolist(),
        *manifest.shards[1].columns["offset"].tolist(),
    ]
    assert len(manifest.select("clip", "train")) == len(manifest.select("image", "val")) == 1


def test_split_that_is_not_there_names_what_is(manifest: Manifest) -> None:
    with pytest.raises(
        UsageError, match=r"no clips in split val; it holds clips in split train, images in split train, "
    ):
        manifest.select("clip", "val")


def test_folder_without_manifest_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no manifest\.json.*fourfold shards build SRC --out"):
        load_manifest(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        load_manifest(tmp_path / "nowhere")


def broken(manifest: Manifest, change: str, value: Any = None) -> Path:
    path = save_manifest(manifest)
    content = json.loads(path.read_text())
    entry = content["shards"][0]
    changes: dict[str, Any] = {
        "version": lambda: content.update(format_version=value),
        "no version": lambda: content.pop("format_version"),
        "column": lambda: entry["samples"]["offset"].pop(),
        "count": lambda: entry.update(num_samples=9),
        "kind": lambda: entry.update(kind="audio"),
        "name": lambda: entry.update(name="../../etc/passwd"),
        "missing": lambda: entry.pop("sha256"),
        "type": lambda: entry["samples"].update(offset="abc"),
    }
    changes[change]()
    path.write_text(json.dumps(content))
    return manifest.folder


@pytest.mark.parametrize("change", ["no version", "column", "count", "kind", "name", "missing", "type"])
def test_damaged_manifest_is_a_data_error(manifest: Manifest, change: str) -> None:
    with pytest.raises(DataError, match=r"manifest\.json: damaged .*Build the shards again"):
        load_manifest(broken(manifest, change))


def test_other_version_is_named(manifest: Manifest) -> None:
    with pytest.raises(DataError, match="format_version 99; this fourfold reads 1"):
        load_manifest(broken(manifest, "version", 99))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_file_that_is_no_manifest_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        load_manifest(tmp_path)
