"""Does the profiler tell the truth? Bottlenecks are planted, and what it says is compared with what is there.

    python -m benchmarks.studies.trials.profile_trials --out trials.json   all of it, about half an hour
    python -m benchmarks.studies.trials.profile_trials --out trials.json --only verdicts --minutes 3

Counted: how often the planted stage is named, and how often something is called an alarm where nothing is planted.
Measured beside what was predicted: the gain of pieces of advice, and simulated configurations. And what profiling
itself costs. The record grows trial by trial; the same command goes on where it stopped.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.profile.profile_config import ProfileConfig, changed
from benchmarks.profile.run_profile import quick_verdict
from benchmarks.results.record import Record, environment, now_utc, write_json
from benchmarks.studies.trials.planted import PLANTS, Plant
from benchmarks.studies.trials.trial_shards import TrialShards, make_trial_shards
from training.parallel import cpu_threads

__all__ = ["main"]

KIND = "profile_trials"
NUM_TRIALS = 10
TRIAL_S = 4.0
BASES: dict[str, tuple[dict[str, Any], ...]] = {
    "images": (
        {"tasks": {"relative_position": {}, "colorization": {}, "exemplar": {}}},
        {"tasks": {"colorization": {}}},
        {"tasks": {"relative_position": {"pairs_per_image": 2}, "exemplar": {}}, "harmonize": "paper"},
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
    """The configuration that something is planted in."""
    needs = plant.needs
    if plant.name == "nothing":
        needs = ("images", "clips")[trial % 2]
    chosen = BASES[needs][trial % len(BASES[needs])]
    images = shards.oversized if plant.is_oversized else shards.images
    pipeline = {
        "images": images,
        "clips": shards.clips,
        "batch_size": 16,
        "clip_batch_size": 4,
        "prefetch_batches": 4,
        **chosen,
    }
    value = {"pipeline": pipeline, "device_samples_per_s": DEVICE_SAMPLES_PER_S, "num_repeats": 3}
    return changed(ProfileConfig.model_validate(value), plant.settings)


def run_trial(shards: TrialShards, plant: Plant, trial: int) -> dict[str, Any]:
    """One verdict, with what is planted in place."""
    config = base_config(shards, plant, trial)
    start_s = time.perf_counter()
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
        "seconds": time.perf_counter() - start_s,
    }


def verdicts(shards: TrialShards) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Trial after trial, plants in turn, so that a bad minute of the machine does not hit one of them alone."""
    for trial, plant in itertools.product(range(NUM_TRIALS), PLANTS):
        yield f"{plant.name} {trial}", lambda plant=plant, trial=trial: run_trial(shards, plant, trial)  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("trials.json"))
    parser.add_argument("--only", choices=("verdicts", "gains", "simulations", "overhead"))
    parser.add_argument("--minutes", type=float, default=1e9, help="stop before another trial after so long")
    parser.add_argument("--shards", type=Path, help="folder for the shards; left out, a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = make_trial_shards(given.shards or Path(folder))
        run_all(shards, given)


def run_all(shards: TrialShards, given: argparse.Namespace) -> None:
    from benchmarks.studies.trials.trial_accuracy import gains, overheads, simulations

    rows: dict[str, dict[str, Any]] = json.loads(given.out.read_text())["results"] if given.out.is_file() else {}
    seconds = sum(row.get("seconds", 0.0) for part in rows.values() for row in part.values())
    start_s = time.monotonic()
    parts = {"verdicts": verdicts, "gains": gains, "simulations": simulations, "overhead": overheads}
    for part, jobs in parts.items():
        if given.only not in (None, part):
            continue
        for name, job in jobs(shards):
            if name in rows.setdefault(part, {}):
                continue
            if time.monotonic() - start_s > given.minutes * 60:
                return
            rows[part][name] = job()
            print(f"{part}: {name}: {rows[part][name]}", flush=True)
            write_json(given.out, asdict(_record(rows, seconds + time.monotonic() - start_s)))


def _record(rows: dict[str, dict[str, Any]], seconds: float) -> Record:
    config = {"num_trials": NUM_TRIALS, "trial_s": TRIAL_S, "bases": BASES, "plants": [one.name for one in PLANTS]}
    date = now_utc()
    return Record(
        kind=KIND,
        key=date,
        label="planted bottlenecks, predicted gains, simulated configurations",
        date=date,
        seconds=seconds,
        environment=environment(),
        config=config,
        inputs={"shards": "made by benchmarks/studies/trials/trial_shards.py"},
        results=rows,
    )


if __name__ == "__main__":
    main()
