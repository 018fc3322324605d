"""A pair of an image and its depth, and a split of pairs that are read one at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DepthSplit", "Pair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`rgb_HW3`: uint8 RGB. `depth_HW`: float32 meters, 0 or NaN where unknown."""

    rgb_HW3: npt.NDArray[np.uint8]
    depth_HW: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthSplit:
    """Names of the pairs of a split in their order; read(index) decodes one, in any thread."""

    names: tuple[str, ...]
    read: Callable[[int], Pair]
