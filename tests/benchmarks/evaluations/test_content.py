"""Digests of data by content: what counts is what an evaluation reads."""

import hashlib
from pathlib import Path

import pytest

from benchmarks.evaluations.content import folder_content
from pipelines.base.errors import UsageError


def test_a_folder_is_the_sha256_of_names_sizes_and_heads(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_bytes(b"one")
    (tmp_path / "a.txt").write_bytes(b"")
    by_hand = hashlib.sha256(b"a.txt 0\n" + hashlib.sha256(b"").digest())
    by_hand.update(b"b/one.txt 3\n" + hashlib.sha256(b"one").digest())
    assert folder_content(tmp_path) == by_hand.hexdigest()


def test_what_lies_behind_a_link_counts(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    (elsewhere / "photo.jpg").write_bytes(b"one")
    (data / "photos").symlink_to(elsewhere)
    before = folder_content(data)
    (elsewhere / "photo.jpg").write_bytes(b"two")
    assert folder_content(data) != before


def test_loops_of_links_end(tmp_path: Path) -> None:
    for name, target in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link").symlink_to(tmp_path / target)
        (tmp_path / name / "top").symlink_to(tmp_path)
        (tmp_path / name / "file").write_text(name)
    assert folder_content(tmp_path) == folder_content(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        folder_content(tmp_path / "nowhere")
