from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from pipelines.base.errors import UsageError
from pipelines.shards.tools import info
from pipelines.shards.tools.info import describe
from tests.made.pictures import Stored, encode, smooth_picture, stored_clips
from tests.made.whole_shards import write_splits, write_whole

LABELS = ("cat", "dog")
CAT, DOG = 0, 1


def images(count: int, label: int, suffix: str = "jpg", *, width: int = 300, height: int = 280) -> list[Stored]:
    encoded = encode(smooth_picture(0, width, height), suffix)
    facts = {"suffix": suffix, "encoded": encoded, "width": width, "height": height, "label": label}
    return [Stored(key=f"{suffix}{label}{index:03d}", **facts) for index in range(count)]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """7 cats (300 x 280 px), 3 dogs as PNG (400 x 360 px) and 2 clips, 6 to a shard; one source was rejected."""
    samples = [*images(7, CAT), *images(3, DOG, "png", width=400, height=360), *stored_clips(2)]
    write_whole(tmp_path / "out", samples, labels=LABELS, per_shard=6)
    (tmp_path / "out/rejects.jsonl").write_text('{"key": "bad"}\n')
    return tmp_path / "out"


def test_groups_are_counted(folder: Path) -> None:
    summary = describe(folder)
    pictures, clips = summary.groups
    assert (pictures.kind, pictures.split, pictures.num_samples, pictures.num_shards) == ("image", "train", 10, 2)
    assert pictures.codecs == {"jpeg": 7, "png": 3}
    assert pictures.labels == {"cat": 7, "dog": 3}
    assert (pictures.median_width_px, pictures.median_height_px) == (300, 280)
    assert pictures.median_sample_bytes == len(images(1, CAT)[0].encoded)
    assert pictures.shard_bytes == sum(path.stat().st_size for path in folder.glob("train-images-*.tar"))
    assert (clips.kind, clips.num_samples, clips.codecs, clips.labels) == ("clip", 2, {"mjpeg": 2}, {})
    assert summary.labels == LABELS
    assert summary.num_rejects == 1


def test_medians_of_many_samples_are_of_some_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "MAX_MEDIAN_SAMPLES", 5)
    pictures, _ = describe(folder).groups
    assert (pictures.num_samples, pictures.labels, pictures.median_width_px) == (10, {"cat": 7, "dog": 3}, 300)


def test_warnings_name_what_may_hurt(folder: Path) -> None:
    (folder / "train-clips-000000.tar").unlink()
    (folder / "train-images-000000.idx").write_text("")
    summary = describe(folder)
    warnings = "\n".join(summary.warnings)
    assert "1 shards are missing: train-clips-000000.tar" in warnings
    assert "1 source files were rejected" in warnings
    assert "no validation split" in warnings
    assert [group.codecs for group in summary.groups] == [{"unknown": 6, "png": 3, "jpeg": 1}, {"unknown": 2}]


def test_class_without_a_val_sample_is_named(tmp_path: Path) -> None:
    small = [replace(one, width=64, height=48) for one in [*images(4, CAT), *images(1, DOG)]]
    write_splits(tmp_path / "out", {"train": small[1:], "val": small[:1]}, labels=LABELS)
    warnings = "\n".join(describe(tmp_path / "out").warnings)
    assert "images in split val: no sample of class dog" in warnings
    assert "median size 64 x 48 px is below a 256 px canvas" in warnings


def test_sound_folder_has_no_warning(tmp_path: Path) -> None:
    write_whole(tmp_path / "out", images(4, -1))
    assert describe(tmp_path / "out").warnings == ()


def test_remote_folder_is_described_without_fetching_its_shards(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOURFOLD_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/info", recursive=True)
    try:
        summary = describe("memory://info")
    finally:
        memory.rm("/info", recursive=True)
    assert summary.folder == "memory://info"
    assert (summary.groups, summary.num_rejects, summary.warnings) == (
        describe(folder).groups,
        1,
        describe(folder).warnings,
    )
    assert not list((tmp_path / "cache").rglob("*.tar"))


def test_folder_without_manifest_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no manifest\.json"):
        describe(tmp_path)
