"""A whole profile, in the order in which it is made: limits, costs, windows, advice, stages, scaling, trace."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loaders import CompareOptions, compare_loaders
from benchmarks.profile.judge.advice import Advice, Option, advise, options_of
from benchmarks.profile.judge.apply import Applied, apply_option
from benchmarks.profile.judge.measurements import Measured, measure
from benchmarks.profile.judge.stage_rows import Blocked, StageRow, blocked_of, decode_limit, gains_without, stage_rows
from benchmarks.profile.judge.standing_questions import standing_questions
from benchmarks.profile.judge.verdict import Verdict, judge
from benchmarks.profile.measure.ceilings import Ceilings, ceilings
from benchmarks.profile.measure.gpu import GpuWatch, Kernel, top_kernels, watched
from benchmarks.profile.measure.growth_by_stage import Truncated, measure_truncated
from benchmarks.profile.measure.trace import Recorder, Span
from benchmarks.profile.measure.windows import Bench
from benchmarks.profile.measure.worker_trial import in_threads, tried_workers
from benchmarks.profile.model.scaling import ScalingRow, plan_scaling
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig, memory_of
from pipelines.shards.format.locations import is_remote
from training.parallel import choose_device, cpu_threads

__all__ = ["Live", "Profile", "Tested", "make_profile", "quick_verdict", "sample_bytes"]

MEASURE_SHARE, STAGES_SHARE, TRACE_SHARE = 0.65, 0.3, 0.05
APPLY_S, APPLY_REPEATS = 10.0, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One more stretch of the running pipeline, every piece of work recorded, and what only a GPU can tell."""

    spans: tuple[Span, ...]
    gpu: GpuWatch
    kernels: tuple[Kernel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A piece of advice, followed: what came of it."""

    advice: Advice
    applied: Applied


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Everything a profile says. decode_limit_samples_per_s: if all cores only decoded. loaders: what
    `compare_loaders` found, if it was asked for. seconds: what it took."""

    source: str
    measured: Measured
    ceilings: Ceilings
    are_ceilings_cached: bool
    verdict: Verdict
    advice: tuple[Advice, ...]
    standing_questions: tuple[tuple[str, str], ...]
    tested: Tested | None
    rows: tuple[StageRow, ...]
    blocked: tuple[Blocked, ...]
    truncated: tuple[Truncated, ...]
    decode_limit_samples_per_s: float | None
    gains_without: dict[str, float]
    scaling: tuple[ScalingRow, ...]
    live: Live
    loaders: Mapping[str, Any] | None
    seconds: float


def quick_verdict(config: ProfileConfig, seconds: float) -> tuple[Verdict, Measured]:
    """Only what the verdict needs."""
    measured = measure(config, seconds)
    options: tuple[Option, ...] = options_of(measured)
    return judge(measured, options), measured


def make_profile(
    config: ProfileConfig,
    *,
    source: str,
    num_apply: int = 0,
    with_loaders: bool = False,
    progress: Callable[[str], None] = print,
) -> Profile:
    """`num_apply`: the piece of advice to follow, counted from 1; 0 for none. `with_loaders`: compare other loaders on
    the same images. Raises UsageError if there is less advice, or there are no images on this machine to compare on.
    """
    start_s = time.perf_counter()
    compared = _compare_options(config.pipeline) if with_loaders else None
    asked, config = config, in_threads(config)
    device = choose_device(config.device)
    with cpu_threads(config.train.cpu_threads if config.train else 0):
        progress("limits of this machine, measured once for these shards")
        found, is_cached = ceilings(config.pipeline, device)
        progress("costs of each stage, and the running pipeline")
        measured = measure(config, MEASURE_SHARE * config.seconds)
        progress("what could be changed")
        options = options_of(measured)
        advice = advise(measured, options)
        tested = _tested(config, advice, num_apply, progress)
        progress("worker processes instead of threads")
        workers = tried_workers(asked)
        progress("the pipeline, stage by stage")
        truncated = measure_truncated(config, STAGES_SHARE * config.seconds)
        live = _live(config, TRACE_SHARE * config.seconds)
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
        blocked=blocked_of(measured.base),
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


def sample_bytes(measured: Measured) -> float:
    """Mean bytes of a file, images and clips as they are mixed in a step."""
    feeds = measured.model.feeds
    total = sum(feed.batch_size * measured.costs[f"read {feed.kind}"].sample_bytes for feed in feeds)
    return total / sum(feed.batch_size for feed in feeds)


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


def _scaling(measured: Measured) -> tuple[ScalingRow, ...]:
    config = measured.config
    own = measured.taker_samples_per_s
    speeds = (*config.gpu_samples_per_s, *([own] if own is not None and own > 0 else []))
    step_bytes = memory_of(config.pipeline).step_bytes
    return plan_scaling(measured.model, config.num_gpus, speeds, sample_bytes(measured), step_bytes)


def _live(config: ProfileConfig, seconds: float) -> Live:
    recorder = Recorder()
    with Bench(config) as bench:
        bench.observe(recorder)
        with watched(bench.device) as gpu:
            bench.window(seconds)
        bench.observe(None)
        kernels = top_kernels(lambda: bench.window(60.0, max_steps=1), bench.device)
    return Live(spans=tuple(recorder.spans), gpu=gpu, kernels=kernels)
