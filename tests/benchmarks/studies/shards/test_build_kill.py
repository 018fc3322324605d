from pathlib import Path

import cv2

from benchmarks.studies.shards.build_kill import _differences, write_small_images


def test_images_are_the_same_every_time_and_small(tmp_path: Path) -> None:
    for name in "ab":
        write_small_images(tmp_path / name, 30)
    paths = sorted((tmp_path / "a").rglob("*.jpg"))
    assert len(paths) == 30
    assert [path.read_bytes() for path in paths] == [p.read_bytes() for p in sorted((tmp_path / "b").rglob("*.jpg"))]
    assert all(1000 < path.stat().st_size < 10_000 for path in paths)
    assert cv2.imread(str(paths[0])).shape == (96, 96, 3)


def test_partial_and_missing_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"par")
    (tmp_path / ".b.tar.7.tmp").write_bytes(b"may be partial")
    want = {"a.tar": "0" * 64, "b.tar": "1" * 64}
    assert _differences(want, tmp_path, is_finished=False) == ["a.tar: not what an unbroken build makes"]
    assert _differences(want, tmp_path, is_finished=True)[1:] == ["b.tar: missing"]
