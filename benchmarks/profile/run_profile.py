"""A whole profile, in the order in which it is made: limits, costs, windows, advice, worker processes, loaders."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loaders import CompareOptions, compare_loaders
from benchmarks.profile.judge.advice import Advice, advise, options_of
from benchmarks.profile.judge.measurements import Measurements, measure
from benchmarks.profile.judge.stage_rows import StageRow, decode_limit, stage_rows
from benchmarks.profile.judge.verdict import Verdict, judge
from benchmarks.profile.judge.worker_processes import in_threads, try_workers
from benchmarks.profile.measure.ceilings import Ceilings, ceilings
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.base.errors import UsageError
from pipelines.build import PipelineConfig
from pipelines.run.stage_stats import StageStats, sum_stats
from pipelines.shards.format.locations import is_remote
from training.parallel import choose_device, cpu_threads

__all__ = ["Profile", "make_profile", "quick_verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Content of a profile. workers: what worker processes gave, in words. clocks: the running pipeline's own, over all
    windows. decode_limit_samples_per_s: if all cores only decoded. loaders: result of `compare_loaders`, None if it was
    not run. seconds: time it took."""

    source: str
    measured: Measurements
    ceilings: Ceilings
    are_ceilings_cached: bool
    verdict: Verdict
    advice: tuple[Advice, ...]
    workers: str
    rows: tuple[StageRow, ...]
    clocks: tuple[StageStats, ...]
    decode_limit_samples_per_s: float | None
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
    with_loaders: bool = False,
    progress: Callable[[str], None] = print,
) -> Profile:
    """Make a profile. `with_loaders`: compare other loaders on the same images. Raises UsageError if there are no
    images on this machine to compare on."""
    start_s = time.perf_counter()
    # 1. What cannot work is an error before anything is measured.
    compared = _compare_options(config.pipeline) if with_loaders else None
    given, config = config, in_threads(config)
    with cpu_threads(config.train.cpu_threads if config.train else 0):
        # 2. Limits, costs and windows; verdict and advice follow from them.
        progress("limits of this machine, measured once for these shards")
        found, is_cached = ceilings(config.pipeline, choose_device(config.device))
        progress("costs of each stage, and the running pipeline")
        measured = measure(config, config.seconds)
        progress("what could be changed")
        options = options_of(measured)
        # 3. Of the configuration as it was given: the one above has threads only.
        progress("worker processes instead of threads")
        workers = try_workers(given)
    # 4. Outside of the block, since each loader sets the threads of its own process.
    loaders = compare_loaders(compared, lambda text: progress(f"loaders: {text}")) if compared else None
    return Profile(
        source=source,
        measured=measured,
        ceilings=found,
        are_ceilings_cached=is_cached,
        verdict=judge(measured, options),
        advice=advise(measured, options),
        workers=workers,
        rows=stage_rows(measured, found),
        clocks=sum_stats([window.stages for window in measured.base]),
        decode_limit_samples_per_s=decode_limit(measured, found),
        loaders=loaders,
        seconds=time.perf_counter() - start_s,
    )


def _compare_options(config: PipelineConfig) -> CompareOptions:
    # One folder: loaders of others read files of their own, made of these shards, so a mix or a URL cannot be compared.
    sources = config.sources_of("image")
    if len(sources) != 1 or is_remote(sources[0].path):
        given = ", ".join(str(source.path) for source in sources) or "none"
        raise UsageError(f"--loaders: images = {given}; need one folder of image shards on this machine.")
    return CompareOptions(shards=Path(sources[0].path), canvas_px=config.canvas_px, batch_size=config.batch_size)
