"""A whole profile, in the order in which it is made: limits, costs, windows, advice, stages, scaling, trace."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loaders import CompareOptions, compare_loaders
from benchmarks.profile.judge.advice import Advice, advise, options_of
from benchmarks.profile.judge.apply import Applied, apply_option
from benchmarks.profile.judge.measurements import Measurements, measure
from benchmarks.profile.judge.stage_rows import StageRow, decode_limit, gains_without, stage_rows
from benchmarks.profile.judge.standing_questions import in_threads, standing_questions, worker_processes
from benchmarks.profile.judge.verdict import Verdict, judge
from benchmarks.profile.measure.ceilings import Ceilings, ceilings
from benchmarks.profile.measure.recording import Live, record_live
from benchmarks.profile.measure.truncation import Truncated, measure_truncated
from benchmarks.profile.model.scaling import ScalingRow, plan_scaling
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig, memory_of
from pipelines.run.stage_stats import StageStats, sum_stats
from pipelines.shards.format.locations import is_remote
from training.parallel import choose_device, cpu_threads

__all__ = ["Profile", "Tested", "make_profile", "quick_verdict"]

MEASURE_SHARE, STAGES_SHARE, TRACE_SHARE = 0.65, 0.3, 0.05
APPLY_S, APPLY_REPEATS = 10.0, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A piece of advice that was followed, and what was measured then."""

    advice: Advice
    applied: Applied

    @property
    def error_ratio(self) -> float:
        """Predicted gain over the measured one, minus 1."""
        return self.advice.gain / self.applied.gain - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Content of a profile. clocks: the running pipeline's own, over all windows. decode_limit_samples_per_s: if
    all cores only decoded. loaders: result of `compare_loaders`, None if it was not run. seconds: time it took."""

    source: str
    measured: Measurements
    ceilings: Ceilings
    are_ceilings_cached: bool
    verdict: Verdict
    advice: tuple[Advice, ...]
    standing_questions: tuple[tuple[str, str], ...]
    tested: Tested | None
    rows: tuple[StageRow, ...]
    clocks: tuple[StageStats, ...]
    truncated: tuple[Truncated, ...]
    decode_limit_samples_per_s: float | None
    gains_without: dict[str, float]
    scaling: tuple[ScalingRow, ...]
    live: Live
    loaders: Mapping[str, Any] | None
    seconds: float


def quick_verdict(config: ProfileConfig, seconds: float) -> tuple[Verdict, Measurements]:
    """Measure only what the verdict needs."""
    measured = measure(config, seconds)
    return judge(measured, options_of(measured)), measured


def make_profile(
    config: ProfileConfig,
    *,
    source: str,
    num_apply: int = 0,
    with_loaders: bool = False,
    progress: Callable[[str], None] = print,
) -> Profile:
    """Make a profile. `num_apply`: the piece of advice to follow, counted from 1; 0 for none. `with_loaders`: compare
    other loaders on the same images. Raises UsageError if there is less advice, or there are no images on this machine
    to compare on."""
    start_s = time.perf_counter()
    # 1. What cannot work is an error before anything is measured.
    compared = _compare_options(config.pipeline) if with_loaders else None
    given, config = config, in_threads(config)
    with cpu_threads(config.train.cpu_threads if config.train else 0):
        # 2. Limits, costs and windows; the advice follows from them, and is tried while they are fresh.
        progress("limits of this machine, measured once for these shards")
        found, is_cached = ceilings(config.pipeline, choose_device(config.device))
        progress("costs of each stage, and the running pipeline")
        measured = measure(config, MEASURE_SHARE * config.seconds)
        progress("what could be changed")
        options = options_of(measured)
        advice = advise(measured, options)
        tested = _tested(config, advice, num_apply, progress)
        # 3. What needs pipelines of its own.
        progress("worker processes instead of threads")
        workers = worker_processes(given)
        progress("the pipeline, stage by stage")
        truncated = measure_truncated(config, STAGES_SHARE * config.seconds)
        live = record_live(config, TRACE_SHARE * config.seconds)
    # Outside of the block, since each loader sets the threads of its own process.
    loaders = compare_loaders(compared, lambda text: progress(f"loaders: {text}")) if compared else None
    return Profile(
        source=source,
        measured=measured,
        ceilings=found,
        are_ceilings_cached=is_cached,
        verdict=judge(measured, options),
        advice=advice,
        standing_questions=(("worker processes, not threads", workers), *standing_questions(measured)),
        tested=tested,
        rows=stage_rows(measured, found),
        clocks=sum_stats([window.stages for window in measured.base]),
        truncated=truncated,
        decode_limit_samples_per_s=decode_limit(measured, found),
        gains_without=gains_without(measured),
        scaling=_scaling(measured),
        live=live,
        loaders=loaders,
        seconds=time.perf_counter() - start_s,
    )


def _compare_options(config: PipelineConfig) -> CompareOptions:
    sources = config.sources_of("image")
    if len(sources) != 1 or is_remote(sources[0].path):
        given = ", ".join(str(source.path) for source in sources) or "none"
        raise UsageError(f"--loaders: images = {given}; need one folder of image shards on this machine.")
    return CompareOptions(shards=Path(sources[0].path), canvas_px=config.canvas_px, batch_size=config.batch_size)


def _tested(
    config: ProfileConfig, advice: tuple[Advice, ...], number: int, progress: Callable[[str], None]
) -> Tested | None:
    if not number:
        return None
    if number > len(advice):
        raise UsageError(
            f"--apply {number}: this profile gave {len(advice)} pieces of advice. Allowed: 0 (none) to {len(advice)}."
        )
    chosen = advice[number - 1]
    progress(f"with the change: {chosen.option.text}")
    return Tested(advice=chosen, applied=apply_option(config, chosen.option, APPLY_S, APPLY_REPEATS))


def _scaling(measured: Measurements) -> tuple[ScalingRow, ...]:
    config, own = measured.config, measured.consumer_samples_per_s
    speeds = (*config.gpu_samples_per_s, *([own] if own else []))
    step_bytes = memory_of(config.pipeline).step_bytes
    return plan_scaling(measured.model, config.num_gpus, speeds, measured.sample_bytes, step_bytes)
