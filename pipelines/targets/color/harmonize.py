"""Harmonization: which tasks see gray, so that the trunk cannot tell tasks apart by low-level statistics.

Section 3.3 of the paper: the paper's rule replaces relative position's color dropping by colorization's input,
L of Lab replicated three times, and changes nothing else. `all` gives every task that input.
"""

from typing import Literal, get_args

from pipelines.base.errors import UsageError

__all__ = ["HarmonizeMode", "task_sees_lightness"]

HarmonizeMode = Literal["off", "paper", "all"]


def task_sees_lightness(mode: HarmonizeMode, task_name: str) -> bool:
    """Whether the named task gets L replicated three times instead of its own input style. Raises UsageError."""
    if mode not in get_args(HarmonizeMode):
        allowed = ", ".join(get_args(HarmonizeMode))
        raise UsageError(f"harmonize = {mode!r}; allowed are {allowed}. Set harmonize to one of them.")
    return mode == "all" or (mode == "paper" and task_name == "relative_position")
