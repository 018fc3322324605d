"""Reading into the page cache, dropping from it, and being told the truth about it."""

import mmap
import os
from pathlib import Path

import pytest

from benchmarks.harness.page_cache import drop, files_below, read_all, resident_ratio

NUM_BYTES = 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(NUM_BYTES))
    return path


@pytest.fixture
def on_disk(file: Path) -> Path:
    """Skips where the system keeps everything in memory, or says nothing."""
    drop([file])
    if resident_ratio([file]) == 1:
        pytest.skip("files here cannot be dropped from memory")
    return file


def test_what_was_read_is_in_memory(file: Path) -> None:
    read_all([file])
    assert resident_ratio([file]) == 1


def test_what_was_dropped_is_not_until_it_is_read_again(on_disk: Path) -> None:
    assert resident_ratio([on_disk]) == 0
    read_all([on_disk])
    assert resident_ratio([on_disk]) == 1


def test_looking_reads_nothing(on_disk: Path) -> None:
    assert [resident_ratio([on_disk]) for _ in range(3)] == [0, 0, 0]


def test_what_is_mapped_and_touched_stays(on_disk: Path) -> None:
    with on_disk.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert len(bytes(view)) == NUM_BYTES
        drop([on_disk])
        assert resident_ratio([on_disk]) == 1
    drop([on_disk])
    assert resident_ratio([on_disk]) == 0


def test_ratio_is_of_the_pages_of_all_files(on_disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.bin"
    other.write_bytes(bytes(3 * NUM_BYTES))
    read_all([other])
    assert resident_ratio([on_disk, other]) == pytest.approx(0.75)


def test_files_without_pages_count_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    read_all([empty])
    drop([empty])
    assert resident_ratio([empty]) == resident_ratio([]) == 0


def test_files_of_all_folders_below_but_no_links(tmp_path: Path) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    paths = [tmp_path / "b", tmp_path / "one" / "a", tmp_path / "one" / "two" / "c"]
    for path in paths:
        path.touch()
    (tmp_path / "link").symlink_to(paths[0])
    assert files_below(tmp_path) == sorted(paths)
