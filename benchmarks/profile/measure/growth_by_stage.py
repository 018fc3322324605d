"""What a pipeline gives as it grows, stage by stage: reading alone, with decoding, with one task after the other.

Each is the real pipeline, cut off behind a stage (taps.truncated), at several thread counts, in turn. What a stage
costs the whole can be read from what is lost where it comes in: an answer that needs neither clocks nor a model.
"""

import statistics
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.profile.measure.stage_hooks import READ, truncated
from benchmarks.profile.measure.windows import Bench
from benchmarks.profile.profile_config import ProfileConfig

__all__ = ["Truncated", "measure_truncated"]

DECODE = "decode"
NUM_TURNS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated:
    """A pipeline that ends with a stage, nobody taking its batches. values: samples/s of every turn."""

    num_threads: int
    last_stage: str
    values: tuple[float, ...]

    @property
    def samples_per_s(self) -> float:
        return statistics.median(self.values)


def measure_truncated(config: ProfileConfig, seconds: float) -> tuple[Truncated, ...]:
    """All stages at all of `config.threads`, in turn, twice. Takes about `seconds`, and a step more for each."""
    stages = (READ, DECODE, *config.pipeline.tasks)
    window_s = seconds / (NUM_TURNS * len(stages) * len(config.threads))
    values: dict[tuple[int, str], list[float]] = {}
    with ExitStack() as stack:
        benches = {
            count: stack.enter_context(Bench(with_threads(config, count), is_taken=False)) for count in config.threads
        }
        for _ in range(NUM_TURNS):
            for count, bench in benches.items():
                for stage in stages:
                    with truncated(bench.pipeline, stage):
                        values.setdefault((count, stage), []).append(bench.window(window_s).samples_per_s)
                        bench.pause()
    return tuple(
        Truncated(num_threads=count, last_stage=stage, values=tuple(found)) for (count, stage), found in values.items()
    )


def with_threads(config: ProfileConfig, count: int) -> ProfileConfig:
    """The same pipeline with `count` threads, and nobody to take its batches."""
    pipeline = config.pipeline.model_copy(update={"num_threads": count})
    return config.model_copy(update={"pipeline": pipeline, "train": None, "device_samples_per_s": None})
