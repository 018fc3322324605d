import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from benchmarks.studies.shards.build_kill import kill_again_and_again
from pipelines.base.errors import DataError, UsageError
from pipelines.shards import build as build_module
from pipelines.shards.build import BuildConfig, BuildSummary, build_shards
from pipelines.shards.format.manifest import load_manifest
from pipelines.shards.format.storage import LocalStorage
from pipelines.shards.format.tar_writer import TarWriter
from pipelines.shards.sources.item_reader import ItemReader
from pipelines.shards.sources.items import SourceItem
from pipelines.shards.tools.verify import verify_shards
from tests.made.media import decoded, gray_frames, picture, write_image, write_video
from tests.made.patience import PATIENCE_S


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """12 images in two classes."""
    for index in range(12):
        write_image(tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index:02d}.jpg", index)
    return tmp_path / "photos"


def build(out: Path, *sources: Path, **options: Any) -> BuildSummary:
    return build_shards(BuildConfig(sources=list(sources), out=out, **options))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def inodes(folder: Path) -> dict[str, int]:
    """A shard that was written again has another inode, because it was renamed into place."""
    return {path.name: path.stat().st_ino for path in folder.glob("*.tar")}


def test_images_are_kept_byte_for_byte_with_labels(photos: Path, tmp_path: Path) -> None:
    summary = build(tmp_path / "out", photos)
    assert (summary.num_images, summary.num_clips, summary.shards, summary.labels) == (12, 0, 1, ("cat", "dog"))
    samples = list(webdataset.WebDataset(str(tmp_path / "out" / "train-images-000000.tar"), shardshuffle=False))
    assert {one["__key__"]: one["jpg"] for one in samples} == {
        f"{path.parent.name}/{path.stem}": path.read_bytes() for path in photos.rglob("*.jpg")
    }
    assert all(int(one["cls"]) == ("cat", "dog").index(one["__key__"][:3]) for one in samples)


def test_manifest_finds_every_image_in_the_tars(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos, samples_per_shard=5, val="every:3")
    manifest = load_manifest(tmp_path / "out")
    assert manifest.labels == ("cat", "dog")
    for split, count in (("train", 8), ("val", 4)):
        table = manifest.select("image", split)
        assert len(table) == count
        assert set(zip(table.width.tolist(), table.height.tolist(), strict=True)) == {(64, 48)}
        for row, key in enumerate(table.keys):
            tar = (tmp_path / "out" / table.shards[table.shard_index[row]].name).read_bytes()
            at = table.offset[row]
            assert tar[at : at + table.size[row]] == (photos / f"{key}.jpg").read_bytes()
            assert table.labels[table.label[row]] == key.split("/")[0]


def test_every_third_of_a_class_is_val(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos, val="every:3")
    keys = load_manifest(tmp_path / "out").select("image", "val").keys
    assert sorted(keys) == ["cat/00", "cat/06", "dog/01", "dog/07"]


def test_shards_are_cut_by_count_and_by_size(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "count", photos, samples_per_shard=5)
    assert [shard.num_samples for shard in load_manifest(tmp_path / "count").shards] == [5, 5, 2]
    build(tmp_path / "size", photos, max_shard_mib=0.008)
    shards = load_manifest(tmp_path / "size").shards
    assert len(shards) > 3
    assert all(shard.shard_bytes < 20_000 for shard in shards)


def test_shuffled_order_mixes_classes_and_name_order_is_kept_on_demand(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "a", photos)
    build(tmp_path / "b", photos, shuffle=False)
    mixed, sorted_keys = (load_manifest(tmp_path / name).select("image", "train").keys for name in "ab")
    assert list(sorted_keys) == sorted(sorted_keys)
    assert sorted(mixed) == list(sorted_keys)
    assert mixed != sorted_keys


@pytest.fixture
def _always_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "SMALL_ITEMS", 0)


@pytest.mark.usefixtures("_always_workers")
def test_same_input_same_bytes(photos: Path, tmp_path: Path) -> None:
    write_video(photos / "v.mp4", [picture(seed=index) for index in range(25)])
    for name, num_workers in (("a", 1), ("b", 3)):
        build(tmp_path / name, photos, samples_per_shard=5, num_workers=num_workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("codec", ["mjpeg", "vp9"])
def test_clips_hold_ten_frames_of_the_video(tmp_path: Path, codec: str) -> None:
    levels = [20 + 7 * index for index in range(30)]
    write_video(tmp_path / "src" / "v.mp4", gray_frames(levels))
    summary = build(tmp_path / "out", tmp_path / "src", codec=codec)
    assert (summary.num_images, summary.num_clips) == (0, 3)
    table = load_manifest(tmp_path / "out").select("clip", "train")
    assert list(table.keys) == ["v_t00000000", "v_t00000010", "v_t00000020"]
    assert (set(table.num_frames.tolist()), set(table.fps.tolist())) == ({10}, {10.0})
    tar = (tmp_path / "out" / "train-clips-000000.tar").read_bytes()
    frames = [f for at, size in zip(table.offset, table.size, strict=True) for f in decoded(tar[at : at + size])]
    assert np.abs(np.array([frame.mean() for frame in frames]) - levels).max() < 3


def test_images_and_videos_in_one_build(photos: Path, tmp_path: Path) -> None:
    write_video(photos / "cat" / "v.avi", gray_frames([5 * index for index in range(20)]), codec="mjpeg")
    build(tmp_path / "out", photos)
    assert sorted(inodes(tmp_path / "out")) == ["train-clips-000000.tar", "train-images-000000.tar"]


def test_a_video_is_whole_in_one_split(tmp_path: Path) -> None:
    for index in range(4):
        write_video(tmp_path / "src" / f"{index}.mp4", gray_frames([10 * step for step in range(20)]))
    build(tmp_path / "out", tmp_path / "src", val="every:4")
    manifest = load_manifest(tmp_path / "out")
    assert {key[0] for key in manifest.select("clip", "val").keys} == {"0"}
    assert {key[0] for key in manifest.select("clip", "train").keys} == {"1", "2", "3"}


def test_long_video_is_cut_into_shards_in_the_middle(tmp_path: Path) -> None:
    write_video(tmp_path / "src" / "v.mp4", gray_frames([2 * index for index in range(70)]))
    build(tmp_path / "out", tmp_path / "src", samples_per_shard=3)
    manifest = load_manifest(tmp_path / "out")
    assert [shard.num_samples for shard in manifest.shards] == [3, 3, 1]
    assert list(manifest.select("clip", "train").keys) == [f"v_t{10 * index:08d}" for index in range(7)]


def spoil(folder: Path) -> None:
    whole = (folder / "cat" / "00.jpg").read_bytes()
    (folder / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "text.jpg").write_text("hello")
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "cat" / "none.mp4").write_bytes(b"")


def test_rejects_are_listed_with_reasons(photos: Path, tmp_path: Path) -> None:
    spoil(photos)
    summary = build(tmp_path / "out", photos)
    assert (summary.num_images, summary.num_rejects) == (12, 4)
    rows = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    reasons = {row["source"]: row["reason"] for row in rows}
    assert set(reasons) == {"cat/cut.jpg", "cat/text.jpg", "cat/empty.jpg", "cat/none.mp4"}
    assert "cut off" in reasons["cat/cut.jpg"]
    assert "not an image" in reasons["cat/text.jpg"]
    assert "0 bytes" in reasons["cat/empty.jpg"]
    assert "cannot decode" in reasons["cat/none.mp4"]


def test_too_many_rejects_stop_the_build(photos: Path, tmp_path: Path) -> None:
    spoil(photos)
    with pytest.raises(
        DataError, match=r"more than max_reject_ratio = 0\.1 of the items cannot be used \(.* 16 in all\): cat/"
    ):
        build(tmp_path / "out", photos, max_reject_ratio=0.1)
    assert (tmp_path / "out" / "rejects.jsonl").is_file()
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_nothing_usable_is_an_error_whatever_the_ratio(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(DataError, match=r"nothing of 1 items is usable: a\.jpg: not an image"):
        build(tmp_path / "out", tmp_path / "a.jpg", max_reject_ratio=1.0)


def test_building_again_keeps_every_shard(photos: Path, tmp_path: Path) -> None:
    spoil(photos)
    build(tmp_path / "out", photos, samples_per_shard=4)
    before, nodes = contents(tmp_path / "out"), inodes(tmp_path / "out")
    summary = build(tmp_path / "out", photos, samples_per_shard=4)
    assert summary.num_reused == summary.shards == 4
    assert summary.num_rejects == 4
    assert (contents(tmp_path / "out"), inodes(tmp_path / "out")) == (before, nodes)


def test_lost_shard_is_made_again_and_the_others_are_kept(photos: Path, tmp_path: Path) -> None:
    write_video(photos / "v.mp4", gray_frames([2 * index for index in range(70)]))
    build(tmp_path / "out", photos, samples_per_shard=4)
    before = contents(tmp_path / "out")
    for name in ("train-images-000001.tar", "train-clips-000000.tar"):
        (tmp_path / "out" / name).unlink()
    summary = build(tmp_path / "out", photos, samples_per_shard=4)
    assert summary.num_reused == summary.shards - 2
    assert contents(tmp_path / "out") == before


def test_changed_image_changes_its_shard_only(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos, samples_per_shard=4, shuffle=False)
    before = inodes(tmp_path / "out")
    write_image(photos / "dog" / "11.jpg", seed=99)
    assert build(tmp_path / "out", photos, samples_per_shard=4, shuffle=False).num_reused == 2
    after = inodes(tmp_path / "out")
    assert [name for name in after if after[name] != before[name]] == ["train-images-000002.tar"]
    assert verify_shards(tmp_path / "out") == []


def test_removed_images_leave_no_stale_shard(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos, samples_per_shard=2)
    for path in list(photos.rglob("*.jpg"))[:6]:
        path.unlink()
    (tmp_path / "out" / "mine.tar").write_bytes(b"of the user")
    build(tmp_path / "out", photos, samples_per_shard=2)
    assert len(load_manifest(tmp_path / "out").shards) == 3
    assert sorted(inodes(tmp_path / "out")) == ["mine.tar"] + [f"train-images-{index:06d}.tar" for index in range(3)]


def test_finished_build_of_something_else_is_not_replaced_unasked(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos)
    with pytest.raises(UsageError, match=r"holds a finished build of something else; val = every:2 \(there: none\)"):
        build(tmp_path / "out", photos, val="every:2")
    build(tmp_path / "out", photos, val="every:2", overwrite=True)
    assert len(load_manifest(tmp_path / "out").select("image", "val")) == 6


def test_failure_leaves_finished_shards_and_no_other_file(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "whole", photos, samples_per_shard=4)
    adds = 0
    add = TarWriter.add

    def failing_add(self: Any, sample: Any) -> None:
        nonlocal adds
        adds += 1
        if adds == 7:
            raise KeyboardInterrupt
        add(self, sample)

    monkeypatch.setattr(TarWriter, "add", failing_add)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", photos, samples_per_shard=4)
    assert sorted(contents(tmp_path / "out")) == ["train-images-000000.idx", "train-images-000000.tar"]
    monkeypatch.undo()
    assert build(tmp_path / "out", photos, samples_per_shard=4).num_reused == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_full_disk_says_how_to_go_on_and_the_build_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "whole", photos, samples_per_shard=4)
    writes = 0
    write = LocalStorage.write

    def failing_write(self: LocalStorage, name: str, content: bytes, **options: bool) -> None:
        nonlocal writes
        writes += 1
        if writes == 4:
            raise OSError(errno.ENOSPC, "No space left on device", name)
        write(self, name, content, **options)

    monkeypatch.setattr(LocalStorage, "write", failing_write)
    with pytest.raises(DataError, match=r"No space left on device\. Make room .* finished shards are kept"):
        build(tmp_path / "out", photos, samples_per_shard=4)
    monkeypatch.undo()
    assert build(tmp_path / "out", photos, samples_per_shard=4).num_reused == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_unreadable_image_is_tried_again_by_the_next_build(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ItemReader.read

    def failing_read(self: ItemReader, item: SourceItem) -> bytes:
        if item.key == "cat/04":
            raise OSError(errno.EIO, "Input/output error")
        return read(self, item)

    monkeypatch.setattr(ItemReader, "read", failing_read)
    assert build(tmp_path / "out", photos, samples_per_shard=4).num_rejects == 1
    monkeypatch.undo()
    summary = build(tmp_path / "out", photos, samples_per_shard=4)
    assert (summary.num_rejects, summary.num_reused, summary.num_images) == (0, 2, 12)


def test_shard_of_rejects_only_is_a_hole_and_is_kept(photos: Path, tmp_path: Path) -> None:
    for index in range(4):
        (photos / "cat" / f"06-{index}.jpg").write_text("no image")
    for num_reused in (0, 3):
        summary = build(tmp_path / "out", photos, samples_per_shard=4, shuffle=False)
        assert (summary.shards, summary.num_empty_shards, summary.num_reused) == (3, 1, num_reused)
    assert sorted(inodes(tmp_path / "out")) == [f"train-images-{index:06d}.tar" for index in (0, 2, 3)]
    assert verify_shards(tmp_path / "out") == []


def test_settings_that_change_no_byte_keep_all_shards(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos, samples_per_shard=4)
    summary = build(tmp_path / "out", photos, samples_per_shard=4, num_workers=1, max_reject_ratio=0.9)
    assert (summary.num_reused, summary.samples_per_s) == (3, 0.0)


def test_other_settings_make_all_shards_anew(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos, samples_per_shard=4)
    summary = build(tmp_path / "out", photos, samples_per_shard=4, short_side_px=32, overwrite=True)
    assert summary.num_reused == 0
    assert set(load_manifest(tmp_path / "out").select("image", "train").height.tolist()) == {32}
    assert verify_shards(tmp_path / "out") == []


@pytest.mark.usefixtures("_always_workers")
def test_build_leaves_nothing_but_shards_and_records(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos, samples_per_shard=6)
    stems = ["train-images-000000", "train-images-000001"]
    want = [f"{stem}.{suffix}" for stem in stems for suffix in ("idx", "tar")] + ["manifest.json", "samples.arrow"]
    assert sorted(contents(tmp_path / "out")) == sorted(want)
    inside = sorted(path.name for path in (tmp_path / "out" / ".build").iterdir())
    assert inside == sorted(["lock", "settings.json", *(f"{stem}.arrow" for stem in stems)])


@pytest.mark.usefixtures("_always_workers")
def test_progress_shows_samples_bytes_and_ends_whole(photos: Path, tmp_path: Path, capsys: Any) -> None:
    build(tmp_path / "out", photos, samples_per_shard=6)
    assert re.search(r"building shards: 12/12 samples, .* samples/s, .* MB/s\n", capsys.readouterr().err)


SLOW_BUILD = """
import sys, time
from pathlib import Path
from pipelines.shards import build as b
from pipelines.shards.format import tar_writer as w
add = w.TarWriter.add
def slow_add(self, sample):
    time.sleep(0.05)
    add(self, sample)
w.TarWriter.add = slow_add
b.build_shards(b.BuildConfig(sources=[Path(sys.argv[1])], out=Path(sys.argv[2]), samples_per_shard=4))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_build_goes_on_to_the_same_bytes(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    build(tmp_path / "whole", photos, samples_per_shard=4)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(photos), str(out)],
        cwd=Path(__file__).resolve().parents[3],
        stderr=subprocess.DEVNULL,
    )
    deadline_s = time.monotonic() + PATIENCE_S
    while not (out / "train-images-000000.idx").exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    time.sleep(0.08)
    os.kill(process.pid, number)
    assert process.wait(PATIENCE_S) != 0
    assert not (out / "manifest.json").exists()
    if number != signal.SIGKILL:
        assert not list(out.rglob(".*.tmp"))
    tars = {name: data for name, data in contents(out).items() if name.endswith(".tar") and name[0] != "."}
    whole = contents(tmp_path / "whole")
    assert tars
    assert all(whole[name] == data for name, data in tars.items())
    assert build(out, photos, samples_per_shard=4).num_reused >= 1
    assert contents(out) == whole


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    result = kill_again_and_again(tmp_path, num_kills=2, num_images=1000, samples_per_shard=20, seed=0)
    assert result.num_kills == 2
    assert result.problems == []


def test_real_videos_of_two_codecs(shared_data: Path, tmp_path: Path) -> None:
    videos = [shared_data / "videos" / name for name in ("hmdb_wave_3.avi", "realshort.mp4")]
    summary = build(tmp_path / "out", *videos, fps=10)
    assert (summary.num_clips, summary.num_rejects) == (2, 0)
    assert verify_shards(tmp_path / "out") == []


def test_a_build_from_before_there_were_splits_by_source_is_kept(photos: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", photos)
    before = inodes(tmp_path / "out")
    path = tmp_path / "out" / build_module.SETTINGS_NAME
    settings = json.loads(path.read_text())
    del settings["splits"]
    path.write_text(json.dumps(settings))
    assert build(tmp_path / "out", photos).num_reused == 1
    assert inodes(tmp_path / "out") == before
    with pytest.raises(UsageError, match="splits = "):
        build_shards(BuildConfig(splits={"val": [photos]}, out=tmp_path / "out"))
