from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.shards.build import BuildConfig, build_shards
from pipelines.shards.index import index_path
from pipelines.shards.manifest import Manifest, load_manifest, save_manifest
from pipelines.shards.verify import verify_shards
from tests.media import write_image


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for index in range(6):
        write_image(tmp_path / "src" / f"{index}.jpg", index)
    build_shards(BuildConfig(sources=[tmp_path / "src"], out=tmp_path / "out", samples_per_shard=3))
    return tmp_path / "out"


TAR = "train-images-000001.tar"


def change_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_whole_folder_has_no_problem(shards: Path) -> None:
    assert verify_shards(shards) == []


def test_missing_shard_is_named(shards: Path) -> None:
    (shards / TAR).unlink()
    (problem,) = verify_shards(shards)
    assert problem.startswith(f"{TAR}: missing")


def test_cut_shard_is_named_with_both_sizes(shards: Path) -> None:
    whole = (shards / TAR).read_bytes()
    (shards / TAR).write_bytes(whole[:-512])
    (problem,) = verify_shards(shards)
    assert f"{TAR}: {len(whole) - 512} bytes, the manifest says {len(whole)}" in problem


@pytest.mark.parametrize("at", [0, 700, -1])
def test_one_changed_bit_is_found(shards: Path, at: int) -> None:
    change_byte(shards / TAR, at)
    (problem,) = verify_shards(shards)
    assert problem.startswith(f"{TAR}: sha256 differs")


def test_index_is_checked(shards: Path) -> None:
    index_path(shards / TAR).unlink()
    change_byte(index_path(shards / "train-images-000000.tar"), 20)
    problems = verify_shards(shards)
    assert [problem.split(":")[0] for problem in problems] == ["train-images-000000.tar", TAR]
    assert "does not fit the tar" in problems[0]
    assert "train-images-000001.idx is missing" in problems[1]


def test_wrong_offset_in_the_manifest_is_found(shards: Path) -> None:
    manifest = load_manifest(shards)
    manifest.shards[0].columns["offset"][1] += 512
    save_manifest(Manifest(folder=shards, shards=manifest.shards))
    (problem,) = verify_shards(shards)
    assert f"sample {manifest.shards[0].keys[1]} is not where the manifest says" in problem


def test_foreign_tar_is_named(shards: Path) -> None:
    (shards / "other.tar").write_bytes(b"")
    assert verify_shards(shards) == ["other.tar: not in the manifest; another build left it, or copying mixed folders"]


def test_folder_without_manifest_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no manifest\.json"):
        verify_shards(tmp_path)
