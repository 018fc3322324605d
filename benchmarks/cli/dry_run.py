"""`fourfold shards build --dry-run`: shows the plan of a build, its time and size, and warnings."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.results.output import print_facts, print_json, print_table, say, size_text
from pipelines.base.errors import UsageError
from pipelines.base.progress import quiet_progress

if TYPE_CHECKING:
    from pipelines.shards.build import BuildConfig
    from pipelines.shards.dry_run.estimate import BuildEstimate
    from pipelines.shards.dry_run.read_speed import ReadComparison
    from pipelines.shards.dry_run.source_videos import SourceVideos
    from pipelines.shards.dry_run.trial import Trial

__all__ = ["num_readers_of", "show_estimate"]

MOST_SHOWN = 5


def num_readers_of(ranks: str) -> int:
    """Return the number of readers: "8x4" (training processes x loader workers of each) is 32, "8" is 8."""
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,4}))?", ranks)
    num_readers = int(match[1]) * int(match[2] or 1) if match else 0
    if not num_readers:
        raise UsageError(f"--ranks {ranks}: need PROCESSESxWORKERS, both at least 1, for example --ranks 8x4.")
    return num_readers


def show_estimate(config: "BuildConfig", ranks: str, as_json: bool) -> None:
    """Print the estimate of a build. Writes nothing to its folder."""
    num_readers = num_readers_of(ranks)
    # After the check, so that a wrong --ranks need not wait for this import.
    from pipelines.shards.dry_run.estimate import estimate_build

    if as_json:
        with quiet_progress():
            print_json(estimate_build(config, num_readers=num_readers))
        return
    estimate = estimate_build(config, num_readers=num_readers)
    columns = ["kind", "split", "sources", "samples", "shards", "read", "write", "a shard", "classes"]
    rows = [
        [
            *(group.kind, group.split, group.num_items, group.num_samples, group.num_shards),
            *(size_text(group.bytes_in), size_text(group.bytes_out)),
            size_text(group.bytes_out / max(group.num_shards, 1)),
            len(group.labels) or None,
        ]
        for group in estimate.groups
    ]
    print_table(f"planned for {config.out}; nothing is written there", columns, rows)
    print_facts("", _facts(estimate, config.engine))
    for warning in estimate.warnings:
        say(f"warning: {warning}")


def _facts(estimate: "BuildEstimate", engine: str) -> dict[str, str]:
    rejects = [*estimate.rejects, *(reject for trial in estimate.trials for reject in trial.rejects)]
    facts: dict[str, str | None] = {"time": f"about {_duration(estimate.build_s)} {_workers(estimate, engine)}"}
    facts |= {f"tried {trial.kind}s": _trial_text(trial) for trial in estimate.trials}
    facts["classes"] = _classes(estimate)
    facts["videos"] = _videos_text(estimate.videos)
    facts["reading"] = _reading_text(estimate.reading)
    facts["rows"] = (
        f"{estimate.num_rows} read, {len(estimate.rejects)} of them rejected and {estimate.num_ignored} ignored so far"
    )
    facts["rejects"] = _listed([f"{reject.source} ({reject.reason})" for reject in rejects], "; ")
    return {name: value for name, value in facts.items() if value is not None}


def _workers(estimate: "BuildEstimate", engine: str) -> str:
    if engine == "ray":
        return f"of one core; {sum(group.num_shards for group in estimate.groups)} tasks for the cluster"
    return f"with {estimate.num_workers} worker{'s' if estimate.num_workers > 1 else ''}"


def _trial_text(trial: "Trial") -> str:
    what = "images" if trial.kind == "image" else "videos (the start of each)"
    size = f" of {trial.median_width_px} x {trial.median_height_px} px (median)" if trial.num_samples else ""
    dropped = _listed([f"{number} {reason}" for reason, number in trial.dropped_clips.items()])
    return (
        f"{trial.num_items} {what} in {trial.seconds:.2g} s by one worker: samples {trial.num_samples}{size}, "
        f"rejects {len(trial.rejects)}" + (f", clips dropped {dropped}" if dropped else "")
    )


def _classes(estimate: "BuildEstimate") -> str | None:
    counts: Counter[str] = Counter()
    for group in estimate.groups:
        counts.update(group.labels)
    return _listed([f"{name} {number}" for name, number in counts.most_common()])


def _videos_text(videos: "SourceVideos | None") -> str | None:
    if videos is None:
        return None
    kinds = videos.codecs | {
        "of variable rate": videos.num_variable_rate,
        "interlaced": videos.num_interlaced,
        "turned": videos.num_rotated,
    }
    text = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
    text = f"{text}; {videos.median_fps:.4g} frames/s"
    if videos.median_gop_frames is None:
        return f"{text}; distance of keyframes not measured"
    return (
        f"{text}; a keyframe every {videos.median_gop_frames:.0f} frames (at most {videos.max_gop_frames}), so that "
        f"a clip at a random place takes about {videos.frames_per_random_clip:.0f} decoded frames; from a shard "
        f"{videos.frames_per_stored_clip}"
    )


def _reading_text(speed: "ReadComparison | None") -> str | None:
    if speed is None:
        return None
    return (
        f"{speed.num_files} of the files in random order {speed.files_mb_per_s:.0f} MB/s, a tar of them in sequence "
        f"{speed.tar_mb_per_s:.0f} MB/s: {speed.tar_gain:.2g} x ({speed.cache} cache)"
    )


def _listed(items: Sequence[str], separator: str = ", ") -> str | None:
    more = f"{separator}{len(items) - MOST_SHOWN} more" if len(items) > MOST_SHOWN else ""
    return separator.join(items[:MOST_SHOWN]) + more if items else None


def _duration(seconds: float) -> str:
    """Return seconds for people: 3700 -> "1 h 2 min"."""
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
