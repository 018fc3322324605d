"""Reading shards in sequence and at random; a cold number stands only where bytes really came from the disk."""

from pathlib import Path

import pytest

from benchmarks.profile.measure import disk
from benchmarks.profile.measure.disk import COLD_RATIO, Span, read_speed


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for index in range(3):
        (tmp_path / f"{index}.tar").write_bytes(bytes(100_000 + index))
    return sorted(tmp_path.iterdir())


def samples(files: list[Path]) -> list[Span]:
    return [(path, 1000 * index, 1000) for path in files for index in range(50)]


def test_warm_speeds_are_measured(files: list[Path]) -> None:
    found = read_speed(files, samples(files))
    assert found.sequential_warm_bytes_per_s > 0
    assert found.random_warm_bytes_per_s > 0


@pytest.mark.parametrize(("fetched", "is_cold"), [(1.0, True), (COLD_RATIO, True), (0.5, False), (0.0, False)])
def test_cold_stands_only_where_bytes_were_fetched(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, fetched: float, is_cold: bool
) -> None:
    monkeypatch.setattr(disk, "_cold", lambda spans: (5e8, fetched))
    found = read_speed(files, samples(files))
    cold = found.sequential_cold_bytes_per_s, found.random_cold_bytes_per_s, found.random_cold_reads_per_s
    assert cold == ((5e8, 5e8, pytest.approx(5e5)) if is_cold else (None, None, None))
    assert found.note.startswith("cold:") == is_cold


def test_a_system_that_does_not_count_has_no_cold_numbers(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_fetched_bytes", lambda: 0)
    assert read_speed(files, samples(files)).random_cold_bytes_per_s is None


def test_no_more_is_read_than_needed(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "MAX_BYTES", 150_000)
    assert disk._beginnings(files) == [(files[0], 0, 100_000), (files[1], 0, 50_000)]
