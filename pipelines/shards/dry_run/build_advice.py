"""Advice on a planned build: an estimate in, sentences on what may disappoint and what to do out. Reads nothing."""

import math
from collections.abc import Iterator

from pipelines.shards.dry_run.build_estimate import BuildEstimate, GroupEstimate

__all__ = ["advise"]

# A request to an object store takes some 20 ms, in which 4 MiB could have come.
SMALL_SHARD_BYTES = 4 * 2**20
LARGE_SHARD_BYTES = 2 * 2**30
# Below this, the files themselves serve as well as shards.
USEFUL_GAIN = 1.3
FEW_PER_CLASS = 10
FEW_PER_READER = 10
READERS = "training processes x loader workers, see --ranks"
MOST_NAMED = 3


def advise(estimate: BuildEstimate, *, num_readers: int, canvas_px: int, max_reject_ratio: float) -> Iterator[str]:
    """Yield warnings, the gravest first. `num_readers`: training processes x loader workers that share the shards."""
    # In the order of what would stop the build, spoil it, or only slow it down.
    yield from _rejects(estimate, max_reject_ratio)
    yield from _space(estimate)
    for group in estimate.groups:
        if group.split == "train" and group.num_samples:
            yield from _layout(group, num_readers)
    yield from _reading(estimate)
    yield from _labels(estimate)
    yield from _sizes(estimate, canvas_px)


def _rejects(estimate: BuildEstimate, max_reject_ratio: float) -> Iterator[str]:
    for trial in estimate.trials:
        if trial.num_samples == 0:
            yield f"none of {trial.num_items} {trial.kind} sources tried gave a sample; see the rejects"
        elif len(trial.rejects) > max_reject_ratio * trial.num_items:
            yield (
                f"{len(trial.rejects)} of {trial.num_items} {trial.kind} sources tried are unusable, more than "
                f"max_reject_ratio = {max_reject_ratio:g}: the build would stop"
            )


def _space(estimate: BuildEstimate) -> Iterator[str]:
    if estimate.free_bytes is not None and estimate.bytes_out > estimate.free_bytes:
        yield (
            f"the shards need about {_gib(estimate.bytes_out)}, and {_gib(estimate.free_bytes)} are free where they "
            "should go: choose another --out, or shrink them with --short-side"
        )


def _layout(group: GroupEstimate, num_readers: int) -> Iterator[str]:
    where = f"{group.split} {group.kind}s"
    shard_bytes = group.bytes_out / max(group.num_shards, 1)
    enough = group.num_samples // num_readers
    # One of these at most: each advises on the number of shards, and two would contradict each other.
    if enough < FEW_PER_READER:
        yield f"{where}: about {group.num_samples} samples are few for {num_readers} readers ({READERS}): use fewer"
    elif group.num_shards < num_readers:
        yield (
            f"{where}: {group.num_shards} shards for {num_readers} readers ({READERS}): with plain WebDataset or DALI "
            f"{num_readers - group.num_shards} of them get no data; --samples-per-shard {enough} makes enough. "
            "(fourfold's own reader shares out samples, not shards)"
        )
    elif group.num_shards > num_readers and shard_bytes < SMALL_SHARD_BYTES:
        yield (
            f"{where}: {group.num_shards} shards of {shard_bytes / 2**20:.2g} MiB: opening them will cost more than "
            f"reading them; --samples-per-shard {_samples_for(group, num_readers)} makes fewer"
        )
    if shard_bytes > LARGE_SHARD_BYTES:
        yield (
            f"{where}: shards of {_gib(shard_bytes)} are slow to copy and to check, and a killed build loses up to one "
            "per worker: lower max_shard_mib or --samples-per-shard"
        )


def _samples_for(group: GroupEstimate, num_readers: int) -> int:
    """Return the samples of a shard that is not small, as long as every reader still has one."""
    samples_of_large = math.ceil(64 * 2**20 / max(group.bytes_out / max(group.num_samples, 1), 1))
    return max(1, min(samples_of_large, group.num_samples // num_readers))


def _reading(estimate: BuildEstimate) -> Iterator[str]:
    speed = estimate.reading
    if speed is not None and speed.tar_gain < USEFUL_GAIN:
        mean_kb = speed.num_bytes / speed.num_files / 1e3
        is_cold = speed.cache == "cold"
        where = "from this disk, cold cache" if is_cold else "from memory: the system kept them in its cache"
        yield (
            f"shards will hardly be read faster than these files: a tar gave {speed.tar_gain:.2f} x the rate of "
            f"{speed.num_files} single files of {mean_kb:,.0f} kB in random order ({where}). "
            "On network disks and object stores it is another matter"
        )


def _labels(estimate: BuildEstimate) -> Iterator[str]:
    groups = {group.split: group for group in estimate.groups if group.kind == "image"}
    train, val = groups.get("train"), groups.get("val")
    # Videos may bring classes of their own, which clips do not keep.
    names = sorted({name for group in groups.values() for name in group.labels})
    if not names:
        return
    if val is None:
        yield "labels but no validation split, which a probe is scored on: add --val every:10 or --val hash:0.1"
    for group in (train, val):
        if group is None:
            continue
        missing = [name for name in names if name not in group.labels]
        if missing:
            yield f"{group.split} images: none of class {_named(missing)}"
        rare = [name for name, count in group.labels.items() if count < FEW_PER_CLASS]
        if rare:
            yield f"{group.split} images: fewer than {FEW_PER_CLASS} of class {_named(rare)}"
    if train is not None and (unlabelled := train.num_items - sum(train.labels.values())):
        yield f"train images: {unlabelled} of {train.num_items} have no label"


def _sizes(estimate: BuildEstimate, canvas_px: int) -> Iterator[str]:
    for trial in estimate.trials:
        short_side_px = min(trial.median_width_px, trial.median_height_px)
        if trial.kind == "image" and 0 < short_side_px < canvas_px:
            yield (
                f"images of {trial.median_width_px} x {trial.median_height_px} px (median) are smaller than a canvas "
                f"of {canvas_px} px and would be enlarged: train with canvas_px = {short_side_px // 32 * 32 or 32}"
            )


def _named(names: list[str]) -> str:
    others = f" and {len(names) - MOST_NAMED} others" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + others


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.3g} GiB"
