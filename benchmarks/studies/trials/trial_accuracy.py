"""Predicted beside measured: the gain of advice, simulated configurations, and what profiling itself costs."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.turns import turns
from benchmarks.profile.judge.advice import options_of
from benchmarks.profile.judge.apply import apply_option
from benchmarks.profile.judge.measurements import measure
from benchmarks.profile.measure.recording import Recorder
from benchmarks.profile.measure.windows import Bench
from benchmarks.profile.model.simulation import simulate
from benchmarks.profile.profile_config import ProfileConfig
from benchmarks.studies.trials.planted import blocking_transfer, stalling_reads, throttled_reads
from benchmarks.studies.trials.trial_shards import TrialShards
from pipelines.base.errors import FourfoldError
from training.parallel import cpu_threads

__all__ = ["CASES", "COMMON", "Case", "gains", "overheads", "simulations"]

MEASURE_S, APPLY_S, APPLY_REPEATS = 6.0, 6.0, 6
COMMON = {"batch_size": 16, "clip_batch_size": 4, "prefetch_batches": 4}
"""Of all pipelines of the trials."""
THREE: dict[str, Any] = {"relative_position": {}, "colorization": {}, "exemplar": {}}
MOTION: dict[str, Any] = {"motion_segmentation": {"remembered_clips": 0}}
RAFT: dict[str, Any] = {"motion_segmentation": {"remembered_clips": 0, "engine": "raft", "raft_weights": "random"}}
NUM_GAIN_TRIALS = 3
NUM_OVERHEAD_PAIRS = 16
NUM_SIMULATED_STEPS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A pipeline, something slow in it, and the advice that it is to be tried with ("": only simulated)."""

    name: str
    option: str
    pipeline: Mapping[str, Any]
    device_samples_per_s: float | None = None
    slow: Callable[[Path], AbstractContextManager[None]] = field(default=lambda folder: nullcontext())
    images: str = "images"
    clips: str = "clips"


CASES = (
    Case(name="one thread", option="threads", pipeline={"tasks": {"colorization": {}}, "num_threads": 1}),
    Case(
        name="small prefetch",
        option="prefetch",
        pipeline={"tasks": THREE, "prefetch_batches": 1},
        device_samples_per_s=350.0,
        slow=partial(stalling_reads, every=256, seconds=0.3),
    ),
    Case(name="oversized images", option="small_images", pipeline={"tasks": THREE}, images="oversized"),
    Case(name="slow flow", option="flow_engine", pipeline={"tasks": RAFT}),
    Case(name="a decode per task", option="share_decode", pipeline={"tasks": THREE, "share_decode": False}),
    Case(
        name="blocking transfer",
        option="overlap_transfer",
        pipeline={"tasks": THREE},
        device_samples_per_s=500.0,
        slow=lambda folder: blocking_transfer(800e6),
    ),
    Case(name="labelled anew", option="remember", pipeline={"tasks": MOTION}),
    Case(name="vp9 clips", option="codec", pipeline={"tasks": MOTION}, clips="vp9"),
    Case(
        name="throttled reads",
        option="memory",
        pipeline={"tasks": THREE},
        slow=partial(throttled_reads, bytes_per_s=20e6),
    ),
    Case(name="dali on a CPU", option="backend", pipeline={"tasks": THREE, "backend": "dali"}),
    Case(name="three image tasks", option="", pipeline={"tasks": THREE}),
    Case(name="one task", option="", pipeline={"tasks": {"colorization": {}}}),
    Case(name="motion alone", option="", pipeline={"tasks": MOTION}),
    Case(name="a mix", option="", pipeline={"tasks": {"colorization": {}, **MOTION}}),
    Case(name="a slow step", option="", pipeline={"tasks": THREE}, device_samples_per_s=250.0),
)


Jobs = Iterator[tuple[str, Callable[[], dict[str, Any]]]]


def config_of(case: Case, shards: TrialShards) -> ProfileConfig:
    folders = {"images": getattr(shards, case.images), "clips": getattr(shards, case.clips)}
    pipeline = {**folders, **COMMON, **case.pipeline}
    return ProfileConfig.model_validate({"pipeline": pipeline, "device_samples_per_s": case.device_samples_per_s})


def gains(shards: TrialShards) -> Jobs:
    for trial in range(NUM_GAIN_TRIALS):
        for case in CASES:
            if case.option:
                yield f"{case.name} {trial}", partial(_gain, case, shards)


def _gain(case: Case, shards: TrialShards) -> dict[str, Any]:
    config = config_of(case, shards)
    with case.slow(shards.images), cpu_threads(0):
        measured = measure(config, MEASURE_S)
        # That an option is not offered is a result, too, and goes into the record.
        option = next((one for one in options_of(measured) if one.name == case.option), None)
        if option is None:
            return {"option": case.option, "not_measured": "not offered"}
        # With the cores that were free: the change is measured beside the same load by others.
        predicted = option.gain(measured.model_here)
        try:
            applied = apply_option(config, option, APPLY_S, APPLY_REPEATS)
        except FourfoldError as error:
            return {"option": case.option, "not_measured": str(error)}
    return {
        "option": case.option,
        "predicted_gain": predicted,
        "measured_gain": applied.gain,
        "error_ratio": predicted / applied.gain - 1,
        **asdict(applied),
        "cores_to_be_had": measured.cores_to_be_had,
        "contention": measured.model.contention,
    }


def simulations(shards: TrialShards) -> Jobs:
    for case in CASES:
        yield case.name, partial(_simulated, case, shards)


def _simulated(case: Case, shards: TrialShards) -> dict[str, Any]:
    """Simulate a measured pipeline. The free cores and the growth of CPU seconds come from the run, so that the
    structure is what is tested: threads, queues, waits and the consumer."""
    with cpu_threads(0), case.slow(shards.images):
        measured = measure(config_of(case, shards), MEASURE_S)
    simulated = simulate(measured.model_here, NUM_SIMULATED_STEPS)
    return {
        "simulated_samples_per_s": simulated.samples_per_s,
        "measured_samples_per_s": measured.samples_per_s,
        "error_ratio": simulated.samples_per_s / measured.samples_per_s - 1,
        "values": [window.samples_per_s for window in measured.base],
        "simulated_wait_ratio": simulated.wait_ratio,
        "measured_wait_ratio": measured.wait_ratio,
        "contention": measured.model.contention,
        "cores_to_be_had": measured.cores_to_be_had,
    }


def overheads(shards: TrialShards) -> Jobs:
    for case in CASES:
        if case.name in ("three image tasks", "one task", "motion alone"):
            yield case.name, partial(_overhead, case, shards)


def _overhead(case: Case, shards: TrialShards) -> dict[str, Any]:
    """Measure CPU seconds a sample and samples/s with every span recorded, over those without, pair by pair."""
    # Pair by pair: the load by others changes more from minute to minute than recording costs.
    cpu_s: dict[str, list[float]] = {"with": [], "without": []}
    per_s: dict[str, list[float]] = {"with": [], "without": []}
    with cpu_threads(0), Bench(config_of(case, shards)) as bench:
        for _, name in turns(cpu_s, NUM_OVERHEAD_PAIRS):
            bench.pipeline.observe(Recorder() if name == "with" else None)
            found = bench.turn(0.5)
            cpu_s[name].append(found.use.own_s / found.num_samples)
            per_s[name].append(found.samples_per_s)
    ratios = {
        name: [one / other for one, other in zip(values["with"], values["without"], strict=True)]
        for name, values in (("cpu_ratio", cpu_s), ("samples_per_s_ratio", per_s))
    }
    return {name: statistics.median(values) for name, values in ratios.items()} | {
        f"{name}s": values for name, values in ratios.items()
    }
