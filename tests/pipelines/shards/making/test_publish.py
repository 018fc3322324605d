import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.base.errors import DataError
from pipelines.shards.format.manifest import load_manifest
from pipelines.shards.format.storage import Storage, storage_of
from pipelines.shards.format.table import SAMPLE_SCHEMA
from pipelines.shards.making.publish import publish, record_names, remove_stale, write_rejects
from pipelines.shards.making.shard_packer import Limits
from pipelines.shards.making.shard_plan import Planner, PlanRules, ShardPlan
from pipelines.shards.making.shard_records import ShardRecord, save_record
from pipelines.shards.sources.items import Reject, SourceItem

RULES = PlanRules(
    shuffle=False,
    val="none",
    limits=Limits(max_samples=2, max_bytes=2**28),
    num_frames=10,
    fps=10.0,
    clip_stride_s=None,
    clip_short_side_px=256,
    codec="mjpeg",
)
LISTED = [Reject(key="l", source="list.csv:3", reason="no path")]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    found = storage_of(tmp_path / "out")
    found.make()
    return found


@pytest.fixture
def plan(tmp_path: Path) -> ShardPlan:
    """Three shards: of two images, of two, of one."""
    items = [SourceItem(f"/d/{n}.jpg", "file", 0, 9, 7, f"{n}.jpg", str(n), "image", "cat") for n in range(5)]
    with Planner(RULES, tmp_path, list) as planner:
        planner.add(items)
        return planner.finish()


def save(storage: Storage, plan: ShardPlan, index: int, *, num_rejects: int = 0) -> None:
    """A record, tar and index as if the shard had been made."""
    outline = plan.outlines[index]
    keys = [item.key for item in plan.shard(index).items()]
    row = {"offset": 512, "size": 9, "width": 1, "height": 2, "label": 0, "num_frames": 1, "fps": 0.0}
    good, bad = keys[num_rejects:], keys[:num_rejects]
    samples = pa.RecordBatch.from_pylist([row | {"key": key} for key in good], schema=SAMPLE_SCHEMA)
    if good:
        storage.write(outline.name, b"tar")
        storage.write(f"{outline.name[:-4]}.idx", b"v1.2 1\n")
    record = ShardRecord(
        name=outline.name,
        kind=outline.kind,
        split=outline.split,
        fingerprint="",
        num_samples=len(good),
        shard_bytes=3 if good else 0,
        sha256="a" * 64 if good else "",
        is_final=True,
        rejects=tuple(Reject(key=key, source=f"{key}.jpg", reason="bäd") for key in bad),
        dropped={"cut": 2} if bad else {},
        samples=samples,
    )
    save_record(storage, record)


def rejects(storage: Storage) -> list[str]:
    return [json.loads(line)["source"] for line in storage.read("rejects.jsonl").decode().splitlines()]


def test_manifest_and_rejects_come_in_the_order_of_the_plan(storage: Storage, plan: ShardPlan) -> None:
    for index, num_rejects in ((2, 0), (0, 1), (1, 2)):  # as workers happen to finish them
        save(storage, plan, index, num_rejects=num_rejects)
    totals = publish(storage, plan, LISTED)
    manifest = load_manifest(storage.location)
    assert [shard.name for shard in manifest.shards] == ["train-images-000000.tar", "train-images-000002.tar"]
    assert list(manifest.select("image", "train").keys) == ["1", "4"]
    assert manifest.labels == ("cat",)
    assert rejects(storage) == ["list.csv:3", "0.jpg", "2.jpg", "3.jpg"]
    assert (totals.num_shards, totals.num_empty_shards, totals.num_images, totals.num_rejects) == (2, 1, 2, 4)
    assert (totals.num_bytes, dict(totals.dropped)) == (6, {"cut": 4})


def test_no_rejects_no_file_even_if_there_was_one(storage: Storage, plan: ShardPlan) -> None:
    storage.write("rejects.jsonl", b"old\n")
    for index in range(3):
        save(storage, plan, index)
    publish(storage, plan, [])
    assert storage.size("rejects.jsonl") is None


def test_missing_record_is_an_error_and_publishes_nothing(storage: Storage, plan: ShardPlan) -> None:
    save(storage, plan, 0)
    with pytest.raises(DataError, match=r"the record of train-images-000001\.tar is missing.*same folder on every"):
        publish(storage, plan, LISTED)
    assert storage.size("manifest.json") is None
    assert storage.size("rejects.jsonl") is None


def test_rejects_of_a_build_that_stops_are_those_of_the_shards_made(storage: Storage, plan: ShardPlan) -> None:
    for index in (0, 1):
        save(storage, plan, index, num_rejects=1)
    first = write_rejects(storage, plan, LISTED, [plan.outlines[1].name])
    assert rejects(storage) == ["list.csv:3", "2.jpg"]
    assert [reject.source for reject in first] == ["list.csv:3", "2.jpg"]


def test_stale_shards_go_and_files_of_others_stay(storage: Storage, plan: ShardPlan, tmp_path: Path) -> None:
    for index in range(3):
        save(storage, plan, index)
    out = tmp_path / "out"
    for name in ("mine.tar", "plan.tar", "samples.arrow", ".build/plan.arrow"):
        (out / name).write_bytes(b"")
    for suffix in (".tar", ".idx"):
        (out / f"train-images-000002{suffix}").rename(out / f"train-images-000009{suffix}")
    (out / ".build/train-images-000002.arrow").rename(out / ".build/train-images-000009.arrow")
    assert "train-images-000009.tar" in record_names(storage)
    remove_stale(storage, plan)
    left = sorted(path.name for path in out.iterdir() if path.is_file())
    want = [f"train-images-00000{n}.{suffix}" for n in (0, 1) for suffix in ("idx", "tar")]
    assert left == ["mine.tar", "plan.tar", "samples.arrow", *want]
