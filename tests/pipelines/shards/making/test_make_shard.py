import errno
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.base.errors import DataError
from pipelines.shards.format.storage import LocalStorage, storage_of
from pipelines.shards.format.table import Kind
from pipelines.shards.making.make_shard import ShardJob, make_shard
from pipelines.shards.making.shard_plan import PlannedShard
from pipelines.shards.making.shard_progress import listening
from pipelines.shards.making.shard_records import ShardRecord, load_record
from pipelines.shards.media.clip_bytes import ClipForm
from pipelines.shards.media.image_bytes import ImageForm
from pipelines.shards.sources.item_columns import Places, pack
from pipelines.shards.sources.items import SourceItem
from tests.made.media import encoded_image, gray_frames, picture, write_image, write_video

NAME = "train-images-000000.tar"


@pytest.fixture
def job(tmp_path: Path) -> ShardJob:
    storage = storage_of(tmp_path / "out")
    storage.make()
    return ShardJob(
        storage=storage,
        image_form=ImageForm(check="decode", max_pixels=10_000),
        clip_form=ClipForm(num_frames=5),
        labels=("cat", 'd"ög'),
        libraries={"image": {"cv2": "5"}, "clip": {"av": "18"}},
    )


def shard_of(paths: list[Path], labels: list[int] | None = None, kind: Kind = "image", **others: Any) -> PlannedShard:
    items = [
        SourceItem(str(path), "file", 0, path.stat().st_size, 0, path.name, path.stem, kind)._replace(**others)
        for path in paths
    ]
    places = Places()
    rows = pack(items, labels or [-1] * len(paths), places, keep_keys=False)
    return PlannedShard(
        name=NAME, kind=kind, split="train", num_samples=len(paths), rows=rows, places=tuple(places.table)
    )


def made(shard: PlannedShard, job: ShardJob) -> tuple[dict[str, bytes], ShardRecord]:
    """(members of the tar, record)."""
    make_shard(shard, job)
    record = load_record(job.storage, NAME)
    assert record is not None
    path = job.storage.path(NAME)
    assert path is not None
    if not path.exists():
        return {}, record
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}, record  # type: ignore[union-attr]


def test_images_come_in_order_with_their_members(tmp_path: Path, job: ShardJob) -> None:
    paths = [write_image(tmp_path / f"{n}.jpg", n) for n in (2, 0, 1)]
    members, record = made(shard_of(paths, [1, -1, 0]), job)
    assert list(members) == ["2.jpg", "2.cls", "2.json", "0.jpg", "0.json", "1.jpg", "1.cls", "1.json"]
    assert [members[f"{n}.jpg"] for n in range(3)] == [(tmp_path / f"{n}.jpg").read_bytes() for n in range(3)]
    assert (members["2.cls"], members["1.cls"]) == (b"1", b"0")
    assert record.samples.column("label").to_pylist() == [1, -1, 0]


def test_sidecars_are_sorted_json_whichever_way_they_are_written(tmp_path: Path, job: ShardJob) -> None:
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(encoded_image(picture(), orientation=6))
    paths = [write_image(tmp_path / 'ä"\n.jpg'), write_image(tmp_path / "b.jpg"), turned]
    members, _ = made(shard_of(paths, [1, -1, 1]), job)
    facts = {name: content for name, content in members.items() if name.endswith("json")}
    for content in facts.values():
        assert content == json.dumps(json.loads(content), ensure_ascii=False, sort_keys=True).encode()
    first, second, third = (json.loads(content) for content in facts.values())
    assert first == {"width": 64, "height": 48, "source": 'ä"\n.jpg', "label": 'd"ög'}
    assert second == {"width": 64, "height": 48, "source": "b.jpg"}
    assert (third["width"], third["height"], third["orientation"]) == (48, 64, 6)


def test_true_format_names_the_member(tmp_path: Path, job: ShardJob) -> None:
    members, _ = made(shard_of([write_image(tmp_path / "a.jpg", kind="PNG")]), job)
    assert list(members) == ["a.png", "a.json"]


def test_bad_images_are_rejects_in_their_order(tmp_path: Path, job: ShardJob) -> None:
    paths = [write_image(tmp_path / "a.jpg"), tmp_path / "b.jpg", write_image(tmp_path / "c.jpg", width=500)]
    (tmp_path / "b.jpg").write_bytes(b"")
    members, record = made(shard_of([*paths, write_image(tmp_path / "d.jpg")]), job)
    assert list(members) == ["a.jpg", "a.json", "d.jpg", "d.json"]
    assert [reject.source for reject in record.rejects] == ["b.jpg", "c.jpg"]
    assert "500 x 48 px is more than max_pixels" in record.rejects[1].reason
    assert record.is_final


def test_image_that_vanished_is_a_reject_that_a_later_build_looks_at_again(tmp_path: Path, job: ShardJob) -> None:
    paths = [write_image(tmp_path / f"{n}.jpg") for n in "ab"]
    shard = shard_of(paths)
    paths[0].unlink()
    _, record = made(shard, job)
    assert [reject.reason for reject in record.rejects] == ["cannot read it (No such file or directory)"]
    assert not record.is_final


def test_url_that_cannot_be_opened_is_a_reject_that_says_what_is_missing(tmp_path: Path, job: ShardJob) -> None:
    shard = shard_of([write_image(tmp_path / "a.jpg")], location="nosuch://x/a.jpg")
    _, record = made(shard, job)
    assert "nosuch://x/a.jpg" in record.rejects[0].reason
    assert "unexpected" not in record.rejects[0].reason
    assert not record.is_final


def test_an_error_that_nobody_has_thought_of_is_a_reject(
    tmp_path: Path, job: ShardJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(encoded: bytes, form: ImageForm) -> None:
        raise IndexError("there is no such byte")

    monkeypatch.setattr("pipelines.shards.media.image_bytes.prepare_image", fail)
    members, record = made(shard_of([write_image(tmp_path / "a.jpg")]), job)
    assert members == {}
    assert record.rejects[0].reason == "unexpected IndexError (there is no such byte)"


def test_shard_without_samples_replaces_an_older_tar_by_nothing(tmp_path: Path, job: ShardJob) -> None:
    made(shard_of([write_image(tmp_path / "a.jpg")]), job)
    (tmp_path / "b.jpg").write_text("no image")
    members, record = made(shard_of([tmp_path / "b.jpg"]), job)
    assert (members, record.num_samples, record.shard_bytes) == ({}, 0, 0)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [".build", "train-images-000000.arrow"]


def test_clips_with_sidecars(tmp_path: Path, job: ShardJob) -> None:
    path = write_video(tmp_path / "v.mp4", gray_frames([10 * index for index in range(13)]))
    members, record = made(shard_of([path], kind="clip"), job)
    assert list(members) == ["v_t00000000.mp4", "v_t00000000.json", "v_t00000005.mp4", "v_t00000005.json"]
    facts = json.loads(members["v_t00000005.json"])
    assert {"source": "v.mp4", "start_s": 0.5, "num_frames": 5, "width": 64, "codec": "mjpeg"}.items() <= facts.items()
    assert record.samples.column("fps").to_pylist() == [10.0, 10.0]


def test_number_of_threads_makes_no_difference(tmp_path: Path, job: ShardJob) -> None:
    path = write_video(tmp_path / "v.mp4", [picture(seed=index) for index in range(40)])
    shard = shard_of([path], kind="clip")
    assert made(shard, job)[0] == made(shard, replace(job, num_threads=3))[0]


def test_dropped_clips_are_counted_and_are_no_rejects(tmp_path: Path, job: ShardJob) -> None:
    path = write_video(tmp_path / "v.mp4", gray_frames([50] * 20))
    form = ClipForm(num_frames=5, min_motion=0.5)
    members, record = made(shard_of([path], kind="clip"), replace(job, clip_form=form))
    assert members == {}
    assert (record.rejects, record.dropped) == ((), {"static": 4})


def test_video_that_is_none_and_one_that_is_too_short_are_rejects(tmp_path: Path, job: ShardJob) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    short = write_video(tmp_path / "b.mp4", gray_frames([1, 2]))
    _, record = made(shard_of([tmp_path / "a.mp4", short], kind="clip"), job)
    assert [reject.key for reject in record.rejects] == ["a", "b"]
    assert "no clip of 5 frames" in record.rejects[1].reason


@pytest.mark.parametrize("num_planned", [2, 5, 9])
def test_progress_is_told_but_never_more_than_was_planned(
    tmp_path: Path, job: ShardJob, monkeypatch: pytest.MonkeyPatch, num_planned: int
) -> None:
    monkeypatch.setattr("pipelines.shards.making.make_shard.TELL_EVERY_S", -1.0)
    heard: list[int] = []
    paths = [write_image(tmp_path / f"{n}.jpg", n) for n in range(5)]
    with listening(lambda num_samples, num_bytes: heard.append(num_samples)):
        done = make_shard(replace(shard_of(paths), num_samples=num_planned), job)
    assert sum(heard) == done.num_told == min(num_planned, 5)
    assert 0 < done.told_bytes < done.shard_bytes


def test_full_disk_is_an_error_that_says_how_to_go_on(
    tmp_path: Path, job: ShardJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: LocalStorage, name: str, **options: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", name)

    shard = shard_of([write_image(tmp_path / "a.jpg")])
    monkeypatch.setattr(LocalStorage, "writing", full)
    with pytest.raises(DataError, match=r"train-images-000000\.tar: No space left on device\. Make room .* same build"):
        make_shard(shard, job)


def test_fingerprint_knows_the_names_of_the_labels_in_use_only(tmp_path: Path, job: ShardJob) -> None:
    shard = shard_of([write_image(tmp_path / "a.jpg")], [0])
    before = job.fingerprint(shard)
    assert replace(job, labels=("cat", "elk")).fingerprint(shard) == before
    assert replace(job, labels=("ant", "cat")).fingerprint(shard) != before
    assert replace(job, num_threads=7).fingerprint(shard) == before
    assert replace(job, image_form=ImageForm(check="header")).fingerprint(shard) != before
