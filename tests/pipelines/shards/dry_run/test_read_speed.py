"""Reading files against reading a tar of them: the arithmetic, the limits, and that nothing is left behind."""

from pathlib import Path

import pytest

from pipelines.shards.dry_run import read_speed
from pipelines.shards.dry_run.read_speed import ReadComparison, compare_reading


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.jpg" for index in range(20)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * 1000)
    return paths


def test_bytes_and_files_are_those_read(files: list[Path], tmp_path: Path) -> None:
    speed = compare_reading(files, tmp_path)
    assert speed is not None
    assert (speed.num_files, speed.num_bytes) == (20, 20_000)
    assert speed.files_mb_per_s > 0
    assert speed.tar_gain == pytest.approx(speed.tar_mb_per_s / speed.files_mb_per_s)
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_the_sample_is_bounded(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_speed, "MAX_BYTES", 4500)
    speed = compare_reading(files, tmp_path)
    assert speed is not None
    assert speed.num_files == 4
    monkeypatch.setattr(read_speed, "MAX_FILES", 3)
    speed = compare_reading(files, tmp_path)
    assert speed is not None
    assert speed.num_files == 3


def test_a_huge_file_is_passed_over(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_speed, "MAX_BYTES", 4500)
    files[0].write_bytes(bytes(5000))
    speed = compare_reading(files, tmp_path)
    assert speed is not None
    assert (speed.num_files, speed.num_bytes) == (4, 4000)


def test_nothing_readable_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert compare_reading([], tmp_path) is None
    assert compare_reading([tmp_path / "missing.jpg", tmp_path / "empty.jpg", tmp_path], tmp_path) is None


@pytest.mark.parametrize(("can_drop", "cache"), [(True, "cold"), (False, "warm")])
def test_says_whether_the_cache_was_dropped(
    can_drop: bool, cache: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_speed, "_can_drop", lambda path: can_drop)
    speed = compare_reading(files, tmp_path)
    assert speed is not None
    assert speed.cache == cache


@pytest.mark.parametrize(("num_kept", "cache"), [(1, "cold"), (2, "warm")])
def test_a_file_or_so_may_stay_in_the_cache(
    num_kept: int, cache: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_speed, "_can_drop", lambda path: path not in files[:num_kept])
    speed = compare_reading(files, tmp_path)
    assert speed is not None
    assert speed.cache == cache


def test_a_slow_disk_is_read_once(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(read_speed, "_can_drop", lambda path: True)
    monkeypatch.setattr(read_speed, "_read_all", lambda paths: passes.append(len(paths)))
    monkeypatch.setattr(read_speed, "LONG_PASS_S", 0.0000001)
    compare_reading(files, tmp_path)
    assert passes == [20, 20, 1, 1]  # each time one pass that is not timed


def test_gain_is_tar_over_files() -> None:
    speed = ReadComparison(num_files=1, num_bytes=10, files_mb_per_s=50.0, tar_mb_per_s=200.0, cache="warm")
    assert speed.tar_gain == 4
