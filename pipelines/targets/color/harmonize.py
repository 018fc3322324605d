"""Harmonization: which tasks see gray, so that the trunk cannot tell tasks apart by low-level statistics.

`paper` is section 3.3 of Doersch & Zisserman 2017: relative position gets colorization's input, L of Lab three times,
instead of color dropping; nothing else changes. `all` gives every task that input.
"""

from typing import Literal, get_args

from pipelines.base.errors import UsageError

__all__ = ["HarmonizeMode", "task_sees_lightness"]

HarmonizeMode = Literal["off", "paper", "all"]


def task_sees_lightness(mode: HarmonizeMode, task_name: str) -> bool:
    """Return whether a task gets L of Lab three times instead of its own colors.

    Raises UsageError for an unknown mode.
    """
    if mode not in get_args(HarmonizeMode):
        allowed = ", ".join(get_args(HarmonizeMode))
        raise UsageError(f"harmonize = {mode!r}; allowed are {allowed}. Set harmonize to one of them.")
    return mode == "all" or (mode == "paper" and task_name == "relative_position")
