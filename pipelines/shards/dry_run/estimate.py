"""Dry run of a build: sources are listed and planned, some items tried, and the rest estimated from that.

Nothing is written to the build's folder. The plan, the trial's small shards and a tar to time reading lie in a
temporary folder ($TMPDIR) for that long; put it on the disk of the build to get that disk's times.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.shards.dry_run.build_advice import advise
from pipelines.shards.dry_run.build_estimate import BuildEstimate, GroupEstimate
from pipelines.shards.dry_run.read_speed import compare_reading
from pipelines.shards.dry_run.source_videos import look_at_videos
from pipelines.shards.dry_run.trial import Trial, spread, try_shards
from pipelines.shards.format.columns import numbers_of
from pipelines.shards.format.storage import is_remote, storage_of
from pipelines.shards.format.table import Kind
from pipelines.shards.making.build_config import BuildConfig
from pipelines.shards.making.make_shard import ShardJob
from pipelines.shards.making.planning import plan_build
from pipelines.shards.making.shard_plan import PlannedShard, ShardPlan

__all__ = ["BuildEstimate", "GroupEstimate", "estimate_build"]

KINDS: tuple[Kind, ...] = ("image", "clip")


def estimate_build(config: BuildConfig, *, num_readers: int = 32, canvas_px: int = 256) -> BuildEstimate:
    """List, plan and try a build. `num_readers`: training processes x loader workers that will share the shards.

    Raises what listing raises: UsageError (a source is missing, nothing in it), DataError (a damaged list or tar).
    """
    with tempfile.TemporaryDirectory(prefix="fourfold-dry-run-") as name:
        # 1. The plan is that of the build, of all items: only making them is sampled.
        folder, start_s = Path(name), time.perf_counter()
        planned = plan_build(config, folder)
        plan, list_s = planned.plan, time.perf_counter() - start_s
        # 2. Items from everywhere in the plan: the first ones are often of one class or one camera.
        parts = {kind: found for kind in KINDS if (found := spread(plan, kind))}
        trials = {kind: try_shards(found, _job(config, plan, folder)) for kind, found in parts.items()}
        # 3. What the trial measured, for all of the plan.
        num_workers = config.num_processes() if config.engine == "local" else 1
        estimate = BuildEstimate(
            out=str(config.out),
            num_workers=num_workers,
            groups=tuple(_groups(plan, trials)),
            labels=plan.labels,
            num_rows=planned.listing.num_rows,
            num_ignored=planned.listing.num_ignored,
            rejects=tuple(planned.listing.rejects),
            list_s=list_s,
            build_s=list_s + _make_s(plan, trials, num_workers),
            free_bytes=None if is_remote(config.out) else _free_bytes(Path(config.out)),
            trials=tuple(trials.values()),
            videos=look_at_videos(parts["clip"], config.num_frames, config.fps) if "clip" in parts else None,
            reading=compare_reading(_local_files(parts["image"]), folder) if "image" in parts else None,
        )
    advice = advise(estimate, num_readers=num_readers, canvas_px=canvas_px, max_reject_ratio=config.max_reject_ratio)
    return replace(estimate, warnings=(*planned.warnings(), *advice))


def _job(config: BuildConfig, plan: ShardPlan, folder: Path) -> ShardJob:
    kinds = {outline.kind for outline in plan.outlines}
    storage = storage_of(folder / "shards")
    storage.make()
    return ShardJob(
        storage=storage,
        image_form=config.image_form() if "image" in kinds else None,
        clip_form=config.clip_form() if "clip" in kinds else None,
        labels=plan.labels,
        # Versions do not matter: nothing of the trial is kept for a later build.
        libraries={kind: {} for kind in KINDS},
    )


def _groups(plan: ShardPlan, trials: dict[Kind, Trial]) -> Iterator[GroupEstimate]:
    for kind, split in dict.fromkeys((outline.kind, outline.split) for outline in plan.outlines):
        indices = [at for at, outline in enumerate(plan.outlines) if (outline.kind, outline.split) == (kind, split)]
        outlines, trial = [plan.outlines[index] for index in indices], trials[kind]
        counts, bytes_in = np.zeros(len(plan.labels), np.int64), 0
        for index in indices:
            rows = plan.shard(index).rows
            counts += np.bincount(numbers_of(rows.column("label")) + 1, minlength=len(counts) + 1)[1:]
            # A long video is several rows, and only the first of them begins at its start.
            is_first = numbers_of(rows.column("start_s")) == 0
            bytes_in += int((numbers_of(rows.column("size")).clip(0) * is_first).sum())
        num_samples = round(sum(outline.num_samples for outline in outlines) * trial.sample_ratio)
        yield GroupEstimate(
            kind=kind,
            split=split,
            num_items=sum(outline.num_items for outline in outlines),
            num_samples=num_samples,
            num_shards=len(outlines),
            bytes_in=bytes_in,
            bytes_out=_bytes_out(trial, num_samples, bytes_in),
            labels={} if kind == "clip" else _named(plan.labels, counts),
        )


def _named(labels: Sequence[str], counts: npt.NDArray[np.int64]) -> dict[str, int]:
    return {name: count for name, count in zip(labels, counts.tolist(), strict=True) if count}


def _bytes_out(trial: Trial, num_samples: int, bytes_in: int) -> int:
    # An image's size follows its file's; a clip's does not follow its video's.
    if trial.kind == "image" and trial.bytes_in and bytes_in:
        return round(trial.bytes_out / trial.bytes_in * bytes_in)
    return round(trial.bytes_out / max(trial.num_samples, 1) * num_samples)


def _make_s(plan: ShardPlan, trials: dict[Kind, Trial], num_workers: int) -> float:
    """Return the seconds of making all shards; workers take one at a time, so that one can be left with the longest."""
    shards_s = [
        trials[outline.kind].shard_s + trials[outline.kind].attempt_s * outline.num_samples for outline in plan.outlines
    ]
    return max(trial.start_s for trial in trials.values()) + max(sum(shards_s) / num_workers, max(shards_s))


def _free_bytes(out: Path) -> int | None:
    # The folder itself is not made by a dry run; the disk it would be on is that of its first parent there is.
    there = next(path for path in [out, *out.absolute().parents] if path.exists())
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


def _local_files(parts: Sequence[PlannedShard]) -> list[Path]:
    """Return the files that are images themselves; what lies in tars and datasets is packed already."""
    items = (item for part in parts for item in part.items())
    return [Path(item.location) for item in items if item.via == "file" and "://" not in item.location]
