"""Trials of the profiler: bottlenecks are planted, and what it says is compared with what is there.

    python -m benchmarks.studies.trials.profile_trials --out trials.json   all of it, about half an hour
    python -m benchmarks.studies.trials.profile_trials --out trials.json --only verdicts --minutes 3

Counted: how often the planted stage is named, and how often something is called an alarm where nothing is planted.
Measured beside what was predicted: the gain of pieces of advice, and simulated configurations. And what profiling
itself costs. The record grows trial by trial; the same command resumes.
"""

import argparse
import itertools
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.study import RecordFile, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.profile.profile_config import ProfileConfig, changed
from benchmarks.profile.run_profile import quick_verdict
from benchmarks.studies.trials.planted import PLANTS, Plant
from benchmarks.studies.trials.trial_accuracy import COMMON, gains, overheads, simulations
from benchmarks.studies.trials.trial_shards import TrialShards, make_trial_shards
from training.parallel import cpu_threads

__all__ = ["main"]

NUM_TRIALS = 10
TRIAL_S = 4.0
BASES: dict[str, tuple[dict[str, Any], ...]] = {
    "images": (
        {"tasks": {"relative_position": {}, "colorization": {}, "exemplar": {}}},
        {"tasks": {"colorization": {}}},
        {"tasks": {"relative_position": {"grids_per_image": 2}, "exemplar": {}}, "harmonize": "paper"},
    ),
    # One thread is too few where nearly all work is decoding: the reading and drawing beside it are a second one.
    "decoding": (
        {"tasks": {"colorization": {}}},
        {"tasks": {"relative_position": {}}},
        {"tasks": {"relative_position": {}, "colorization": {}}, "share_decode": False},
    ),
    "clips": (
        {"tasks": {"motion_segmentation": {"remembered_clips": 0}}},
        {"tasks": {"colorization": {}, "motion_segmentation": {"remembered_clips": 0}}},
    ),
}
"""Pipelines that the trials take turns with."""
DEVICE_SAMPLES_PER_S = 20_000.0
"""A device that is never the limit, unless that is what is planted."""


def base_config(shards: TrialShards, plant: Plant, trial: int) -> ProfileConfig:
    """Return the configuration that something is planted in."""
    needs = ("images", "clips")[trial % 2] if plant.name == "nothing" else plant.needs
    images = shards.oversized if plant.is_oversized else shards.images
    pipeline = {"images": images, "clips": shards.clips, **COMMON, **BASES[needs][trial % len(BASES[needs])]}
    value = {"pipeline": pipeline, "device_samples_per_s": DEVICE_SAMPLES_PER_S, "num_repeats": 3}
    return changed(ProfileConfig.model_validate(value), plant.settings)


def run_trial(shards: TrialShards, plant: Plant, trial: int) -> dict[str, Any]:
    """Return one verdict, with what is planted in place."""
    config = base_config(shards, plant, trial)
    with plant.slow(shards.images), cpu_threads(0):
        verdict, measured = quick_verdict(config, TRIAL_S)
    return {
        "plant": plant.name,
        "trial": trial,
        "expected": plant.stage,
        "stage": verdict.stage,
        "is_alarm": verdict.is_alarm,
        "is_right": verdict.stage == plant.stage if plant.name != "nothing" else not verdict.is_alarm,
        "sentence": verdict.sentence,
        "samples_per_s": measured.samples_per_s,
        "contention": measured.model.contention,
        "cores_to_be_had": measured.cores_to_be_had,
    }


def verdicts(shards: TrialShards) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield trial after trial, plants in turn, so that a bad minute of the machine does not hit one of them alone."""
    for trial, plant in itertools.product(range(NUM_TRIALS), PLANTS):
        yield f"{plant.name} {trial}", partial(run_trial, shards, plant, trial)


PARTS = {"verdicts": verdicts, "gains": gains, "simulations": simulations, "overhead": overheads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("trials.json"))
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop before another trial after so long")
    parser.add_argument("--shards", type=Path, help="folder for the shards; left out, a temporary one")
    given = parser.parse_args()
    with temporary_folder() as folder:
        run_all(make_trial_shards(given.shards or folder), given)


def run_all(shards: TrialShards, given: argparse.Namespace) -> None:
    """Run what the record does not have yet, and write the record after each."""
    # 1. Resume: trials that the record has are not run again, their seconds count.
    before: dict[str, Any] = {"results": {}, "seconds": 0.0}
    if given.out.is_file():
        before = json.loads(given.out.read_text())
    rows: dict[str, dict[str, Any]] = before["results"]
    command = shlex.join(["python", "-m", "benchmarks.studies.trials.profile_trials", *sys.argv[1:]])
    record = RecordFile(
        out=given.out,
        kind="profile_trials",
        label="planted bottlenecks, predicted gains, simulated configurations",
        config={
            "num_trials": NUM_TRIALS,
            "trial_s": TRIAL_S,
            "bases": BASES,
            "plants": [one.name for one in PLANTS],
            "command": command,
        },
        inputs={"shards": "made by benchmarks/studies/trials/trial_shards.py"},
        earlier_s=before["seconds"],
    )
    # 2. Trial by trial. The record is written after each, so that a run that is killed loses one at most.
    every = ((part, name, job) for part, jobs in PARTS.items() for name, job in jobs(shards))
    for part, name, job in every:
        if given.only not in (None, part) or name in rows.setdefault(part, {}):
            continue
        if time.monotonic() - record.start_s > given.minutes * 60:
            return
        start_s = time.perf_counter()
        found = job()
        rows[part][name] = found | {"seconds": time.perf_counter() - start_s}
        say(f"{part}: {name}: {rows[part][name]}")
        record.write(rows)


if __name__ == "__main__":
    main()
