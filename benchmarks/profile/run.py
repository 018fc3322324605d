"""A whole profile, in the order in which it is made; `quick_verdict` is its first part."""

from benchmarks.profile.advice import Option, options_of
from benchmarks.profile.config import ProfileConfig
from benchmarks.profile.measured import Measured, measure
from benchmarks.profile.verdict import Verdict, judge

__all__ = ["quick_verdict"]


def quick_verdict(config: ProfileConfig, seconds: float) -> tuple[Verdict, Measured]:
    """Only what the verdict needs."""
    measured = measure(config, seconds)
    options: tuple[Option, ...] = options_of(measured)
    return judge(measured, options), measured
