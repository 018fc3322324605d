import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.shards.clips import ClipFormat
from pipelines.shards.samples import Position, Reject, Sample, SampleReader
from pipelines.shards.sources import find_sources
from tests.media import gray_frames, write_image, write_video


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as executor:
        yield executor


def reader(folder: Path, pool: ThreadPoolExecutor) -> SampleReader:
    sources = find_sources([folder])
    return SampleReader(
        files=sources.files,
        labels=sources.labels,
        clip_format=ClipFormat(num_frames=5),
        max_pixels=10_000,
        pool=pool,
        depth=2,
    )


def test_images_come_in_order_with_members_and_position(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    for index in range(6):
        write_image(tmp_path / "ab"[index % 2] / f"{index}.jpg", index)
    results = list(reader(tmp_path, pool).read(Position(0)))
    assert [position for position, _ in results] == [Position(index + 1) for index in range(6)]
    samples = [result for _, result in results if isinstance(result, Sample)]
    assert [sample.key for sample in samples] == ["a/0", "a/2", "a/4", "b/1", "b/3", "b/5"]
    members = dict(samples[3].members)
    assert members["jpg"] == (tmp_path / "b" / "1.jpg").read_bytes()
    assert members["cls"] == b"1"
    assert json.loads(members["json"]) == {"width": 64, "height": 48, "source": "b/1.jpg", "label": "b"}


def test_true_format_names_the_member(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    write_image(tmp_path / "a.jpg", kind="PNG")
    ((_, sample),) = reader(tmp_path, pool).read(Position(0))
    assert isinstance(sample, Sample)
    assert [extension for extension, _ in sample.members] == ["png", "json"]


def test_bad_files_become_rejects_in_their_place(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").symlink_to(tmp_path / "gone.jpg")
    write_image(tmp_path / "d.jpg", width=200)
    write_image(tmp_path / "e.jpg")
    results = [result for _, result in reader(tmp_path, pool).read(Position(0))]
    assert [type(result) for result in results] == [Sample, Reject, Reject, Sample, Sample]
    assert isinstance(results[2], Reject)
    assert results[2].reason == "cannot read it (No such file or directory)"


def test_videos_give_clips_with_sidecars(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    write_video(tmp_path / "v.mp4", gray_frames([10 * index for index in range(13)]))
    results = list(reader(tmp_path, pool).read(Position(0)))
    assert [position for position, _ in results] == [Position(0, 1), Position(0, 2)]
    sample = results[1][1]
    assert isinstance(sample, Sample)
    assert (sample.key, sample.num_frames, sample.fps) == ("v_c000001", 5, 10.0)
    assert json.loads(dict(sample.members)["json"]) == {
        "num_frames": 5,
        "fps": 10.0,
        "width": 64,
        "height": 48,
        "codec": "mjpeg",
        "source": "v.mp4",
        "start_s": 0.5,
    }


def test_every_position_is_a_place_to_go_on(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    for name, num_frames in (("a", 12), ("b", 3), ("c", 16)):
        write_video(tmp_path / f"{name}.mp4", gray_frames([8 * index for index in range(num_frames)]))
    source = reader(tmp_path, pool)
    whole = list(source.read(Position(0)))
    assert [result.key for _, result in whole] == ["a_c000000", "a_c000001", "b", "c_c000000", "c_c000001", "c_c000002"]
    for index, (position, _) in enumerate(whole):
        assert list(source.read(position)) == whole[index + 1 :]


def test_video_too_short_for_a_clip_says_so(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    write_video(tmp_path / "v.mp4", gray_frames([1, 2, 3]))
    ((position, reject),) = reader(tmp_path, pool).read(Position(0))
    assert position == Position(1)
    assert isinstance(reject, Reject)
    assert reject.reason == "no clip of 5 different frames at 10 fps in it (needs 0.4 s)"
