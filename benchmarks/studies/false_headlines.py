"""Simulate suites in which no task set has any effect, and count how often the report's verdicts say something.

    python -m benchmarks.studies.false_headlines [--suites 3000]

Each suite: random weights, four single tasks and two combined sets; values are a seed's own effect, an effect of each
task set on each depth (none, or twice the noise), and noise. Takes about 25 ms a suite.
"""

import argparse
import math
import re
from collections.abc import Iterator
from itertools import product

import numpy as np

from benchmarks.results.report.comparisons import Comparison, comparisons_of
from benchmarks.suite.stages import TaskSet

__all__ = ["SETS", "is_claim", "main", "null_suite"]

SINGLES = ("relative_position", "colorization", "exemplar", "motion_segmentation")
SETS = {
    "random init": TaskSet(name="random init", tasks=(), role="baseline"),
    **{name: TaskSet(name=name, tasks=(name,), role="single") for name in SINGLES},
    "RP + Col": TaskSet(name="RP + Col", tasks=SINGLES[:2], role="combined"),
    "RP + Col + Ex": TaskSet(name="RP + Col + Ex", tasks=SINGLES[:3], role="combined"),
}
Values = dict[str, dict[tuple[int, int], float]]


def null_suite(rng: np.random.Generator, *, num_depths: int, num_seeds: int, sd_of_depths: float) -> Values:
    """Return values by task set and (depth, seed) without any effect of a task set on the mean over all depths.

    sd_of_depths: what a task set does to each depth by itself; noise has 1.
    """
    by_seed = rng.normal(0, 1, num_seeds)
    return {
        name: {
            (depth, seed): float(by_seed[seed] + shift + rng.normal())
            for depth, shift in enumerate(rng.normal(0, sd_of_depths, num_depths))
            for seed in range(num_seeds)
        }
        for name in SETS
    }


def is_claim(one: Comparison) -> bool:
    """Return whether a comparison's sentence says that one is better."""
    return re.search(" (beats?|loses? to) ", one.sentence) is not None


def simulated(num_suites: int, seed: int = 0) -> Iterator[tuple[int, int, float, float, float]]:
    """Yield depths, seeds, sd of depths; share of suites with a false headline; share of intervals that hold 0."""
    for num_depths, num_seeds, sd_of_depths in product((2, 3), (3, 5), (0.0, 2.0)):
        rng, num_false, covered = np.random.default_rng(seed), 0, []
        for _ in range(num_suites):
            values = null_suite(rng, num_depths=num_depths, num_seeds=num_seeds, sd_of_depths=sd_of_depths)
            found = comparisons_of(values, SETS, range(num_depths))
            num_false += any(is_claim(one) for one in found if one.is_headline)
            # At a single depth, only without an effect of depths is the truth 0.
            alone = [
                one.difference for one in found if one.role == "single" and (one.depth is None) == (sd_of_depths > 0)
            ]
            covered += [one.ci95_low <= 0 <= one.ci95_high for one in alone if one is not None]
        yield num_depths, num_seeds, sd_of_depths, num_false / num_suites, float(np.mean(covered))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.false_headlines", description=__doc__)
    parser.add_argument("--suites", type=int, default=3000, help="simulated suites a row")
    num_suites = parser.parse_args().suites
    print("depths  seeds  effect of depths  false headlines     intervals that hold the truth")
    for depths, seeds, effect, false, covered in simulated(num_suites):
        error = 1.96 * math.sqrt(max(false * (1 - false), 1 / num_suites) / num_suites)
        print(
            f"{depths:6} {seeds:6} {effect:17.1f} {100 * false:10.1f} ± {100 * error:.1f} % {100 * covered:19.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
