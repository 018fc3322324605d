"""Folders of shards stored otherwise, and what putting advice to the test changes and leaves alone."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from benchmarks.profile.judge.advice import Option
from benchmarks.profile.judge.apply import Applied, applied, apply_option, rewritten
from benchmarks.profile.measure.alternatives import needed_short_side_px, recoded_clip, short_side_px
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import Manifest, load_manifest
from tests.made.made_profiles import made_config
from tests.made.pictures import stored_clips

MakeShards = Callable[..., Path]


def contents(manifest: Manifest) -> dict[str, bytes]:
    found = {}
    for index, shard in enumerate(manifest.shards):
        whole = (manifest.folder / shard.name).read_bytes()
        for row in manifest.samples_of(index).to_pylist():
            found[row["key"]] = whole[row["offset"] : row["offset"] + row["size"]]
    return found


def codec_of(encoded: bytes) -> str:
    with av.open(io.BytesIO(encoded)) as container:
        return container.streams.video[0].codec_context.name


def test_nothing_named_changes_nothing_but_the_place(small_shards: MakeShards, tmp_path: Path) -> None:
    folder = small_shards(7, 3)
    copy = rewritten(folder, tmp_path / "copy")
    assert contents(load_manifest(copy)) == contents(load_manifest(folder))
    assert load_manifest(copy).labels == load_manifest(folder).labels


def test_smaller_images_and_the_manifest_says_so(small_shards: MakeShards, tmp_path: Path) -> None:
    folder = rewritten(small_shards(7, 2), tmp_path / "small", short_side_px=24)
    manifest = load_manifest(folder)
    for index, shard in enumerate(manifest.shards):
        for row in manifest.samples_of(index).to_pylist():
            if shard.kind == "image":
                image = cv2.imdecode(np.frombuffer(contents(manifest)[row["key"]], np.uint8), cv2.IMREAD_COLOR)
                assert image.shape[:2] == (row["height"], row["width"])
                assert min(row["height"], row["width"]) == 24
            else:
                assert (row["width"], row["height"]) == (64, 48)


def test_another_codec_with_the_same_frames(small_shards: MakeShards, tmp_path: Path) -> None:
    folder = rewritten(small_shards(2, 2), tmp_path / "vp9", codec="vp9")
    found = contents(load_manifest(folder))
    assert {codec_of(content) for key, content in found.items() if "clip" in key} == {"vp9"}


def test_only_the_first_samples_of_each_kind(small_shards: MakeShards, tmp_path: Path) -> None:
    folder = rewritten(small_shards(12, 8), tmp_path / "few", max_samples=6)
    keys = sorted(contents(load_manifest(folder)))
    assert keys == sorted([f"train{index:04d}" for index in range(6)] + [f"trainclip{index:04d}" for index in range(6)])


def test_what_is_there_is_kept(small_shards: MakeShards, tmp_path: Path) -> None:
    folder = small_shards(3)
    first = rewritten(folder, tmp_path / "copy")
    before = (first / "manifest.json").stat().st_mtime_ns
    rewritten(folder, tmp_path / "copy", short_side_px=8)
    assert (first / "manifest.json").stat().st_mtime_ns == before


def test_recoded_clips_hold_as_many_frames() -> None:
    (clip,) = stored_clips(1, num_frames=5)
    for codec in ("vp9", "mjpeg"):
        encoded = recoded_clip(clip.encoded, codec)  # type: ignore[arg-type]
        with av.open(io.BytesIO(encoded)) as container:
            assert len(list(container.decode(video=0))) == 5


@pytest.mark.parametrize(("canvas_px", "low", "expected"), [(256, 0.75, 342), (256, 1.0, 256), (96, 0.5, 192)])
def test_needed_size_is_that_of_the_smallest_crop(canvas_px: int, low: float, expected: int) -> None:
    config = made_config(canvas_px=canvas_px, canvas_scale=(low, 1.0)).pipeline
    assert needed_short_side_px(config) == expected


def test_short_side_is_a_median(small_shards: MakeShards) -> None:
    assert 48 <= short_side_px(made_config(images=small_shards(20), batch_size=4).pipeline) <= 60


def test_a_stored_change_points_to_shards_that_live_as_long_as_the_block(small_shards: MakeShards) -> None:
    config = made_config(images=small_shards(6))
    option = Option(
        name="small_images", stage="decode", text="", change=lambda model: model, stored={"short_side_px": 16}
    )
    with applied(config, option) as other:
        (source,) = other.pipeline.sources_of("image")
        assert load_manifest(source.path).shards
        assert source.path != config.pipeline.sources_of("image")[0].path
    assert not Path(source.path).exists()


def test_a_setting_needs_no_shards_of_its_own() -> None:
    option = Option(
        name="threads",
        stage="threads",
        text="",
        change=lambda model: model,
        settings={"pipeline.num_threads": 1},
    )
    config = made_config()
    with applied(config, option) as other:
        assert other.pipeline.num_threads == 1
        assert other.pipeline.images == config.pipeline.images


@pytest.mark.parametrize("images", [["a", "b"], "s3://bucket/scans"])
def test_only_one_folder_of_this_machine_can_be_stored_otherwise(images: object) -> None:
    sources = [{"path": path} for path in images] if isinstance(images, list) else images
    option = Option(name="memory", stage="read", text="", change=lambda model: model, stored={"in_memory": True})
    with pytest.raises(UsageError, match="Allowed: one folder"), applied(made_config(images=sources), option):
        pass


def test_both_are_measured_in_turn(small_shards: MakeShards) -> None:
    config = made_config(images=small_shards(6), batch_size=2, canvas_px=32)
    option = Option(
        name="prefetch",
        stage="prefetch",
        text="",
        change=lambda model: model,
        settings={"pipeline.prefetch_batches": 8},
    )
    found = apply_option(config, option, 0.2, 2)
    assert len(found.before_samples_per_s) == len(found.after_samples_per_s) == 2
    assert found.gain > 0


def test_the_gain_counts_a_stall_that_comes_now_and_then() -> None:
    stalled = Applied(before_samples_per_s=(100, 100, 40), after_samples_per_s=(100, 100, 100))
    assert stalled.gain == pytest.approx(300 / 240)
