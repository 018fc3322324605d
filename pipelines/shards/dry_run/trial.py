"""Trial of a plan: some items are really made into small shards, which gives their cost and their rejects."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.shards.format.columns import number_column, numbers_of
from pipelines.shards.format.table import Kind
from pipelines.shards.making.make_shard import ShardJob, make_shard
from pipelines.shards.making.planning import probe_videos
from pipelines.shards.making.shard_packer import with_column
from pipelines.shards.making.shard_plan import PlannedShard, ShardPlan
from pipelines.shards.making.shard_records import ShardRecord, load_record
from pipelines.shards.sources.items import Reject

__all__ = ["Trial", "spread", "try_shards"]

NUM_SHARDS = 8
MAX_ITEMS: dict[Kind, int] = {"image": 512, "clip": 24}
# Items that are made before the clock is looked at.
STEP_ITEMS: dict[Kind, int] = {"image": 64, "clip": 2}
# Of a range of an hour, the first clips tell as much as all of them.
MAX_CLIPS_OF_VIDEO = 3
ENOUGH_S = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Items of one kind, made by one process. A shard of n attempts would take shard_s + n x attempt_s.

    num_attempts: samples, rejects and dropped clips. start_s: of the first item, imports included. bytes_in: of the
    items whose size is known; bytes_out: of the small tars. The medians are of what is stored, 0 without a sample.
    """

    kind: Kind
    num_items: int
    num_attempts: int
    num_samples: int
    rejects: tuple[Reject, ...]
    dropped_clips: dict[str, int]
    seconds: float
    start_s: float
    shard_s: float
    attempt_s: float
    bytes_in: int
    bytes_out: int
    median_width_px: int
    median_height_px: int

    @property
    def sample_ratio(self) -> float:
        """Samples per attempt."""
        return self.num_samples / max(self.num_attempts, 1)


class _Made(NamedTuple):
    part: PlannedShard
    record: ShardRecord
    seconds: float

    @property
    def num_attempts(self) -> int:
        return self.record.num_samples + len(self.record.rejects) + sum(self.record.dropped.values())


def spread(plan: ShardPlan, kind: Kind) -> list[PlannedShard]:
    """Return some items of one kind as small shards: evenly over the plan's shards and over each of them, mixed."""
    indices = [index for index, outline in enumerate(plan.outlines) if outline.kind == kind]
    chosen = [indices[at] for at in _evenly(len(indices), NUM_SHARDS)]
    parts: list[PlannedShard] = []
    for index in chosen:
        shard = plan.shard(index)
        rows = _evenly(shard.rows.num_rows, -(-MAX_ITEMS[kind] // len(chosen)))
        num_steps = -(-len(rows) // STEP_ITEMS[kind])
        parts += [_with_rows(shard, rows[step::num_steps]) for step in range(num_steps)]
    # Mixed, because the trial ends when its time is over, maybe after a few of them.
    random.Random(0).shuffle(parts)
    return parts


def try_shards(parts: Sequence[PlannedShard], job: ShardJob) -> Trial:
    """Make small shards, at least one, until some 1.5 s have passed; they are left in the job's storage."""
    parts = [_shortened(part, job) for part in parts]
    # The first shard pays for imports, the second shows what a shard costs whatever is in it.
    alone = _with_rows(parts[0], [0])
    start = _make(alone, job)
    single = _make(alone, job)
    made: list[_Made] = []
    for part in parts:
        made.append(_make(part, job))
        if sum(one.seconds for one in made) >= ENOUGH_S:
            break
    return _summed(made, single, start.seconds)


def _summed(made: Sequence[_Made], single: _Made, start_s: float) -> Trial:
    seconds, num_attempts = sum(one.seconds for one in made), sum(one.num_attempts for one in made)
    attempt_s = _attempt_s(seconds, num_attempts, len(made), single)
    records = [one.record for one in made]
    sizes = [_column(records, name) for name in ("width", "height")]
    dropped: Counter[str] = Counter()
    for record in records:
        dropped.update(record.dropped)
    return Trial(
        kind=records[0].kind,
        num_items=sum(one.part.rows.num_rows for one in made),
        num_attempts=num_attempts,
        num_samples=sum(record.num_samples for record in records),
        rejects=tuple(reject for record in records for reject in record.rejects),
        dropped_clips=dict(dropped.most_common()),
        seconds=seconds,
        start_s=start_s,
        shard_s=max(0.0, seconds - attempt_s * num_attempts) / len(made),
        attempt_s=attempt_s,
        bytes_in=sum(int(numbers_of(one.part.rows.column("size")).clip(0).sum()) for one in made),
        bytes_out=sum(record.shard_bytes for record in records),
        median_width_px=int(median(sizes[0] or [0])),
        median_height_px=int(median(sizes[1] or [0])),
    )


def _attempt_s(seconds: float, num_attempts: int, num_shards: int, single: _Made) -> float:
    """Return the time of one attempt without its part of a shard's fixed cost, such as syncing the disk.

    Both follow from shards of one item and of many; timings scatter, so at least a fifth is the attempts' own.
    """
    num_more = num_attempts - num_shards * single.num_attempts
    mean_s = seconds / max(num_attempts, 1)
    if num_more <= 0:
        return mean_s
    return min(mean_s, max(mean_s / 5, (seconds - num_shards * single.seconds) / num_more))


def _column(records: Sequence[ShardRecord], name: str) -> list[int]:
    return [value for record in records for value in record.samples.column(name).to_pylist()]


def _make(part: PlannedShard, job: ShardJob) -> _Made:
    start_s = time.perf_counter()
    make_shard(part, job)
    seconds = time.perf_counter() - start_s
    # Read from the record: a made shard says only what a build needs at once.
    record = load_record(job.storage, part.name)
    assert record is not None
    return _Made(part, record, seconds)


def _with_rows(shard: PlannedShard, rows: Sequence[int]) -> PlannedShard:
    return replace(shard, rows=shard.rows.take(number_column(rows, pa.int64())))


def _evenly(length: int, count: int) -> list[int]:
    """Return up to `count` different indices into a sequence, evenly from its first to its last."""
    return sorted(set(np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()))


def _shortened(part: PlannedShard, job: ShardJob) -> PlannedShard:
    """Return the part with only the first clips of each video."""
    form = job.clip_form
    if part.kind == "image" or form is None:
        return part
    start_s, end_s = (numbers_of(part.rows.column(name)) for name in ("start_s", "end_s"))
    forms = [form.at(None if facts is None else facts.fps) for facts in probe_videos(list(part.items()))]
    most_s = start_s + [((MAX_CLIPS_OF_VIDEO - 1) * one.stride_ticks + one.num_frames) / one.fps for one in forms]
    return replace(part, rows=with_column(part.rows, "end_s", np.where(end_s < 0, most_s, np.minimum(end_s, most_s))))
