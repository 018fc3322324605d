"""The dry run against the build it stands for: counts, bytes and labels; nothing is left behind."""

import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress
from pipelines.shards.build import BuildSummary, build_shards
from pipelines.shards.dry_run import estimate as estimate_module
from pipelines.shards.dry_run.estimate import BuildEstimate, estimate_build
from pipelines.shards.making.build_config import BuildConfig
from tests.made.media import gray_frames, write_image, write_video


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 images in two classes, 30 and 10."""
    for index in range(40):
        label = "cat" if index % 4 else "dog"
        write_image(tmp_path / "photos" / label / f"{index:02d}.jpg", index, width=300 + index, height=280)
    return tmp_path / "photos"


def both(folder: Path, *sources: Path, **options: Any) -> tuple[BuildEstimate, BuildSummary]:
    config = BuildConfig(sources=list(sources), out=folder / "out", num_workers=1, **options)
    with quiet_progress():
        estimate = estimate_build(config)
        assert not (folder / "out").exists()
        return estimate, build_shards(config)


def test_counts_labels_and_bytes_are_those_of_the_build(photos: Path, tmp_path: Path) -> None:
    estimate, summary = both(tmp_path, photos, val="every:5", samples_per_shard=7)
    assert [(group.split, group.num_samples, group.num_shards) for group in estimate.groups] == [
        ("train", 32, 5),
        ("val", 8, 2),
    ]
    assert sum(group.num_shards for group in estimate.groups) == summary.shards
    assert estimate.labels == summary.labels == ("cat", "dog")
    assert [group.labels for group in estimate.groups] == [{"cat": 24, "dog": 8}, {"cat": 6, "dog": 2}]
    assert sum(group.bytes_in for group in estimate.groups) == sum(p.stat().st_size for p in photos.rglob("*.jpg"))
    assert estimate.bytes_out == pytest.approx(summary.bytes, rel=0.05)


def test_shrinking_is_in_the_bytes(photos: Path, tmp_path: Path) -> None:
    estimate, summary = both(tmp_path, photos, short_side_px=64)
    assert estimate.bytes_out == pytest.approx(summary.bytes, rel=0.1)
    assert estimate.bytes_out < 0.5 * sum(group.bytes_in for group in estimate.groups)
    assert min(estimate.trials[0].median_width_px, estimate.trials[0].median_height_px) == 64


def test_rejects_and_ignored_files_are_seen_and_taken_off(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "bad.jpg").write_bytes(b"not a picture")
    (photos / "cat" / "notes.txt").write_text("words")
    estimate, summary = both(tmp_path, photos)
    assert estimate.groups[0].num_items == 41
    assert estimate.groups[0].num_samples == summary.num_images == 40
    assert [reject.source for reject in estimate.trials[0].rejects] == ["cat/bad.jpg"]
    assert estimate.num_ignored == summary.num_ignored == 1


def test_clips_are_those_of_the_build(tmp_path: Path) -> None:
    for name, count in (("a", 35), ("b", 21)):
        levels = [60 + 12 * (index % 10) for index in range(count)]
        write_video(tmp_path / "videos" / f"{name}.mp4", gray_frames(levels))
    estimate, summary = both(tmp_path, tmp_path / "videos", cut_threshold=None)
    assert (estimate.groups[0].num_items, estimate.groups[0].num_samples) == (2, 5)
    assert summary.num_clips == 5
    assert estimate.bytes_out == pytest.approx(summary.bytes, rel=0.5)
    assert estimate.videos is not None
    assert estimate.videos.codecs == {"mpeg4": 2}
    assert estimate.reading is None


def test_time_grows_with_the_work_and_shrinks_with_the_workers(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = estimate_module.try_shards

    def fixed(parts: Any, job: Any) -> Any:
        return estimate_module.replace(real(parts, job), start_s=0.5, shard_s=2.0, attempt_s=0.1)

    monkeypatch.setattr(estimate_module, "try_shards", fixed)

    def seconds(num_workers: int) -> float:
        config = BuildConfig(sources=[photos], out=tmp_path / "out", samples_per_shard=10, num_workers=num_workers)
        with quiet_progress():
            estimate = estimate_build(config)
        return estimate.build_s - estimate.list_s

    assert seconds(1) == pytest.approx(0.5 + 4 * (2 + 10 * 0.1))
    assert seconds(2) == pytest.approx(0.5 + 2 * (2 + 10 * 0.1))
    assert seconds(100) == pytest.approx(0.5 + 2 + 10 * 0.1)  # a shard is not divided


def test_nothing_is_left_anywhere(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = sorted(tmp_path.rglob("*"))
    with quiet_progress():
        estimate_build(BuildConfig(sources=[photos], out=tmp_path / "out"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_finished_build_in_the_folder_stays_as_it_is(photos: Path, tmp_path: Path) -> None:
    config = BuildConfig(sources=[photos], out=tmp_path / "out", num_workers=1)
    with quiet_progress():
        build_shards(config)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        estimate_build(config)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_readers_and_canvas_are_those_asked_for(photos: Path, tmp_path: Path) -> None:
    config = BuildConfig(sources=[photos], out=tmp_path / "out", labels="off")
    with quiet_progress():
        many = estimate_build(config, num_readers=3, canvas_px=512)
        few = estimate_build(config, num_readers=1, canvas_px=256)
    assert any("1 shards for 3 readers" in text for text in many.warnings)
    assert any("smaller than a canvas of 512 px" in text for text in many.warnings)
    assert not any("readers" in text or "canvas" in text for text in few.warnings)


def test_remote_output_is_not_touched(photos: Path) -> None:
    with quiet_progress():
        estimate = estimate_build(BuildConfig(sources=[photos], out="memory://dry/run"))
    assert estimate.out == "memory://dry/run"
    assert estimate.free_bytes is None
    import fsspec

    assert not fsspec.filesystem("memory").exists("/dry")


def test_nothing_to_pack_is_the_build_s_own_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with quiet_progress(), pytest.raises(UsageError, match="no files found"):
        estimate_build(BuildConfig(sources=[tmp_path / "empty"], out=tmp_path / "out"))


def test_real_photos_and_videos(shared_data: Path, tmp_path: Path) -> None:
    with quiet_progress():
        videos = estimate_build(BuildConfig(sources=[shared_data / "videos"], out=tmp_path / "out", fps=10))
    assert videos.groups[0].num_items == 13
    assert videos.videos is not None
    assert set(videos.videos.codecs) == {"h264", "mpeg4"}
    assert videos.videos.median_gop_frames is not None
    assert 60 <= videos.groups[0].num_samples <= 90
