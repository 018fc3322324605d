"""Warnings about a planned build, from hand-made estimates: each appears when it should, and only then."""

from typing import Any

import pytest

from pipelines.shards.dry_run.build_advice import advise
from pipelines.shards.dry_run.estimate import BuildEstimate, GroupEstimate
from pipelines.shards.dry_run.read_speed import ReadComparison
from pipelines.shards.dry_run.trial import Trial
from pipelines.shards.sources.items import Reject

LABELS = {"cat": 5000, "dog": 5000}


def group(**changes: Any) -> GroupEstimate:
    facts: dict[str, Any] = {"kind": "image", "split": "train", "num_items": 10_000, "num_samples": 10_000}
    facts |= {"num_shards": 40, "bytes_in": 10**9, "bytes_out": 10**9, "labels": LABELS}
    return GroupEstimate(**(facts | changes))


def trial(**changes: Any) -> Trial:
    facts: dict[str, Any] = {"kind": "image", "num_items": 100, "num_attempts": 100, "num_samples": 100}
    facts |= {"rejects": (), "dropped_clips": {}, "seconds": 1.0, "start_s": 0.1, "shard_s": 0.01, "attempt_s": 0.01}
    facts |= {"bytes_in": 10**7, "bytes_out": 10**7, "median_width_px": 500, "median_height_px": 375}
    return Trial(**(facts | changes))


def estimate(*groups: GroupEstimate, **changes: Any) -> BuildEstimate:
    facts: dict[str, Any] = {"out": "shards", "num_workers": 2, "groups": groups or (group(), group(split="val"))}
    facts |= {
        "labels": tuple(LABELS),
        "num_rows": 10_000,
        "num_ignored": 0,
        "rejects": (),
        "list_s": 0.1,
        "build_s": 9.0,
    }
    facts |= {"free_bytes": 10**12, "trials": (trial(),), "videos": None, "reading": speed(tar_mb_per_s=400.0)}
    return BuildEstimate(**(facts | changes))


def speed(**changes: Any) -> ReadComparison:
    facts: dict[str, Any] = {"num_files": 100, "num_bytes": 10**7, "files_mb_per_s": 100.0, "tar_mb_per_s": 100.0}
    return ReadComparison(**(facts | {"cache": "cold"} | changes))


def warnings(one: BuildEstimate, num_readers: int = 32) -> list[str]:
    return list(advise(one, num_readers=num_readers, canvas_px=256, max_reject_ratio=0.5))


def test_a_sound_plan_has_no_warning() -> None:
    assert warnings(estimate()) == []


def test_too_few_shards_name_the_size_that_gives_enough() -> None:
    (text,) = warnings(estimate(group(num_shards=10), group(split="val")))
    assert "train images: 10 shards for 32 readers" in text
    assert "22 of them get no data" in text
    assert "--samples-per-shard 312 " in text
    assert -(-10_000 // 312) >= 32


def test_the_val_split_is_not_shared_out_among_readers() -> None:
    assert warnings(estimate(group(), group(split="val", num_shards=1))) == []


def test_too_few_samples_for_so_many_readers() -> None:
    (text,) = warnings(estimate(group(num_samples=200, num_shards=1), group(split="val")))
    assert "about 200 samples are few for 32 readers" in text


def test_many_tiny_shards_get_a_larger_size_that_still_feeds_all() -> None:
    (text,) = warnings(estimate(group(num_shards=1000, bytes_out=10**8), group(split="val")))
    assert "1000 shards of 0.095 MiB" in text
    assert "--samples-per-shard 312 " in text
    (text,) = warnings(estimate(group(num_shards=1000, bytes_out=10**9), group(split="val")), num_readers=2)
    assert "--samples-per-shard 672 " in text  # 64 MiB of 100 kB each


def test_huge_shards() -> None:
    (text,) = warnings(estimate(group(bytes_out=40 * 3 * 2**30), group(split="val")))
    assert "shards of 3 GiB" in text


@pytest.mark.parametrize(("tar_mb_per_s", "is_warned"), [(100.0, True), (129.0, True), (131.0, False)])
def test_sharding_that_will_not_help_names_the_measured_ratio(tar_mb_per_s: float, is_warned: bool) -> None:
    found = warnings(estimate(reading=speed(tar_mb_per_s=tar_mb_per_s)))
    assert bool(found) == is_warned
    if found:
        assert f"{tar_mb_per_s / 100:.2f} x the rate of 100 single files of 100 kB" in found[0]
        assert "from this disk, cold cache" in found[0]


def test_labels_without_a_validation_split() -> None:
    (text,) = warnings(estimate(group()))
    assert "--val every:10" in text
    assert warnings(estimate(group(labels={}))) == []


def test_classes_that_are_missing_rare_or_not_given() -> None:
    val = group(split="val", labels={"cat": 3})
    found = warnings(estimate(group(labels={"cat": 5000, "dog": 4900}), val))
    assert "val images: none of class dog" in found
    assert "val images: fewer than 10 of class cat" in found
    assert "train images: 100 of 10000 have no label" in found


def test_long_lists_of_classes_are_cut() -> None:
    names = {f"class{index}": 20 for index in range(9)}
    found = warnings(estimate(group(labels=names), group(split="val", labels={})))
    assert "val images: none of class class0, class1, class2 and 6 others" in found


def test_classes_of_videos_are_not_missed_among_images() -> None:
    assert warnings(estimate(group(), group(split="val"), labels=("cat", "dog", "running"))) == []


def test_small_images_name_a_canvas_that_fits() -> None:
    (text,) = warnings(estimate(trials=(trial(median_width_px=160, median_height_px=107),)))
    assert "160 x 107 px" in text
    assert "canvas_px = 96" in text


def test_rejects_that_would_stop_the_build() -> None:
    reject = Reject(key="a", source="a.jpg", reason="bad")
    (text,) = warnings(estimate(trials=(trial(num_samples=40, rejects=(reject,) * 60),)))
    assert "60 of 100 image sources tried are unusable" in text
    assert warnings(estimate(trials=(trial(num_samples=60, rejects=(reject,) * 40),))) == []


def test_a_trial_without_any_sample() -> None:
    nothing = trial(num_samples=0, median_width_px=0, median_height_px=0)
    found = warnings(estimate(group(num_samples=0), group(split="val", num_samples=0), trials=(nothing,)))
    assert found == ["none of 100 image sources tried gave a sample; see the rejects"]


def test_a_disk_that_is_too_small() -> None:
    (text,) = warnings(estimate(free_bytes=2**30))
    assert "1.86 GiB, and 1 GiB are free" in text
    assert warnings(estimate(free_bytes=None)) == []
