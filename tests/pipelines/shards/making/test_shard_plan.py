from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from pipelines.base.errors import UsageError
from pipelines.shards.making import row_sorter
from pipelines.shards.making.shard_packer import Limits
from pipelines.shards.making.shard_plan import Planner, PlanRules, ShardPlan, is_val, sorted_labels
from pipelines.shards.sources.items import SourceItem

RULES = PlanRules(
    shuffle=True,
    val="none",
    limits=Limits(max_samples=10, max_bytes=2**28),
    num_frames=10,
    fps=10.0,
    clip_stride_s=None,
    clip_short_side_px=256,
    codec="mjpeg",
)


@dataclass
class Video:
    duration_s: float | None = 10.0
    width: int = 64
    height: int = 48
    is_seekable: bool = True
    fps: float | None = 30.0


def image(name: str, **others: Any) -> SourceItem:
    return SourceItem(f"/data/{name}.jpg", "file", 0, 1000, 5, f"{name}.jpg", name, "image")._replace(**others)


def video(name: str, **others: Any) -> SourceItem:
    return image(name, kind="clip", **others)


def images(count: int) -> list[SourceItem]:
    return [image(f"{'ab'[n % 2]}/{n:04d}", label="ab"[n % 2]) for n in range(count)]


def planned(
    folder: Path, items: list[SourceItem], rules: PlanRules = RULES, batch: int = 7, facts: Any = lambda _: Video()
) -> ShardPlan:
    with Planner(rules, folder, lambda videos: [facts(one) for one in videos]) as planner:
        for start in range(0, len(items), batch):
            planner.add(items[start : start + batch])
        return planner.finish()


def keys(plan: ShardPlan) -> list[list[str]]:
    return [[item.key for item in plan.shard(index).items()] for index in range(plan.num_shards)]


def all_keys(plan: ShardPlan) -> list[str]:
    return [key for shard in keys(plan) for key in shard]


def names(plan: ShardPlan) -> list[str]:
    return [outline.name for outline in plan.outlines]


def test_items_are_ordered_by_the_hash_of_their_key(tmp_path: Path) -> None:
    items = images(25)
    plan = planned(tmp_path, items)
    want = sorted((item.key for item in items), key=lambda key: xxhash.xxh3_64_intdigest(key.encode()))
    assert keys(plan) == [want[:10], want[10:20], want[20:]]
    assert names(plan) == [f"train-images-{n:06d}.tar" for n in range(3)]
    assert (plan.num_items, plan.num_samples, plan.labels) == (25, 25, ("a", "b"))


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path) -> None:
    items = images(40)
    shuffled = [items[n] for n in np.random.default_rng(0).permutation(40)]
    (tmp_path / "b").mkdir()
    one, other = planned(tmp_path, items), planned(tmp_path / "b", shuffled, batch=11)
    assert [one.shard(n).rows.equals(other.shard(n).rows) for n in range(4)] == [True] * 4


def test_more_items_than_fit_into_memory_give_the_same_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [*images(300), *(image("a/0000") for _ in range(3)), *(video(f"v{n}") for n in range(50))]
    (tmp_path / "b").mkdir()
    want = planned(tmp_path / "b", items)
    for name, value in (("RUN_ROWS", 32), ("FIRST_RUN_ROWS", 16), ("NUM_FIRST_RUNS", 2), ("BLOCK_ROWS", 8)):
        monkeypatch.setattr(row_sorter, name, value)
    found = planned(tmp_path, items)
    assert keys(found) == keys(want)
    assert [one._replace(batch_index=0) for one in found.outlines] == [
        one._replace(batch_index=0) for one in want.outlines
    ]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["plan.arrow"]


def test_without_shuffle_items_are_ordered_by_key(tmp_path: Path) -> None:
    plan = planned(tmp_path, images(25)[::-1], replace(RULES, shuffle=False))
    assert all_keys(plan) == sorted(item.key for item in images(25))


def test_items_come_back_as_they_went_in(tmp_path: Path) -> None:
    items = [image("x/ü", label="cat", size=-1), image("y", location="/d/t.tar", via="tar", offset=512, modified_ns=9)]
    plan = planned(tmp_path, items)
    shard = plan.shard(0)
    want = {item.key: item._replace(label=None) for item in items}
    assert {item.key: item for item in shard.items()} == want
    assert [plan.labels[n] if n >= 0 else None for n in shard.rows.column("label").to_pylist()] == [
        {item.key: item.label for item in items}[key] for key in keys(plan)[0]
    ]


def test_labels_that_are_numbers_are_in_order_of_the_numbers() -> None:
    assert sorted_labels(["10", "9", "0", "007"]) == ("0", "007", "9", "10")
    assert sorted_labels(["10", "9", "cat"]) == ("10", "9", "cat")


def test_labels_are_numbered_in_order_of_their_names(tmp_path: Path) -> None:
    items = [image(str(n), label=label) for n, label in enumerate(["zebra", "ant", "zebra", "cat"])]
    plan = planned(tmp_path, [*items, image("none")])
    shard = plan.shard(0)
    found = dict(zip(keys(plan)[0], shard.rows.column("label").to_pylist(), strict=True))
    assert (plan.labels, found) == (("ant", "cat", "zebra"), {"0": 2, "1": 0, "2": 2, "3": 1, "none": -1})


@pytest.mark.parametrize("shuffle", [True, False])
def test_keys_that_repeat_are_numbered_past_those_that_are_taken(tmp_path: Path, shuffle: bool) -> None:
    items = [image(name, source=f"{at}.jpg") for at, name in enumerate(["a", "b", "a", "a_2", "a", "a_2"])]
    plan = planned(tmp_path, items, replace(RULES, shuffle=shuffle))
    found = {item.source: item.key for item in plan.shard(0).items()}
    assert found == {"0.jpg": "a", "1.jpg": "b", "2.jpg": "a_3", "3.jpg": "a_2", "4.jpg": "a_4", "5.jpg": "a_2_2"}


def test_keys_are_unique_across_kinds_and_splits(tmp_path: Path) -> None:
    plan = planned(tmp_path, [image("a"), image("a", split="val"), video("a")])
    assert sorted(all_keys(plan)) == ["a", "a_2", "a_3"]


def test_kinds_and_splits_have_shards_of_their_own_images_and_train_first(tmp_path: Path) -> None:
    items = [
        one._replace(split=split) for split in ("val", "test", None) for one in (video(f"v{split}"), image(f"i{split}"))
    ]
    plan = planned(tmp_path, items)
    want = [f"{split}-{kind}s-000000.tar" for kind in ("image", "clip") for split in ("train", "val", "test")]
    assert names(plan) == want
    assert [(shard.kind, shard.split) for shard in map(plan.shard, range(6))] == [
        (kind, split) for kind in ("image", "clip") for split in ("train", "val", "test")
    ]


def test_every_third_of_a_class_in_the_order_of_the_listing_is_val(tmp_path: Path) -> None:
    plan = planned(tmp_path, images(12), replace(RULES, val="every:3"))
    found = dict(zip(names(plan), keys(plan), strict=True))
    assert sorted(found["val-images-000000.tar"]) == ["a/0000", "a/0006", "b/0001", "b/0007"]


def test_split_by_hash_is_a_share_and_more_items_move_none(tmp_path: Path) -> None:
    rules = replace(RULES, val="hash:0.2", limits=Limits(max_samples=10**6, max_bytes=2**40))

    def val(count: int) -> set[str]:
        plan = planned(tmp_path, images(count), rules, batch=1000)
        return set(keys(plan)[names(plan).index("val-images-000000.tar")])

    few, many = val(1000), val(3000)
    assert few < many
    assert {key for key in many if int(key[2:]) < 1000} == few
    assert 0.17 < len(many) / 3000 < 0.23


def test_split_by_hash_is_not_the_first_of_the_order() -> None:
    hashes = np.linspace(0, 2**64 - 2**12, 100_000).astype(np.uint64)
    chosen = is_val(hashes, 0.25)
    assert [abs(part.mean() - 0.25) < 0.02 for part in np.split(chosen, 10)] == [True] * 10
    # Which items are held out of training: a change here is a change of everybody's splits.
    golden = np.array([0, 1, 2**63, 2**64 - 1, 12345678901234567890], np.uint64)
    assert is_val(golden, 0.5).tolist() == [True, True, True, False, False]


def test_split_name_that_cannot_be_part_of_a_file_name_is_refused(tmp_path: Path) -> None:
    for split in ("../up", "a b", "x" * 40, "a-b"):
        with pytest.raises(UsageError, match="need letters, digits and _"):
            planned(tmp_path, [image("a", split=split)])


def test_size_ends_a_shard_and_an_unknown_size_is_guessed(tmp_path: Path) -> None:
    rules = replace(RULES, limits=Limits(max_samples=100, max_bytes=300_000))
    plan = planned(tmp_path, [image(str(n), size=-1) for n in range(9)], rules)
    assert [outline.num_items for outline in plan.outlines] == [3, 3, 3]
    plan = planned(tmp_path, [image(str(n), size=60_000) for n in range(9)], rules)
    assert [outline.num_items for outline in plan.outlines] == [5, 4]


def test_long_video_is_divided_at_multiples_of_the_stride(tmp_path: Path) -> None:
    plan = planned(tmp_path, [video("v")], replace(RULES, clip_stride_s=0.4, num_frames=5), facts=lambda _: Video(10.0))
    rows = [plan.shard(n).rows for n in range(plan.num_shards)]
    ranges = [(row.column("start_s")[0].as_py(), row.column("end_s")[0].as_py()) for row in rows]
    assert ranges == [(0.0, pytest.approx(4.1)), (4.0, pytest.approx(8.1)), (8.0, -1.0)]
    assert [outline.num_samples for outline in plan.outlines] == [10, 10, 4]


def test_videos_slower_than_the_rate_are_divided_at_their_own(tmp_path: Path) -> None:
    videos = {"a": Video(40.0, fps=30.0), "b": Video(40.0, fps=2.0), "c": Video(40.0, fps=None)}
    plan = planned(
        tmp_path, [video(name) for name in videos], replace(RULES, shuffle=False), facts=lambda item: videos[item.key]
    )
    rows = [row for n in range(plan.num_shards) for row in plan.shard(n).rows.to_pylist()]
    # 40 clips of a second; 8 of 5 seconds; 40 again, for a header without a rate.
    ranges = [(row["start_s"], row["end_s"]) for row in rows]
    tens = [(0.0, 10.0), (10.0, 20.0), (20.0, 30.0), (30.0, -1.0)]
    seconds_of_c = [(0.0, 2.0), (2.0, 12.0), (12.0, 22.0), (22.0, 32.0), (32.0, -1.0)]
    assert ranges == [*tens, (0.0, -1.0), *seconds_of_c]
    assert sum(outline.num_samples for outline in plan.outlines) == 40 + 8 + 40


@pytest.mark.parametrize("facts", [None, Video(duration_s=None), Video(width=0), Video(duration_s=0.1)])
def test_video_of_unknown_length_is_one_piece(tmp_path: Path, facts: Video | None) -> None:
    plan = planned(tmp_path, [video(str(n)) for n in range(3)], facts=lambda _: facts)
    assert [outline.num_items for outline in plan.outlines] == [3]
    assert plan.shard(0).rows.column("end_s").to_pylist() == [-1.0] * 3


def test_video_that_cannot_be_sought_in_is_one_piece(tmp_path: Path) -> None:
    plan = planned(tmp_path, [video("v")], facts=lambda _: Video(100.0, is_seekable=False))
    assert [(outline.num_items, outline.num_samples) for outline in plan.outlines] == [(1, 100)]


def test_closed_plan_leaves_nothing(tmp_path: Path) -> None:
    planned(tmp_path, images(3)).close()
    assert list(tmp_path.iterdir()) == []
