from pathlib import Path

import pytest

from pipelines.shards.build import BuildConfig, build_shards
from pipelines.shards.info import describe
from tests.media import gray_frames, write_image, write_video


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """7 cats (300 x 280 px), 3 dogs as PNG (400 x 360 px), one video of 2 clips, one bad file."""
    for index in range(7):
        write_image(tmp_path / "src" / "cat" / f"{index}.jpg", index, width=300, height=280)
    for index in range(3):
        write_image(tmp_path / "src" / "dog" / f"{index}.png", index, width=400, height=360, kind="PNG")
    write_video(tmp_path / "src" / "v.mp4", gray_frames([10 * index for index in range(20)]))
    (tmp_path / "src" / "cat" / "bad.jpg").write_text("text")
    return tmp_path / "src"


def test_groups_are_counted(source: Path, tmp_path: Path) -> None:
    build_shards(BuildConfig(sources=[source], out=tmp_path / "out", samples_per_shard=6))
    summary = describe(tmp_path / "out")
    images, clips = summary.groups
    assert (images.kind, images.split, images.num_samples, images.num_shards) == ("image", "train", 10, 2)
    assert images.codecs == {"jpeg": 7, "png": 3}
    assert images.labels == {"cat": 7, "dog": 3}
    assert (images.median_width_px, images.median_height_px) == (300, 280)
    assert images.shard_bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("train-images-*.tar"))
    assert (clips.kind, clips.num_samples, clips.codecs, clips.labels) == ("clip", 2, {"mjpeg": 2}, {})
    assert summary.labels == ("cat", "dog")
    assert summary.num_rejects == 1


def test_warnings_name_what_may_hurt(source: Path, tmp_path: Path) -> None:
    build_shards(BuildConfig(sources=[source], out=tmp_path / "out"))
    (tmp_path / "out" / "train-clips-000000.tar").unlink()
    warnings = "\n".join(describe(tmp_path / "out").warnings)
    assert "1 shards are missing: train-clips-000000.tar" in warnings
    assert "1 source files were rejected" in warnings
    assert "no validation split" in warnings


def test_class_without_a_val_sample_is_named(tmp_path: Path) -> None:
    for label, count in (("a", 40), ("b", 1)):
        for index in range(count):
            write_image(tmp_path / "src" / label / f"{index}.jpg", index)
    build_shards(BuildConfig(sources=[tmp_path / "src"], out=tmp_path / "out", val="hash:0.2"))
    warnings = "\n".join(describe(tmp_path / "out").warnings)
    assert "no sample of class b" in warnings
    assert "median size 64 x 48 px is below a 256 px canvas" in warnings


def test_sound_folder_has_no_warning(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / "src" / f"{index}.jpg", index, width=300, height=300)
    build_shards(BuildConfig(sources=[tmp_path / "src"], out=tmp_path / "out"))
    assert describe(tmp_path / "out").warnings == ()
