"""Trials of the profiler: bottlenecks are planted, and what it says is compared with what is there.

    python -m benchmarks.studies.trials.profile_trials --out trials.json      about five minutes on two idle cores

Counted: how often the planted stage is named, and how often something is called an alarm where nothing is planted.
Exit code 1 if a verdict is wrong.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from benchmarks.harness.study import Study, say
from benchmarks.harness.temporary import temporary_folder
from benchmarks.profile.profile_config import ProfileConfig, changed
from benchmarks.profile.run_profile import quick_verdict
from benchmarks.studies.trials.planted import PLANTS, Plant
from benchmarks.studies.trials.trial_shards import TrialShards, make_trial_shards
from training.parallel import cpu_threads

__all__ = ["STUDY", "TrialOptions", "base_config", "run_trial"]

SIZES = {"batch_size": 16, "clip_batch_size": 4, "prefetch_batches": 4}
BASES: dict[str, tuple[dict[str, Any], ...]] = {
    "images": (
        {"tasks": {"relative_position": {}, "colorization": {}, "exemplar": {}}},
        {"tasks": {"colorization": {}}},
        {"tasks": {"relative_position": {"grids_per_image": 2}, "exemplar": {}}, "harmonize": "paper"},
    ),
    "several": (
        {"tasks": {"relative_position": {}, "colorization": {}, "exemplar": {}}},
        {"tasks": {"colorization": {}, "exemplar": {}}},
        {"tasks": {"relative_position": {}, "colorization": {}}},
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOptions:
    """How often, and how long."""

    num_trials: Annotated[int, "of every planted bottleneck"] = 3
    seconds: Annotated[float, "of measuring in a trial, which takes about twice as long"] = 4.0


def base_config(shards: TrialShards, plant: Plant, trial: int) -> ProfileConfig:
    """Return the configuration that something is planted in."""
    # Nothing is planted in both kinds in turn: an alarm may be false for either.
    needs = ("images", "clips")[trial % 2] if plant.name == "nothing" else plant.needs
    images = shards.oversized if plant.is_oversized else shards.images
    pipeline = {"images": images, "clips": shards.clips, **SIZES, **BASES[needs][trial % len(BASES[needs])]}
    value = {"pipeline": pipeline, "device_samples_per_s": DEVICE_SAMPLES_PER_S, "num_repeats": 3}
    return changed(ProfileConfig.model_validate(value), plant.settings)


def run_trial(shards: TrialShards, plant: Plant, trial: int, seconds: float) -> dict[str, Any]:
    """Return one verdict, with what is planted in place."""
    config = base_config(shards, plant, trial)
    # What is planted must be there while pipelines are opened, too, and gone before the next trial.
    start_s = time.perf_counter()
    with plant.slow(shards.images), cpu_threads(0):
        verdict, measured = quick_verdict(config, seconds)
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


def measure(options: TrialOptions) -> dict[str, Any]:
    """Return the row of every trial."""
    rows = []
    with temporary_folder() as folder:
        shards = make_trial_shards(folder)
        # Plants in turn, so that a bad minute of the machine does not hit one of them alone.
        for trial, plant in itertools.product(range(options.num_trials), PLANTS):
            rows.append(run_trial(shards, plant, trial, options.seconds))
            right = "right" if rows[-1]["is_right"] else "WRONG"
            say(f"{plant.name} {trial}: {right}, {rows[-1]['seconds']:.0f} s: {rows[-1]['sentence']}")
    return {"verdicts": rows}


def shown(results: dict[str, Any]) -> Iterator[str]:
    for plant in PLANTS:
        rows = [row for row in results["verdicts"] if row["plant"] == plant.name]
        yield f"{plant.name}: {sum(row['is_right'] for row in rows)} of {len(rows)} right"


STUDY = Study(
    module="benchmarks.studies.trials.profile_trials",
    kind="profile_trials",
    label="planted bottlenecks",
    description=__doc__,
    options=TrialOptions,
    measure=measure,
    lines=shown,
    is_failed=lambda results: not all(row["is_right"] for row in results["verdicts"]),
    constants={"bases": BASES, "sizes": SIZES, "plants": [one.name for one in PLANTS]},
    inputs={"shards": "made by benchmarks/studies/trials/trial_shards.py"},
)

if __name__ == "__main__":
    STUDY.main()
