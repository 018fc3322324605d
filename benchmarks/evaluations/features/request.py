"""Requests for features: which split, which units of stage 3, how pooled. Light: a suite lists them in advance."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["NORM_NAMES", "FeatureRequest", "norm_variants"]

NORM_NAMES = {False: "as trained", True: "re-estimated"}
"""Names of the batch norm statistics in results, by `is_recalibrated`."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FeatureRequest:
    """Features of one split. Every unit and view of it is a file of its own, so that requests share files."""

    split: str
    canvas_px: int
    """Side of the square that the trunk sees."""
    pooling: Literal["max", "mean"] = "max"
    pool: int = 3
    """Every map is pooled to pool x pool."""
    units: Literal["last", "all"] = "last"
    """The last unit of stage 3, or all of them."""
    flipped_view: bool = False
    """A mirrored view of every image, too."""
    is_recalibrated: bool = False
    """Batch norm statistics estimated anew on the train split's images."""
    batch_size: int = 64
    """Images per forward pass; memory grows with it. Part of the identity only where statistics are estimated."""


def norm_variants(recalibrate_norm: bool | Literal["auto"]) -> tuple[bool, ...]:
    """Return the values of `is_recalibrated` that an option asks for: `auto` tries both."""
    return (False, True) if recalibrate_norm == "auto" else (recalibrate_norm,)
