"""Items picked from a plan and tried: which ones, what is counted, and how the time is divided."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines.shards.dry_run import trial as trial_module
from pipelines.shards.dry_run.trial import Trial, spread, try_shards
from pipelines.shards.format.storage import storage_of
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.making.make_shard import ShardJob
from pipelines.shards.making.planning import plan_build
from pipelines.shards.making.shard_plan import ShardPlan
from tests.made.media import gray_frames, write_image, write_video


def planned(folder: Path, *sources: Path, **options: Any) -> tuple[ShardPlan, ShardJob]:
    config = BuildConfig(sources=list(sources), out=folder / "out", **options)
    plan = plan_build(config, folder).plan
    storage = storage_of(folder / "tried")
    storage.make()
    forms = {"image_form": config.image_form(), "clip_form": config.clip_form()}
    return plan, ShardJob(storage=storage, labels=plan.labels, libraries={"image": {}, "clip": {}}, **forms)


def write_photos(folder: Path, count: int) -> Path:
    for index in range(count):
        write_image(folder / f"{index:03d}.jpg", index)
    return folder


def test_a_small_plan_is_tried_whole(tmp_path: Path) -> None:
    plan, _ = planned(tmp_path, write_photos(tmp_path / "photos", 30), samples_per_shard=8)
    sources = sorted(item.source for part in spread(plan, "image") for item in part.items())
    assert sources == [f"{index:03d}.jpg" for index in range(30)]
    assert spread(plan, "clip") == []


def test_a_large_plan_is_tried_in_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trial_module.MAX_ITEMS, "image", 16)
    plan, _ = planned(tmp_path, write_photos(tmp_path / "photos", 60), samples_per_shard=4, shuffle=False)
    assert plan.num_shards == 15
    parts = spread(plan, "image")
    tried = sorted(int(item.key) for part in parts for item in part.items())
    assert len(tried) == 16
    assert (tried[0], tried[-1]) == (0, 59)
    assert max(after - before for before, after in pairwise(tried)) <= 10


def test_samples_rejects_and_bytes_are_counted(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 9)
    (photos / "bad.jpg").write_bytes(b"not a picture")
    plan, job = planned(tmp_path, photos)
    tried = try_shards(spread(plan, "image"), job)
    assert (tried.num_items, tried.num_attempts, tried.num_samples) == (10, 10, 9)
    assert [reject.source for reject in tried.rejects] == ["bad.jpg"]
    assert tried.sample_ratio == 0.9
    assert tried.bytes_in == sum(path.stat().st_size for path in photos.iterdir())
    assert tried.bytes_out > tried.bytes_in
    assert (tried.median_width_px, tried.median_height_px) == (64, 48)


def test_only_the_start_of_a_long_video_is_made(tmp_path: Path) -> None:
    levels = [index * 2 % 200 + (100 if index % 2 else 0) for index in range(100)]
    write_video(tmp_path / "a.mp4", gray_frames([min(level, 255) for level in levels]))
    plan, job = planned(tmp_path, tmp_path / "a.mp4", cut_threshold=None)
    assert plan.num_samples == 10
    tried = try_shards(spread(plan, "clip"), job)
    assert (tried.num_items, tried.num_attempts) == (1, trial_module.MAX_CLIPS_OF_VIDEO)


def test_nothing_usable_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"not a picture")
    plan, job = planned(tmp_path, tmp_path / "bad.jpg")
    tried = try_shards(spread(plan, "image"), job)
    assert (tried.num_samples, len(tried.rejects), tried.median_width_px) == (0, 1, 0)


def test_it_stops_when_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "ENOUGH_S", 0.0)
    monkeypatch.setitem(trial_module.STEP_ITEMS, "image", 5)
    plan, job = planned(tmp_path, write_photos(tmp_path / "photos", 30))
    assert try_shards(spread(plan, "image"), job).num_items == 5


def with_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shard_s: float, item_s: float, noise_s: float = 0.0
) -> Trial:
    """A trial on a clock that advances by a fixed time per shard and per item."""
    now_s, make_shard = [0.0], trial_module.make_shard

    def timed(shard: Any, job: ShardJob) -> Any:
        now_s[0] += shard_s + item_s * shard.rows.num_rows + (noise_s if shard.rows.num_rows == 1 else 0)
        return make_shard(shard, job)

    monkeypatch.setattr(trial_module, "make_shard", timed)
    monkeypatch.setattr(trial_module.time, "perf_counter", lambda: now_s[0])
    monkeypatch.setitem(trial_module.STEP_ITEMS, "image", 5)
    plan, job = planned(tmp_path, write_photos(tmp_path / "photos", 20))
    return try_shards(spread(plan, "image"), job)


def test_time_is_divided_into_that_of_shards_and_that_of_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = with_costs(tmp_path, monkeypatch, shard_s=0.03, item_s=0.004)
    assert tried.seconds == pytest.approx(4 * 0.03 + 20 * 0.004)
    assert tried.shard_s == pytest.approx(0.03)
    assert tried.attempt_s == pytest.approx(0.004)


@pytest.mark.parametrize("noise_s", [1.0, -0.025])
def test_a_timing_that_scatters_gives_no_negative_cost(
    noise_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = with_costs(tmp_path, monkeypatch, shard_s=0.02, item_s=0.01, noise_s=noise_s)
    assert tried.attempt_s > 0
    assert tried.shard_s >= 0
    assert 4 * tried.shard_s + 20 * tried.attempt_s == pytest.approx(tried.seconds)
