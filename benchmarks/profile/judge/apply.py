"""Advice put to the test: the configuration before and after the change, in turn, and by how much samples/s grew."""

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.profile.judge.advice import Option
from benchmarks.profile.judge.rewrite import rewritten
from benchmarks.profile.measure.windows import Bench
from benchmarks.profile.profile_config import ProfileConfig, changed
from pipelines.base.errors import UsageError

__all__ = ["Applied", "applied", "apply_option"]

MEMORY = Path("/dev/shm")
NUM_EPOCHS = 6
MAX_EPOCHS_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Samples/s of every turn, before and after the change."""

    before_samples_per_s: tuple[float, ...]
    after_samples_per_s: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Of all turns together. A median of turns would not see a stall that comes in every second one."""
        return statistics.fmean(self.after_samples_per_s) / statistics.fmean(self.before_samples_per_s)


@contextmanager
def applied(config: ProfileConfig, option: Option) -> Iterator[ProfileConfig]:
    """The configuration with the change; shards that are stored otherwise live as long as the block."""
    settings = dict(option.settings)
    if not option.stored:
        yield changed(config, settings)
        return
    stored = dict(option.stored)
    in_memory = stored.pop("in_memory", False)
    with tempfile.TemporaryDirectory(dir=MEMORY if in_memory and MEMORY.is_dir() else None) as folder:
        for kind in ("image", "clip"):
            sources = config.pipeline.sources_of(kind)
            if len(sources) > 1 or not all(Path(source.path).is_dir() for source in sources):
                raise UsageError(
                    f"--apply: {option.name} stores {kind}s anew, and this profile has "
                    f"{', '.join(str(source.path) for source in sources)}. Allowed: one folder on this machine."
                )
            if sources:
                settings[f"pipeline.{kind}s"] = rewritten(Path(sources[0].path), Path(folder) / kind, **stored)
        yield changed(config, settings)


def apply_option(config: ProfileConfig, option: Option, seconds: float, num_repeats: int) -> Applied:
    """Both in turn, `num_repeats` times. Takes about `seconds`, besides storing shards anew."""
    window_s = seconds / num_repeats / 2
    rates: dict[str, list[float]] = {"before": [], "after": []}
    remembers = option.name == "remember"
    with (
        applied(config, option) as after_config,
        Bench(config) as before,
        Bench(after_config, remembers=remembers) as after,
    ):
        if remembers:
            _some_epochs(after)
        for _ in range(num_repeats):
            for name, bench in (("before", before), ("after", after)):
                rates[name].append(bench.window(window_s).samples_per_s)
                bench.pause()
    return Applied(before_samples_per_s=tuple(rates["before"]), after_samples_per_s=tuple(rates["after"]))


def _some_epochs(bench: Bench) -> None:
    """Until nearly every clip has been there, mirrored and not."""
    num_steps = NUM_EPOCHS * max(bench.pipeline.pass_steps.values())
    bench.window(MAX_EPOCHS_S, max_steps=num_steps)
    bench.pause()
